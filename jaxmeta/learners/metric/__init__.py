"""Learners that compare."""

from jaxmeta.learners.metric.matching import matching
from jaxmeta.learners.metric.prototypical import prototypical
from jaxmeta.learners.metric.relation import RelationParams, one_hot_squared_error, relation
from jaxmeta.learners.metric.semi_supervised import semi_supervised_prototypical
from jaxmeta.learners.metric.siamese import SiameseParams, siamese

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
