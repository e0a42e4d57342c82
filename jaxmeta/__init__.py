"""Meta-learning as pure functions on JAX."""

from jaxmeta.core import (
    Batch,
    Carry,
    Info,
    MetaLearner,
    Model,
    Objective,
    Task,
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
    "cross_entropy",
    "masked_mean",
    "meta_learner",
    "squared_error",
]
