"""Layers that the networks share."""

from typing import Literal, get_args

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, check_no_padding
from jaxmeta.ops import convolve, extreme_pool, standardise

NormalisationKind = Literal["batch", "support", "layer", "group", "training", "none"]
NORMALISATIONS: tuple[str, ...] = get_args(NormalisationKind)
"""The kinds of `Normalisation`."""
OF_SEVERAL_EXAMPLES = ("batch", "support")
"""The kinds with statistics of several examples, so that an output depends on other inputs."""


class Convolution(nn.Module):
    """Convolution with `SAME` padding and without bias, see `jaxmeta.ops.convolve`."""

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
    """Standardisation, followed by a learned scale and shift of every channel.

        y = γ (x − μ) / √(σ² + ε) + β

    The statistics μ, σ² are taken over
      `batch`: all examples given, per channel (transductive for a query set);
      `support`: the first `references` examples, per channel, so that query examples don't affect
        each other; all examples if there are no references (the support set itself);
      `layer`: space and channels of each example;
      `group`: space and groups of eight channels of each example;
      `training`: the batches of training; `jaxmeta.models.folded` puts them into γ and β of a
        network that was trained with `batch`, and only γ and β are applied;
      `none`: no examples; only γ and β are applied.
    No statistics are stored between calls. `batch` and `support` raise `ValueError` for tasks with
    a mask, since the padding would enter the statistics.

    With `pool`, the result is the maximum of every `pool` × `pool` square of y. The pooling is
    computed first: it keeps the largest x (the smallest where γ < 0), which is standardised with
    the statistics of all x. With `pool=2` the backward pass then sums over a quarter of the
    entries.

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
    def __call__(self, values: Array, references: int = 0, *, pool: int = 1) -> Array:
        if self.kind not in NORMALISATIONS:
            raise ValueError(
                f"unknown query statistics {self.kind!r}; give {', '.join(NORMALISATIONS)}."
            )
        if self.kind in OF_SEVERAL_EXAMPLES:
            check_no_padding(self.kind)
        channels = values.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        affine = (1,) * (values.ndim - 1) + (channels,)
        scale, bias = scale.reshape(affine), bias.reshape(affine)
        kept = values
        if pool > 1:
            kept = extreme_pool(values, scale, pool)
        return self._standardised(kept, values, references) * scale + bias

    def _standardised(self, kept: Array, values: Array, references: int) -> Array:
        """`kept`, with the statistics of all `values`."""
        examples_and_space = tuple(range(values.ndim - 1))
        if self.kind == "batch":
            return standardise(kept, examples_and_space, reference=values)
        if self.kind == "support":
            reference = values[:references] if references else values
            return standardise(kept, examples_and_space, reference=reference)
        if self.kind == "layer":
            return standardise(kept, tuple(range(1, values.ndim)), reference=values)
        if self.kind == "group":
            channels = values.shape[-1]
            groups = max(1, channels // self.channels_per_group)
            if channels % groups:
                raise ValueError(
                    f"query_statistics 'group': {channels} channels do not divide into {groups} "
                    f"groups; give a width that is a multiple of {self.channels_per_group}."
                )
            grouped = [array.reshape(*array.shape[:-1], groups, -1) for array in (kept, values)]
            axes = (*range(1, values.ndim - 1), values.ndim)
            return standardise(grouped[0], axes, reference=grouped[1]).reshape(kept.shape)
        return kept


def check_image_size(network: str, images: Array, smallest: int = 1, remedy: str = "") -> None:
    """Raises `ValueError` if images are too small for a network.

    Args:
      network: its name, for the message.
      images: `[N, H, W, C]`.
      smallest: the smallest height and width.
      remedy: an addition to the message, after the size.
    """
    shape = images.shape
    if len(shape) != 4 or not all(shape[1:]):
        raise ValueError(
            f"{network}: images of the shape {tuple(shape)}; give [N, H, W, C] with pixels and "
            "channels."
        )
    height, width = shape[1:3]
    if min(height, width) < smallest:
        raise ValueError(
            f"{network}: images of {height}×{width} are too small; give {smallest}×{smallest} or "
            f"more{remedy}."
        )


def with_reference(
    kind: NormalisationKind, inputs: Array, reference: Array | None
) -> tuple[Array, int]:
    """The inputs, after the reference if the normalisation uses it; and the reference's length."""
    if kind != "support" or reference is None:
        return inputs, 0
    return jnp.concatenate([reference, inputs]), reference.shape[0]
