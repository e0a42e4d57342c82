"""The fastest implementations of a convolution and its transposes on a CPU.

GFLOP/s, counting the operations of the direct sum, for 75 images and 64 to 64 channels, on 2 CPU
cores whose matrix product runs at 210 GFLOP/s (`experiments.benchmark` measures whole steps):

| 3×3, stride 1 | 14×14: y, x̄, w̄ | 7×7: y, x̄, w̄ | 3×3: y, x̄, w̄ |
|---|---|---|---|
| XLA's convolution | 98, 100, 69 | 95, 92, 91 | 98, 91, 87 |
| patches and a product | 27, 53, 36 | 82, 166, 96 | 107, 131, 85 |
| Winograd, sixteen products | 299, 299, 123 | 160, 154, 112 | 76, 87, 48 |

The w̄ of XLA falls to 7-20 for 600 images. With stride 2, patches are fastest (114, 160, 85 against
92, 141, 56 for XLA on 14×14).

Where Winograd does not pay, on one core, for 32 or 64 images:

| stride 1 | 5×5, 32 to 32, 14×14 | 3×3, 8 to 8, 32×32 | 3×3, 8 to 24, 32×32 |
|---|---|---|---|
| XLA's convolution | 30, 31, 16 | 7, 20, 7 | 52, 40, 3 |
| patches and a product | 3, 9, 3 | 1, 4, 1 | 3, 15, 2 |

For w̄, a product for each row of the window is faster still: 5 and 12 GFLOP/s on 32×32, where XLA
has 5 and 2 on the same, busier core.

With 16 channels and 64 images, on two cores:

| 3×3, stride 1 | 16 to 16, 28×28 | 16 to 16, 16×16 | 16 to 48, 16×16 |
|---|---|---|---|
| XLA's convolution; w̄ by rows | 79, 75, 8 | 50, 83, 9 | 72, 66, 36 |
| Winograd, sixteen products | 41, 57, 36 | 22, 32, 33 | 57, 58, 34 |
"""

import jax.numpy as jnp
from jax import lax

from jaxmeta.core import Array
from jaxmeta.ops.convolution_forms import (
    Form,
    Geometry,
    convolve_by_patches,
    convolve_by_xla,
    transposed_in_images,
    transposed_in_kernel,
)


def convolve_by_winograd(
    images: Array, kernel: Array, geometry: Geometry, *, contract: int = 2
) -> Array:
    """F(2×2, 3×3): tiles of 2×2 outputs by 16 products instead of 36.

        y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A  for every 4×4 tile x of the input

    for a 3×3 kernel and stride 1 (Lavin and Gray 2016, arXiv 1509.09308, section 4.1). Summed
    over channels, ⊙ is sixteen matrix products `[tiles, C] @ [C, D]`. They are not stacked into
    one batched product, since the copies would cost more than the products. The factors 1/2 of G
    are moved into A.

    `contract` is the kernel axis that is contracted with the channels of the images: 2, or 3 for
    the transposed kernel, which is not copied (the copy took a tenth of a step).
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


def _winograd_pays(
    geometry: Geometry, channels: int, features: int, dtype: jnp.dtype, *, least: int = 24
) -> bool:
    """Whether Winograd's form is the fastest, with at least `least` channels on both sides."""
    return (
        geometry.kernel == (3, 3)
        and geometry.stride == 1
        and min(geometry.images) >= 6
        and min(channels, features) >= least
        and dtype in (jnp.float32, jnp.float64)  # bfloat16 is too coarse for sums of four entries
    )


def kernel_gradient_by_rows(images: Array, outputs: Array, geometry: Geometry) -> Array:
    """One product for each row of the window, with stride 1.

        w̄[a, (b, c), d] = Σ_{n, i, j} x[n, i + a − p, (j + b − p, c)] · ȳ[n, i, j, d]

    The pixels of a row of the window are copied side by side, a third of the copies of patches.
    """
    (height, width), (rows, columns), _ = geometry
    channels, features = images.shape[3], outputs.shape[3]
    pads = lax.padtype_to_pads((height, width), (rows, columns), (1, 1), "SAME")
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    wide = jnp.concatenate([padded[:, :, b : b + width] for b in range(columns)], axis=-1)
    flat = outputs.reshape(-1, features)
    products = [
        wide[:, a : a + height].reshape(-1, columns * channels).T @ flat for a in range(rows)
    ]
    return jnp.stack(products).reshape(rows, columns, channels, features)


def _form(geometry: Geometry, channels: int, features: int, dtype: jnp.dtype) -> Form:
    """The fastest form but Winograd's: patches of wide windows are mostly copying."""
    wide = geometry.stride == 1 and max(geometry.kernel) > 1 and min(geometry.images) >= 6
    by_xla = wide and min(channels, features) >= 8 and dtype in (jnp.float32, jnp.float64)
    return convolve_by_xla if by_xla else convolve_by_patches


def convolve_on_cpu(images: Array, kernel: Array, geometry: Geometry) -> Array:
    sizes = (geometry, kernel.shape[2], kernel.shape[3], images.dtype)
    if _winograd_pays(*sizes):
        return convolve_by_winograd(images, kernel, geometry)
    return _form(*sizes)(images, kernel, geometry)


def gradient_to_images_on_cpu(outputs: Array, kernel: Array, geometry: Geometry) -> Array:
    sizes = (geometry, kernel.shape[2], kernel.shape[3], outputs.dtype)
    if _winograd_pays(*sizes):
        # With stride 1 and an odd window, this is the convolution with the kernel rotated by 180
        # degrees and transposed.
        return convolve_by_winograd(outputs, kernel[::-1, ::-1], geometry, contract=3)
    form = _form(*sizes)
    if form is convolve_by_xla and all(side % 2 for side in geometry.kernel):
        # The same, with the kernel transposed beforehand: inside a loop, XLA computes the transpose
        # that JAX derives entry by entry, which took ten times as long.
        return form(outputs, kernel[::-1, ::-1].swapaxes(2, 3), geometry)
    return transposed_in_images(form)(outputs, kernel, geometry)


def gradient_to_kernel_on_cpu(images: Array, outputs: Array, geometry: Geometry) -> Array:
    sizes = (geometry, images.shape[3], outputs.shape[3], images.dtype)
    if _winograd_pays(*sizes, least=16):
        return transposed_in_kernel(convolve_by_winograd)(images, outputs, geometry)
    if _form(*sizes) is convolve_by_xla:
        return kernel_gradient_by_rows(images, outputs, geometry)
    return transposed_in_kernel(convolve_by_patches)(images, outputs, geometry)
