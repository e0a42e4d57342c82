"""The first block of a network, from convolution to pooling."""

from functools import partial

import chex
import jax
from jax import lax

from jaxmeta.core import Array
from jaxmeta.ops.convolution import convolve
from jaxmeta.ops.cpu.block import pooled_block_in_groups
from jaxmeta.ops.normalisation import standardise
from jaxmeta.ops.pooling import extreme_pool

# The CPU form stores patches of the images, which are nine times as large with a 3 × 3 kernel.
_FEW_CHANNELS = 3


def pooled_block(
    images_NHWC: Array,
    kernel_hwCD: Array,
    scale_D: Array,
    bias_D: Array,
    *,
    references: int | None = None,
    window: int = 2,
) -> Array:
    """Convolve, standardise, scale and shift, ReLU, and max-pool.

        y = max_pool(ReLU(γ (x ∗ w − μ) / √(σ² + ε) + β)),  μ, σ² per channel of x ∗ w

    On a CPU, images of up to three channels are processed a few at a time, so that the maps before
    the pooling stay in the cache. The form is chosen when the program is lowered.

    Args:
      images_NHWC: float `[N, H, W, C]`.
      kernel_hwCD: float `[h, w, C, D]`.
      scale_D, bias_D: γ and β, `[D]`.
      references: number of leading images that the statistics are taken over. Defaults to all.
      window: window and stride of the pooling.

    Returns:
      float `[N, ⌊H/window⌋, ⌊W/window⌋, D]`.

    Raises:
      ValueError: as `convolve` and `max_pool`.

    >>> import jax.numpy as jnp
    >>> images, kernel = jnp.arange(16.0).reshape(1, 4, 4, 1), jnp.ones((1, 1, 1, 1))
    >>> block = pooled_block(images, kernel, jnp.ones(1), jnp.zeros(1))
    >>> [round(value, 1) for value in block.ravel().tolist()]
    [0.0, 0.0, 1.2, 1.6]
    """
    chex.assert_rank([images_NHWC, kernel_hwCD, scale_D, bias_D], [4, 4, 1, 1])
    default = partial(_pooled_block, references=references, window=window)
    given = (images_NHWC, kernel_hwCD, scale_D, bias_D)
    if images_NHWC.shape[-1] > _FEW_CHANNELS:
        return default(*given)
    on_cpu = partial(pooled_block_in_groups, references=references, window=window)
    return lax.platform_dependent(*given, cpu=on_cpu, default=default)


def _pooled_block(
    images: Array,
    kernel: Array,
    scale: Array,
    bias: Array,
    *,
    references: int | None,
    window: int,
) -> Array:
    """Applies each operation to all images at once."""
    values = convolve(images, kernel)
    scale, bias = scale[None, None, None], bias[None, None, None]
    kept = extreme_pool(values, scale, window)
    standardised = standardise(kept, (0, 1, 2), reference=values[:references])
    return jax.nn.relu(standardised * scale + bias)
