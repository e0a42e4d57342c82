"""Convolutions of given strides, whose feature maps are not averaged over space."""

from collections.abc import Sequence

from flax import linen as nn

from jaxmeta.core import Array, Model
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import (
    Convolution,
    Normalisation,
    NormalisationKind,
    check_image_size,
    with_reference,
)


class _Strided(nn.Module):
    outputs: int | None
    strides: tuple[int, ...]
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        check_image_size("strided_convolutions", inputs)
        values, references = with_reference(self.normalisation, inputs, reference)
        for index, stride in enumerate(self.strides):
            values = Convolution(self.width, stride=stride, name=f"conv_{index}")(values)
            values = Normalisation(self.normalisation, name=f"norm_{index}")(values, references)
            values = nn.relu(values)
        features = values.reshape(values.shape[0], -1)
        if self.outputs is not None:
            features = nn.Dense(self.outputs, name="head")(features)
        return features[references:]


def strided_convolutions(
    outputs: int | None = None,
    *,
    strides: Sequence[int] = (2, 2, 2, 1),
    width: int = 64,
    query_statistics: NormalisationKind = "layer",
) -> Model:
    """3×3 convolutions, each with normalisation and ReLU, flattened; then a linear head.

    The representation of OML (Javed, White 2019, appendix) has the strides 2, 1, 2, 1, 2, 2, the
    width 256 and no statistics (`none`), on images of 84×84 pixels.

    Args:
      outputs: width of the head, whose parameters are named `head`; with None the model has no
        head and embeds images, 28×28 images as 16 · `width` features with the default strides.
      strides: of each convolution.
      width: channels of every convolution.
      query_statistics: see `Normalisation`.

    Shapes: images float `[N, H, W, C]` to `[N, outputs]`.

    Raises:
      ValueError: no convolutions, or a stride below 1.

    >>> import jax, jax.numpy as jnp
    >>> model = strided_convolutions(width=8)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.jit(model.apply)(params, jnp.ones((3, 28, 28, 1))).shape
    (3, 128)
    """
    strides = tuple(strides)
    if not strides or min(strides) < 1:
        raise ValueError(
            f"strided_convolutions: strides {strides}; give at least one, each 1 or more."
        )
    return from_linen(_Strided(outputs, strides, width, query_statistics))
