"""Learners of streams: one example at a time, without forgetting the earlier ones."""

from jaxmeta.learners.continual._anml import anml, gated
from jaxmeta.learners.continual._oml import oml
from jaxmeta.learners.continual._online import OnlineParams, OnlineState, online

__all__ = ["OnlineParams", "OnlineState", "anml", "gated", "oml", "online"]
