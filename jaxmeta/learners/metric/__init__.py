"""Learners that compare query examples with the support set."""

from jaxmeta.learners.metric._matching import matching
from jaxmeta.learners.metric._prototypical import prototypical
from jaxmeta.learners.metric._relation import RelationParams, one_hot_squared_error, relation
from jaxmeta.learners.metric._siamese import SiameseParams, siamese
from jaxmeta.learners.metric.semi_supervised import semi_supervised_prototypical

__all__ = [
    "RelationParams",
    "SiameseParams",
    "matching",
    "one_hot_squared_error",
    "prototypical",
    "relation",
    "semi_supervised_prototypical",
    "siamese",
]
