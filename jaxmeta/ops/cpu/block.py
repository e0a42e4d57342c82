"""The first block of a network on a CPU, with its large maps kept in the cache."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmeta.core import Array
from jaxmeta.ops.convolution import convolve
from jaxmeta.ops.convolution_forms import Geometry, patches_of
from jaxmeta.ops.normalisation import Moments, standardise
from jaxmeta.ops.pooling import extreme_pool


def pooled_block_in_groups(
    images_NHWC: Array,
    kernel_hwCD: Array,
    scale_D: Array,
    bias_D: Array,
    *,
    references: int | None,
    window: int,
) -> Array:
    """`jaxmeta.ops.pooled_block`, a few images at a time.

    The statistics are computed without the convolution (`convolution_moments`), and the convolution
    is recomputed in the backward pass, so that the maps before the pooling, four times as large as
    those after it, never leave the cache. Patches of the images are stored, so the images should
    have few channels.

    On 2 CPU cores, conv4 on 400 images of 28 × 28 runs forward and backward 5.4 times a second,
    against 4.5 times with each operation applied to all images at once.
    """
    moments = convolution_moments(images_NHWC[:references], kernel_hwCD)

    @jax.checkpoint
    def of_some(images: Array) -> Array:
        kept = extreme_pool(convolve(images, kernel_hwCD), scale_D[None, None, None], window)
        standardised = standardise(kept, (0, 1, 2), moments=moments)
        return jax.nn.relu(standardised * scale_D[None, None, None] + bias_D[None, None, None])

    count = images_NHWC.shape[0]
    at_once = _images_at_once(count)
    groups = images_NHWC.reshape(count // at_once, at_once, *images_NHWC.shape[1:])
    pooled = lax.map(of_some, groups)
    return pooled.reshape(count, *pooled.shape[2:])


def _images_at_once(count: int) -> int:
    """The largest divisor of `count` from 4 to 10, else `count`; an image's maps take 0.2 MB."""
    return next((size for size in range(10, 3, -1) if count % size == 0), count)


def convolution_moments(images_NHWC: Array, kernel_hwCD: Array) -> Moments:
    """The moments over images and space of `convolve(images, kernel)`, without convolving.

        μ_y = Wᵀ μ_p,  σ²_y = diag(Wᵀ Cov(p) W),  p the h·w·C entries of a patch

    Shapes: float `[N, H, W, C]` and `[h, w, C, D]` to two of `[1, 1, 1, D]`.

    >>> images, kernel = jnp.arange(8.0).reshape(1, 2, 4, 1), 2 * jnp.ones((1, 1, 1, 1))
    >>> mean, variance = convolution_moments(images, kernel)
    >>> mean.item(), variance.item()
    (7.0, 21.0)
    """
    wide = jnp.promote_types(images_NHWC.dtype, jnp.float32)
    geometry = Geometry(images_NHWC.shape[1:3], kernel_hwCD.shape[:2], 1)
    patches = patches_of(images_NHWC.astype(wide), geometry)
    patches = patches.reshape(-1, patches.shape[-1])
    weights = kernel_hwCD.astype(wide).reshape(-1, kernel_hwCD.shape[-1])
    mean = patches.mean(axis=0, keepdims=True)
    centred = patches - mean
    covariance = centred.T @ centred / patches.shape[0]
    variance = (weights * (covariance @ weights)).sum(axis=0)
    return Moments((mean @ weights)[None, None], variance[None, None, None])
