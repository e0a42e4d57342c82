"""Array operations with derivatives of every order: convolution, pooling, normalisation."""

from jaxmeta.ops.block import pooled_block
from jaxmeta.ops.convolution import convolve
from jaxmeta.ops.normalisation import standardise
from jaxmeta.ops.pooling import extreme_pool, max_pool
from jaxmeta.ops.varying import varying_with

__all__ = [
    "convolve",
    "extreme_pool",
    "max_pool",
    "pooled_block",
    "standardise",
    "varying_with",
]
