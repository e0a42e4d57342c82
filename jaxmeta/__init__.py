"""Meta-learning as pure functions on JAX."""

from jaxmeta.core import (
    Batch,
    Carry,
    Info,
    MetaLearner,
    Model,
    Objective,
    Task,
    binary_cross_entropy,
    cross_entropy,
    masked_mean,
    meta_learner,
    squared_error,
)
from jaxmeta.version import __version__

__all__ = [
    "Batch",
    "Carry",
    "Info",
    "MetaLearner",
    "Model",
    "Objective",
    "Task",
    "__version__",
    "binary_cross_entropy",
    "cross_entropy",
    "masked_mean",
    "meta_learner",
    "squared_error",
]
