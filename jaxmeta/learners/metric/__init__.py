"""Learners whose adaptation is a comparison in an embedding space."""

from jaxmeta.learners.metric.prototypical import prototypical

__all__ = ["prototypical"]
