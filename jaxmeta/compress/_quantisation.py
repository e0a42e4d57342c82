"""Weights in eight bits or in bfloat16, expanded before use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.compress._weights import map_weights, weights_of
from jaxmeta.core import Array, PyTree


class Quantised(NamedTuple):
    """A weight array in eight bits.

    Attributes:
      values: int8 `[..., outputs]`, from −127 to 127.
      scale: float `[1, ..., 1, outputs]`, a step per output channel.
    """

    values: Array
    scale: Array


def quantised(params: PyTree) -> PyTree:
    """The parameters with every weight array as `Quantised`: int8, symmetric, per output channel.

        scale_c = max_i |w_ic| / 127,  q_ic = round(w_ic / scale_c),  ŵ_ic = scale_c q_ic

    The last axis of a weight array is its output channel c, as in Flax. The error is at most half a
    step, |w_ic − ŵ_ic| ≤ scale_c / 2, up to rounding in the float type; zeros remain zeros. Biases,
    scales and shifts are unchanged, and so is the computation, which is done with `dequantised`
    weights.

    Args:
      params: any tree, such as the meta-parameters of a learner.

    Raises:
      ValueError: no leaf is a float array with two axes or more.

    Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", section 2.1, here without zero-points; Krishnamoorthi 2018,
    "Quantizing deep convolutional networks for efficient inference", sections 2.2 and 3.1.

    >>> small = quantised({"kernel": jnp.array([[1.27, 0.0], [-0.5, 0.0]])})
    >>> small["kernel"].values.tolist()
    [[127, 0], [-50, 0]]
    >>> print(dequantised(small)["kernel"].round(2))
    [[ 1.27  0.  ]
     [-0.5   0.  ]]
    """
    weights_of("quantised", params)

    def quantise(weight: Array) -> Quantised:
        largest = jnp.abs(weight).max(axis=tuple(range(weight.ndim - 1)), keepdims=True)
        # A channel of zeros has the smallest positive step, so that nothing is divided by zero.
        scale = jnp.maximum(largest / 127, jnp.finfo(weight.dtype).tiny)
        # In float32 or wider: the ratio of bfloat16 numbers would be off by up to half a step.
        wide = jnp.promote_types(weight.dtype, jnp.float32)
        steps = jnp.round(weight.astype(wide) / scale.astype(wide))
        return Quantised(jnp.clip(steps, -127, 127).astype(jnp.int8), scale)

    return map_weights(quantise, params)


def in_bfloat16(params: PyTree) -> PyTree:
    """The parameters with every weight array in bfloat16: 8 bits of precision, half of float32.

        |w − ŵ| ≤ 2⁻⁸ |w|  within the range of normal numbers

    Biases, scales and shifts are unchanged. Computation is done with `dequantised` weights.

    Raises:
      ValueError: no leaf is a float array with two axes or more.

    Source: Kalamkar et al. 2019, "A study of bfloat16 for deep learning training".

    >>> small = in_bfloat16({"kernel": jnp.array([[1.0, 0.3]])})
    >>> small["kernel"].dtype.name, dequantised(small)["kernel"].tolist()
    ('bfloat16', [[1.0, 0.30078125]])
    """
    weights_of("in_bfloat16", params)
    return map_weights(lambda weight: weight.astype(jnp.bfloat16), params)


def dequantised(params: PyTree) -> PyTree:
    """The parameters with `Quantised` and bfloat16 weights as floats, to compute with.

        ŵ_ic = scale_c q_ic

    All arrays in bfloat16 become float32, also those of a learner that was trained in bfloat16.
    Other leaves are unchanged. See `quantised`.
    """

    def expand(leaf: Any) -> Any:
        if isinstance(leaf, Quantised):
            return leaf.scale * leaf.values.astype(leaf.scale.dtype)
        if jnp.result_type(leaf) == jnp.bfloat16:
            return leaf.astype(jnp.float32)
        return leaf

    return jax.tree.map(expand, params, is_leaf=lambda leaf: isinstance(leaf, Quantised))
