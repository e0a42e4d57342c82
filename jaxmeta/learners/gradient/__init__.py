"""Learners whose adaptation is gradient descent."""

from jaxmeta.learners.gradient.anil import anil
from jaxmeta.learners.gradient.maml import Adapted, first_order_maml, gradient_learner, maml
from jaxmeta.learners.gradient.meta_sgd import MetaSGDParams, meta_sgd
from jaxmeta.learners.gradient.reptile import ReptileParams, reptile

__all__ = [
    "Adapted",
    "MetaSGDParams",
    "ReptileParams",
    "anil",
    "first_order_maml",
    "gradient_learner",
    "maml",
    "meta_sgd",
    "reptile",
]
