"""Networks as `Model` pairs of pure functions."""

from jaxmeta.models._cells import (
    ARCHITECTURE,
    cell_network,
    relaxed,
    supernet,
)
from jaxmeta.models._chain import Chain, ChainLayer, chain_network
from jaxmeta.models._conv4 import conv4
from jaxmeta.models._generators import image_decoder, image_generator, pair_critic
from jaxmeta.models._mlp import mlp
from jaxmeta.models._resnet12 import resnet12
from jaxmeta.models._sentences import sentence_network
from jaxmeta.models._strided import strided_convolutions
from jaxmeta.models.adapters import from_linen, from_nnx, on_features
from jaxmeta.models.bert import bert_embeddings, bert_layers, low_rank, pooled, with_updates
from jaxmeta.models.comparison import comparator, conv_maps, pairwise
from jaxmeta.models.folding import folded, frozen_encoder, unfolded
from jaxmeta.models.layers import NORMALISATIONS, Normalisation
from jaxmeta.models.precision import computed_in
from jaxmeta.models.views import averaged_over_shifts
from jaxmeta.models.weights import check_alike, pack, unpack

__all__ = [
    "ARCHITECTURE",
    "NORMALISATIONS",
    "Chain",
    "ChainLayer",
    "Normalisation",
    "averaged_over_shifts",
    "bert_embeddings",
    "bert_layers",
    "cell_network",
    "chain_network",
    "check_alike",
    "comparator",
    "computed_in",
    "conv4",
    "conv_maps",
    "folded",
    "from_linen",
    "from_nnx",
    "frozen_encoder",
    "image_decoder",
    "image_generator",
    "low_rank",
    "mlp",
    "on_features",
    "pack",
    "pair_critic",
    "pairwise",
    "pooled",
    "relaxed",
    "resnet12",
    "sentence_network",
    "strided_convolutions",
    "supernet",
    "unfolded",
    "unpack",
    "with_updates",
]
