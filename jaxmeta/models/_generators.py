"""Networks that generate images, and a critic of pairs of images."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Model
from jaxmeta.models.adapters import from_linen
from jaxmeta.ops import convolve, convolve_transposed


class _Convolution(nn.Module):
    """Convolution with `SAME` padding and a bias; transposed, it enlarges the image by the stride.

    Not `flax.linen.Conv`, whose gradients XLA computes entry by entry inside a loop on a CPU.
    """

    features: int
    window: int = 4
    stride: int = 2
    transposed: bool = False

    @nn.compact
    def __call__(self, images_NHWC: Array) -> Array:
        shape = (self.window, self.window, images_NHWC.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        operation = convolve_transposed if self.transposed else convolve
        return operation(images_NHWC, kernel, stride=self.stride) + bias[None, None, None]


class _Decoder(nn.Module):
    shape: tuple[int, int, int]
    width: int

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        height, width, channels = self.shape
        small = (-(-height // 4), -(-width // 4), 2 * self.width)
        values = nn.Dense(small[0] * small[1] * small[2], name="codes")(codes)
        values = nn.relu(values).reshape(codes.shape[0], *small)
        values = nn.relu(_Convolution(self.width, transposed=True, name="up_0")(values))
        values = _Convolution(channels, transposed=True, name="up_1")(values)
        return values[:, :height, :width]


class _Generator(nn.Module):
    width: int

    @nn.compact
    def __call__(self, given: tuple[Array, Array]) -> Array:
        images, noise = given
        height, width, channels = images.shape[1:]
        half = nn.leaky_relu(_Convolution(self.width, name="down_0")(images))
        quarter = nn.leaky_relu(_Convolution(2 * self.width, name="down_1")(half))
        small = quarter.shape[1:]
        drawn = nn.Dense(small[0] * small[1] * small[2], name="noise")(noise)
        values = jnp.concatenate([quarter, drawn.reshape(quarter.shape)], axis=-1)
        values = _Convolution(2 * self.width, 3, 1, name="mix")(nn.leaky_relu(values))
        values = nn.leaky_relu(values + quarter)
        values = _Convolution(self.width, transposed=True, name="up_0")(values)
        values = values[:, : half.shape[1], : half.shape[2]]
        values = nn.leaky_relu(jnp.concatenate([values, half], axis=-1))
        values = _Convolution(self.width, transposed=True, name="up_1")(values)
        values = nn.leaky_relu(values[:, :height, :width])
        values = jnp.concatenate([values, images], axis=-1)
        # Not squashed: black pixels would drive a sigmoid to where its slope is 0, everywhere.
        return images + _Convolution(channels, 3, 1, name="last")(values)


class _Critic(nn.Module):
    width: int

    @nn.compact
    def __call__(self, given: tuple[Array, Array]) -> Array:
        values = jnp.concatenate(given, axis=-1)
        for index in range(3):
            width = 2**index * self.width
            values = nn.leaky_relu(_Convolution(width, name=f"down_{index}")(values))
        return nn.Dense(1, name="score")(values.reshape(values.shape[0], -1))[:, 0]


def image_decoder(shape: Sequence[int], *, width: int = 32) -> Model:
    """A dense layer and two transposed convolutions, from codes to images.

    Shapes: `[N, latent]` to `[N, *shape]`, with `shape` H, W and C; the outputs are not bounded.

    >>> import jax
    >>> model = image_decoder((28, 28, 1), width=4)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8)))
    >>> model.apply(params, jnp.ones((3, 8))).shape
    (3, 28, 28, 1)
    """
    height, width_of_image, channels = shape
    return from_linen(_Decoder((height, width_of_image, channels), width))


def image_generator(width: int = 32) -> Model:
    """A small U-Net with a residual block, from an image and noise to another image.

    The noise enters at a quarter of the resolution. The image passes through skip connections at
    every resolution, and the output is the image plus a learned change, so that the generator can
    keep its strokes; it is not bounded.

    Shapes: a pair, images `[N, H, W, C]` and noise `[N, latent]`, to `[N, H, W, C]`.

    Source: Antoniou, Storkey, Edwards 2018, "Data augmentation generative adversarial networks",
    section 4, much smaller.

    >>> import jax
    >>> model, given = image_generator(4), (jnp.ones((2, 28, 28, 1)), jnp.ones((2, 8)))
    >>> model.apply(model.init(jax.random.key(0), given), given).shape
    (2, 28, 28, 1)
    """
    return from_linen(_Generator(width))


def pair_critic(width: int = 32) -> Model:
    """Three convolutions of stride 2 and a dense layer: a score for each pair of images.

    There is no normalisation over the batch, since a gradient penalty is for each example.

    Shapes: a pair of images, `[N, H, W, C]` each, to `[N]`.

    >>> import jax
    >>> model, given = pair_critic(4), (jnp.ones((2, 28, 28, 1)), jnp.ones((2, 28, 28, 1)))
    >>> model.apply(model.init(jax.random.key(0), given), given).shape
    (2,)
    """
    return from_linen(_Critic(width))
