"""Array operations closed under differentiation: convolution, pooling, normalisation."""

from jaxmeta.ops.convolution import convolve
from jaxmeta.ops.normalisation import standardise
from jaxmeta.ops.pooling import max_pool

__all__ = ["convolve", "max_pool", "standardise"]
