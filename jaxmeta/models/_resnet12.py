"""The twelve-layer residual network of the few-shot literature."""

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
from jaxmeta.ops import max_pool


class _Block(nn.Module):
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, values: Array, references: int) -> Array:
        shortcut = Convolution(self.width, window=1, name="conv_shortcut")(values)
        shortcut = Normalisation(self.normalisation, name="norm_shortcut")(shortcut, references)
        for index in range(3):
            values = Convolution(self.width, name=f"conv_{index}")(values)
            values = Normalisation(self.normalisation, name=f"norm_{index}")(values, references)
            if index < 2:
                values = nn.leaky_relu(values, 0.1)
        return max_pool(nn.leaky_relu(values + shortcut, 0.1))


class _ResNet12(nn.Module):
    outputs: int | None
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        check_image_size("resnet12", inputs, 16)
        values, references = with_reference(self.normalisation, inputs, reference)
        for index in range(4):
            block = _Block(self.width * 2**index, self.normalisation, name=f"block_{index}")
            values = block(values, references)
        features = values.mean(axis=(1, 2))
        if self.outputs is not None:
            features = nn.Dense(self.outputs, name="head")(features)
        return features[references:]


def resnet12(
    outputs: int | None = None, *, width: int = 64, query_statistics: NormalisationKind = "batch"
) -> Model:
    """Four residual blocks of three 3×3 convolutions, the mean over space, then a linear head.

        block(x) = max_pool(act(norm(conv(act(norm(conv(act(norm(conv x)))))) + norm(conv₁ₓ₁ x)))

    where `act` is the leaky ReLU of slope 0.1 (Lee et al. 2019, MetaOptNet, section 4.1) and
    `max_pool` has 2×2 windows. The channels double from block to block (Oreshkin et al. 2018,
    TADAM: 64, 128, 256, 512).

    Args:
      outputs: width of the head, whose parameters are named `head`; with None the model has no
        head and embeds images as `8 · width` features.
      width: channels of the first block; narrow networks can be trained on a CPU.
      query_statistics: see `Normalisation`.

    Shapes: images float `[N, H, W, C]`, H and W at least 16, to `[N, outputs]`.

    Raises:
      ValueError: images smaller than 16 pixels, which are too small for four poolings.

    >>> import jax, jax.numpy as jnp
    >>> model = resnet12(5, width=2)
    >>> params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))
    >>> jax.eval_shape(model.apply, params, jnp.ones((3, 16, 16, 3))).shape
    (3, 5)
    """
    return from_linen(_ResNet12(outputs, width, query_statistics))
