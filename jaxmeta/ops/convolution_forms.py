"""What a convolution can be computed by, and which form is the fastest where.

GFLOP/s of the direct sum's operations, 75 images, 64 to 64 channels, on 2 CPU cores whose
matrix product runs at 210 (`experiments.benchmark` measures whole steps):

| 3×3, stride 1 | 14×14: y, x̄, w̄ | 7×7: y, x̄, w̄ | 3×3: y, x̄, w̄ |
|---|---|---|---|
| XLA's convolution | 98, 100, 69 | 95, 92, 91 | 98, 91, 87 |
| patches and a product | 27, 53, 36 | 82, 166, 96 | 107, 131, 85 |
| Winograd, sixteen products | 299, 299, 123 | 160, 154, 112 | 76, 87, 48 |

XLA's w̄ falls to 7-20 for 600 images. With stride 2, patches lead (114, 160, 85 against 92,
141, 56 on 14×14).
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
      stride: the same both ways.
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
    """`(outputs, kernel) -> images`, the transpose of a form of the convolution."""

    def transposed(outputs: Array, kernel: Array, geometry: Geometry) -> Array:
        shape = (outputs.shape[0], *geometry.images, kernel.shape[2])
        like = _placeholder(shape, outputs, kernel)
        return jax.linear_transpose(lambda images: form(images, kernel, geometry), like)(outputs)[0]

    return transposed


def transposed_in_kernel(form: Form) -> Form:
    """`(images, outputs) -> kernel`, the transpose of a form of the convolution."""

    def transposed(images: Array, outputs: Array, geometry: Geometry) -> Array:
        shape = (*geometry.kernel, images.shape[3], outputs.shape[3])
        like = _placeholder(shape, images, outputs)
        return jax.linear_transpose(lambda kernel: form(images, kernel, geometry), like)(outputs)[0]

    return transposed


def _placeholder(shape: tuple[int, ...], left: Array, right: Array) -> Array:
    """Of that shape, varying over the mesh axes that either operand varies over; never computed."""
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
    """Patches and one matrix product."""
    patches = patches_of(images, geometry)
    # Two axes: of a product over more, XLA lays the transpose out anew, entry by entry.
    products = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return products.reshape(*patches.shape[:-1], -1)


def convolve_by_winograd(
    images: Array, kernel: Array, geometry: Geometry, *, contract: int = 2
) -> Array:
    """F(2×2, 3×3): tiles of 2×2 outputs by 16 products instead of 36.

        y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A  for every 4×4 tile x of the input

    for a 3×3 kernel and stride 1 (Lavin and Gray 2016, arXiv 1509.09308, section 4.1). Summed
    over channels, ⊙ is sixteen matrix products `[tiles, C] @ [C, D]`. They are kept apart:
    stacked into one batched product, the copies cost more than the products. The halves of G
    stand in A.

    `contract` is the axis of the kernel that the channels of the images meet: 2, or 3 for the
    kernel transposed, which is never laid out (entry by entry, that took a tenth of a step).
    """
    (height, width), _, _ = geometry
    count, channels, features = images.shape[0], images.shape[3], kernel.shape[5 - contract]
    rows, columns = -(-height // 2), -(-width // 2)
    padded = jnp.pad(
        images, ((0, 0), (1, 2 * rows - height + 1), (1, 2 * columns - width + 1), (0, 0))
    )

    def of_input(x: list[Array]) -> list[Array]:  # Bᵀ x
        return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]

    def of_kernel(w: Array) -> list[Array]:  # G w
        return [w[0], w[0] + w[1] + w[2], w[0] - w[1] + w[2], w[2]]

    def of_output(m: list[Array]) -> list[Array]:  # Aᵀ m
        return [m[0] + (m[1] + m[2]) / 2, (m[1] - m[2]) / 2 - m[3]]

    slabs = of_input([padded[:, row : row + 2 * rows - 1 : 2] for row in range(4)])
    outputs_by_row = []
    for slab, kernel_row in zip(slabs, of_kernel(kernel), strict=True):
        tiles = of_input([slab[:, :, column : column + 2 * columns - 1 : 2] for column in range(4)])
        products = [
            lax.dot_general(
                tile.reshape(-1, channels), weights, (((1,), (contract - 2,)), ((), ()))
            )
            for tile, weights in zip(tiles, of_kernel(kernel_row), strict=True)
        ]
        outputs_by_row.append(of_output(products))
    by_column = [of_output(list(column)) for column in zip(*outputs_by_row, strict=True)]
    outputs = jnp.stack(  # [2 columns][2 rows] of [tiles, D]
        [
            jnp.stack([by_column[b][a].reshape(count, rows, columns, features) for b in (0, 1)], 3)
            for a in (0, 1)
        ],
        axis=2,
    )
    return outputs.reshape(count, 2 * rows, 2 * columns, features)[:, :height, :width]


def _winograd_pays(geometry: Geometry, channels: int, features: int, dtype: jnp.dtype) -> bool:
    return (
        geometry.kernel == (3, 3)
        and geometry.stride == 1
        and min(geometry.images) >= 6
        and min(channels, features) >= 16
        and dtype in (jnp.float32, jnp.float64)  # sums of four entries: too coarse in bfloat16
    )


def convolve_on_cpu(images: Array, kernel: Array, geometry: Geometry) -> Array:
    if _winograd_pays(geometry, kernel.shape[2], kernel.shape[3], images.dtype):
        return convolve_by_winograd(images, kernel, geometry)
    return convolve_by_patches(images, kernel, geometry)


def gradient_to_images_on_cpu(outputs: Array, kernel: Array, geometry: Geometry) -> Array:
    if _winograd_pays(geometry, kernel.shape[2], kernel.shape[3], outputs.dtype):
        # With stride 1 and an odd window, the convolution with the kernel turned by a half and
        # transposed.
        return convolve_by_winograd(outputs, kernel[::-1, ::-1], geometry, contract=3)
    return transposed_in_images(convolve_by_patches)(outputs, kernel, geometry)


def gradient_to_kernel_on_cpu(images: Array, outputs: Array, geometry: Geometry) -> Array:
    if _winograd_pays(geometry, images.shape[3], outputs.shape[3], images.dtype):
        return transposed_in_kernel(convolve_by_winograd)(images, outputs, geometry)
    return transposed_in_kernel(convolve_by_patches)(images, outputs, geometry)
