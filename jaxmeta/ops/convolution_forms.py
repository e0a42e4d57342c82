"""Implementations of a convolution for any platform, and their transposes.

Implementations that are faster only on a CPU are in `jaxmeta.ops.cpu.convolution`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmeta.core import Array


class Geometry(NamedTuple):
    """The sizes that a convolution and its transposes share.

    Attributes:
      images: H, W of the inputs.
      kernel: h, w of the kernel.
      stride: the same on both axes.
    """

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """⌈H/s⌉, ⌈W/s⌉: the padding is `SAME`."""
        return -(-self.images[0] // self.stride), -(-self.images[1] // self.stride)


Form = Callable[[Array, Array, Geometry], Array]


def transposed_in_images(form: Form) -> Form:
    """`(outputs, kernel) -> images`, the transpose of a convolution in the images."""

    def transposed(outputs: Array, kernel: Array, geometry: Geometry) -> Array:
        shape = (outputs.shape[0], *geometry.images, kernel.shape[2])
        like = _placeholder(shape, outputs, kernel)
        return jax.linear_transpose(lambda images: form(images, kernel, geometry), like)(outputs)[0]

    return transposed


def transposed_in_kernel(form: Form) -> Form:
    """`(images, outputs) -> kernel`, the transpose of a convolution in the kernel."""

    def transposed(images: Array, outputs: Array, geometry: Geometry) -> Array:
        shape = (*geometry.kernel, images.shape[3], outputs.shape[3])
        like = _placeholder(shape, images, outputs)
        return jax.linear_transpose(lambda kernel: form(images, kernel, geometry), like)(outputs)[0]

    return transposed


def _placeholder(shape: tuple[int, ...], left: Array, right: Array) -> Array:
    """A shape that varies over the mesh axes of both operands; its values are not computed."""
    return jnp.zeros(shape, left.dtype) + left.reshape(-1)[0] + right.reshape(-1)[0]


def convolve_by_xla(images: Array, kernel: Array, geometry: Geometry) -> Array:
    strides = (geometry.stride, geometry.stride)
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, strides, "SAME", dimension_numbers=layout)


def patches_of(images: Array, geometry: Geometry) -> Array:
    """Copies of the image, one for each entry of the window: `[N, ⌈H/s⌉, ⌈W/s⌉, h·w·C]`."""
    (height, width), (rows, columns), stride = geometry
    out_height, out_width = geometry.outputs
    pads = lax.padtype_to_pads((height, width), (rows, columns), (stride, stride), "SAME")
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    return jnp.concatenate(
        [
            padded[
                :,
                row : row + (out_height - 1) * stride + 1 : stride,
                column : column + (out_width - 1) * stride + 1 : stride,
            ]
            for row in range(rows)
            for column in range(columns)
        ],
        axis=-1,
    )


def convolve_by_patches(images: Array, kernel: Array, geometry: Geometry) -> Array:
    """Convolution by patches and one matrix product."""
    patches = patches_of(images, geometry)
    # Two axes, since the transpose of a product over more axes is copied entry by entry by XLA.
    products = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return products.reshape(*patches.shape[:-1], -1)
