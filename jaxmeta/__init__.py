"""Meta-learning as pure functions on JAX."""

from jaxmeta.core import (
    Array,
    Batch,
    Carry,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    binary_cross_entropy,
    cross_entropy,
    masked_mean,
    meta_learner,
    squared_error,
)
from jaxmeta.version import __version__

__all__ = [
    "Array",
    "Batch",
    "Carry",
    "Info",
    "Key",
    "MetaLearner",
    "Model",
    "Objective",
    "PyTree",
    "Task",
    "__version__",
    "binary_cross_entropy",
    "cross_entropy",
    "masked_mean",
    "meta_learner",
    "squared_error",
]
