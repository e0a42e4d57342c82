"""Array operations with derivatives of every order: convolution, pooling, normalisation."""

from jaxmeta.ops.block import pooled_block
from jaxmeta.ops.convolution import convolve, convolve_transposed
from jaxmeta.ops.normalisation import standardise
from jaxmeta.ops.pooling import average_pool, extreme_pool, max_pool, mean_filter
from jaxmeta.ops.varying import varying_with

__all__ = [
    "average_pool",
    "convolve",
    "convolve_transposed",
    "extreme_pool",
    "max_pool",
    "mean_filter",
    "pooled_block",
    "standardise",
    "varying_with",
]
