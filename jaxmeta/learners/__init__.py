"""Meta-learners, one file per algorithm."""

from jaxmeta.learners.gradient import (
    MetaSGDParams,
    ReptileParams,
    anil,
    first_order_maml,
    maml,
    meta_sgd,
    reptile,
)
from jaxmeta.learners.metric import prototypical

__all__ = [
    "MetaSGDParams",
    "ReptileParams",
    "anil",
    "first_order_maml",
    "maml",
    "meta_sgd",
    "prototypical",
    "reptile",
]
