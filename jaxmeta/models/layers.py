"""Layers that the networks share."""

from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array
from jaxmeta.ops import convolve, standardise

NormalisationKind = Literal["batch", "support", "layer", "group", "none"]
NORMALISATIONS: tuple[str, ...] = get_args(NormalisationKind)


class Convolution(nn.Module):
    """Convolution with `SAME` padding and without bias, on `jaxmeta.ops.convolve`."""

    features: int
    window: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, images_NHWC: Array) -> Array:
        kernel = self.param(
            "kernel",
            nn.initializers.glorot_uniform(),
            (self.window, self.window, images_NHWC.shape[-1], self.features),
        )
        return convolve(images_NHWC, kernel, stride=self.stride)


class Normalisation(nn.Module):
    """Standardise, then scale and shift every channel by learned factors.

        y = γ (x − μ) / √(σ² + ε) + β

    The statistics μ, σ² are those of
      `batch`: all examples given, per channel (transductive where those are a query set);
      `support`: the first `references` examples, per channel, so that every query example is
        judged by itself; all examples where there are no references (the support set itself);
      `layer`: each example by itself, over space and channels;
      `group`: each example by itself, over space and a group of eight channels;
      `none`: no standardisation, only γ and β.
    Nothing is remembered between calls.

    >>> import jax, jax.numpy as jnp
    >>> layer = Normalisation("layer")
    >>> x = jnp.arange(12.0).reshape(2, 6)
    >>> y, _ = layer.init_with_output(jax.random.key(0), x)
    >>> bool(jnp.allclose(y.mean(axis=1), 0, atol=1e-6))
    True
    """

    kind: NormalisationKind
    channels_per_group: int = 8

    @nn.compact
    def __call__(self, values: Array, references: int = 0) -> Array:
        if self.kind not in NORMALISATIONS:
            raise ValueError(f"normalisation {self.kind!r} is none of {', '.join(NORMALISATIONS)}.")
        channels = values.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        affine = (1,) * (values.ndim - 1) + (channels,)
        return self._standardised(values, references) * scale.reshape(affine) + bias.reshape(affine)

    def _standardised(self, values: Array, references: int) -> Array:
        examples_and_space = tuple(range(values.ndim - 1))
        if self.kind == "batch":
            return standardise(values, examples_and_space)
        if self.kind == "support":
            reference = values[:references] if references else None
            return standardise(values, examples_and_space, reference=reference)
        if self.kind == "layer":
            return standardise(values, tuple(range(1, values.ndim)))
        if self.kind == "group":
            groups = max(1, values.shape[-1] // self.channels_per_group)
            grouped = values.reshape(*values.shape[:-1], groups, -1)
            axes = (*range(1, values.ndim - 1), values.ndim)
            return standardise(grouped, axes).reshape(values.shape)
        return values


def with_reference(
    kind: NormalisationKind, inputs: Array, reference: Array | None
) -> tuple[Array, int]:
    """Put the reference in front of the inputs where normalisation needs it; and their number."""
    if kind != "support" or reference is None:
        return inputs, 0
    return jnp.concatenate([reference, inputs]), reference.shape[0]
