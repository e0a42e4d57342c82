"""Networks as `Model` pairs of pure functions."""

from jaxmeta.models.adapters import from_linen, from_nnx
from jaxmeta.models.conv4 import conv4
from jaxmeta.models.layers import NORMALISATIONS, Normalisation
from jaxmeta.models.mlp import mlp
from jaxmeta.models.precision import computed_in

__all__ = [
    "NORMALISATIONS",
    "Normalisation",
    "computed_in",
    "conv4",
    "from_linen",
    "from_nnx",
    "mlp",
]
