"""Learners that adapt by gradient descent, or solve the inner problem in closed form."""

from jaxmeta.learners.gradient._anil import anil
from jaxmeta.learners.gradient._boil import boil
from jaxmeta.learners.gradient._cavia import CAVIAParams, cavia
from jaxmeta.learners.gradient._imaml import imaml
from jaxmeta.learners.gradient._maml import Adapted, first_order_maml, gradient_learner, maml
from jaxmeta.learners.gradient._maml_plus_plus import MAMLPlusPlusParams, maml_plus_plus
from jaxmeta.learners.gradient._meta_curvature import MetaCurvatureParams, meta_curvature
from jaxmeta.learners.gradient._meta_lstm import MetaLSTMParams, meta_lstm
from jaxmeta.learners.gradient._meta_sgd import MetaSGDParams, meta_sgd
from jaxmeta.learners.gradient._meta_transfer import MetaTransferParams, meta_transfer
from jaxmeta.learners.gradient._multi_task import MultiTaskParams, multi_task
from jaxmeta.learners.gradient._proto_maml import proto_maml
from jaxmeta.learners.gradient._r2d2 import R2D2Params, r2d2
from jaxmeta.learners.gradient._reptile import ReptileParams, reptile
from jaxmeta.learners.gradient._sparse_maml import SparseMAMLParams, sparse_maml

__all__ = [
    "Adapted",
    "CAVIAParams",
    "MAMLPlusPlusParams",
    "MetaCurvatureParams",
    "MetaLSTMParams",
    "MetaSGDParams",
    "MetaTransferParams",
    "MultiTaskParams",
    "R2D2Params",
    "ReptileParams",
    "SparseMAMLParams",
    "anil",
    "boil",
    "cavia",
    "first_order_maml",
    "gradient_learner",
    "imaml",
    "maml",
    "maml_plus_plus",
    "meta_curvature",
    "meta_lstm",
    "meta_sgd",
    "meta_transfer",
    "multi_task",
    "proto_maml",
    "r2d2",
    "reptile",
    "sparse_maml",
]
