"""Networks as `Model` pairs of pure functions."""

from jaxmeta.models.adapters import from_linen, from_nnx
from jaxmeta.models.conv4 import conv4
from jaxmeta.models.layers import NORMALISATIONS, Normalisation
from jaxmeta.models.mlp import mlp

__all__ = ["NORMALISATIONS", "Normalisation", "conv4", "from_linen", "from_nnx", "mlp"]
