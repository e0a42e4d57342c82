"""Standardisation with statistics that are named, never remembered."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
from jax import lax

from jaxmeta.core import Array


class Moments(NamedTuple):
    """Mean and variance, float32 at least, that broadcast against the values they describe."""

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
      values: float array x; shorter types than float32 are widened in between.
      axes: the axes that the statistics run over; a reference may be longer or shorter there.
      reference: whose statistics. Defaults to `values` itself.
      moments: μ and σ² where they are known otherwise; nothing is summed then.
      epsilon: ε, in the values' unit squared.

    >>> standardise(jnp.array([[0.0], [2.0]]), (0,), epsilon=0.0).tolist()
    [[-1.0], [1.0]]
    >>> support = jnp.array([[0.0], [2.0]])
    >>> standardise(jnp.array([[5.0]]), (0,), reference=support, epsilon=0.0).tolist()
    [[4.0]]
    """
    given = [values, reference, *(moments or ())]
    chex.assert_equal_rank([array for array in given if array is not None])
    # Not in a short type: the sum of many entries would lose the small ones.
    wide = jnp.promote_types(values.dtype, jnp.float32)
    if moments is None:
        reference = (values if reference is None else reference).astype(wide)
        mean = reference.mean(axis=axes, keepdims=True)
        moments = Moments(mean, jnp.square(reference - mean).mean(axis=axes, keepdims=True))
    centred = values.astype(wide) - moments.mean
    return (centred * lax.rsqrt(moments.variance + epsilon)).astype(values.dtype)
