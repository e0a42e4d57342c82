"""Attention from target points to context points: uniform, Laplace, dot-product, multi-head."""

import math
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array

AttentionKind = Literal["uniform", "laplace", "dot-product", "multi-head"]


class CrossAttention(nn.Module):
    """The attention of each target point to the values of the context points.

        r(x) = Σ_s a_s(x) v_s
        uniform:      a_s = 1 / S
        laplace:      a_s = softmax_s −‖x − x_s‖₁ / l
        dot-product:  a_s = softmax_s q(x) · k(x_s) / √D,  q = k an MLP with two layers
        multi-head:   for each head h:  softmax_s (W_h q(x)) · (U_h k(x_s)) / √(D/H) of V_h v_s,
                      concatenated, then linear

    Inputs are `(targets [Q, X], points [S, X], values [S, D], real [S])`, with `real` False for
    padding; the result is `[Q, D]`, 0 if all points are padding.

    Source: Kim, Mnih, Schwarz et al. 2019, "Attentive neural processes", section 3 and appendix A.
    """

    kind: AttentionKind
    width: int = 128
    heads: int = 8
    length: float = 1.0

    @nn.compact
    def __call__(self, targets_QX: Array, points_SX: Array, values_SD: Array, real_S: Array):
        if self.kind not in get_args(AttentionKind):
            raise ValueError(
                f"unknown attention {self.kind!r}; give one of {get_args(AttentionKind)}."
            )
        chex.assert_rank([targets_QX, points_SX, values_SD, real_S], [2, 2, 2, 1])
        if self.kind == "uniform":
            scores_QS = jnp.zeros((targets_QX.shape[0], points_SX.shape[0]), values_SD.dtype)
            return _read(scores_QS, values_SD, real_S)
        if self.kind == "laplace":
            distances_QS = jnp.abs(targets_QX[:, None] - points_SX[None]).sum(axis=-1)
            return _read(-distances_QS / self.length, values_SD, real_S)
        hidden = nn.Dense(self.width, name="hidden")
        keys = nn.Dense(self.width, name="keys")
        queries_QK, keys_SK = (keys(nn.relu(hidden(x))) for x in (targets_QX, points_SX))
        if self.kind == "dot-product":
            return _read(queries_QK @ keys_SK.T / math.sqrt(self.width), values_SD, real_S)
        split = (self.heads, self.width // self.heads)
        queries_QHK = nn.DenseGeneral(split, use_bias=False, name="head_queries")(queries_QK)
        keys_SHK = nn.DenseGeneral(split, use_bias=False, name="head_keys")(keys_SK)
        values_SHK = nn.DenseGeneral(split, use_bias=False, name="head_values")(values_SD)
        scores_HQS = jnp.einsum("qhk,shk->hqs", queries_QHK, keys_SHK) / math.sqrt(split[1])
        read_HQK = jax.vmap(_read, in_axes=(0, 1, None))(scores_HQS, values_SHK, real_S)
        read_QHK = jnp.swapaxes(read_HQK, 0, 1)
        flat = read_QHK.reshape(read_QHK.shape[0], -1)
        return nn.Dense(values_SD.shape[-1], use_bias=False, name="output")(flat)


def _read(scores_QS: Array, values_SD: Array, real_S: Array) -> Array:
    """The values weighted by the softmax of the scores over valid points; 0 without any."""
    # Masked before the exponential, where a large score would give a gradient of 0 · inf.
    masked_QS = jnp.where(real_S[None], scores_QS, -1e30)
    weights_QS = jax.nn.softmax(masked_QS, axis=1) * real_S[None].astype(scores_QS.dtype)
    return weights_QS @ values_SD
