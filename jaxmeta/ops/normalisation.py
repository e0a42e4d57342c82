"""Standardisation with explicit statistics, without running averages."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
from jax import lax

from jaxmeta.core import Array


class Moments(NamedTuple):
    """Mean and variance, in float32 or wider, that broadcast against the values."""

    mean: Array
    variance: Array


def standardise(
    values: Array,
    axes: Sequence[int],
    *,
    reference: Array | None = None,
    moments: Moments | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """Subtract the mean over `axes` and divide by the standard deviation.

        y = (x − μ) / √(σ² + ε),  μ and σ² over `axes` of `reference`

    Args:
      values: float array x; types shorter than float32 are widened for the computation.
      axes: the axes that the statistics are taken over; `reference` may have other sizes there.
      reference: the array that the statistics are taken from. Defaults to `values`.
      moments: μ and σ², if they are known already.
      epsilon: ε, added to the variance.

    >>> standardise(jnp.array([[0.0], [2.0]]), (0,), epsilon=0.0).tolist()
    [[-1.0], [1.0]]
    >>> support = jnp.array([[0.0], [2.0]])
    >>> standardise(jnp.array([[5.0]]), (0,), reference=support, epsilon=0.0).tolist()
    [[4.0]]
    """
    given = [values, reference, *(moments or ())]
    chex.assert_equal_rank([array for array in given if array is not None])
    # Not in a short type: in a sum of many entries, small ones would be rounded away.
    wide = jnp.promote_types(values.dtype, jnp.float32)
    if moments is None:
        reference = (values if reference is None else reference).astype(wide)
        mean = reference.mean(axis=axes, keepdims=True)
        moments = Moments(mean, jnp.square(reference - mean).mean(axis=axes, keepdims=True))
    centred = values.astype(wide) - moments.mean
    return (centred * lax.rsqrt(moments.variance + epsilon)).astype(values.dtype)
