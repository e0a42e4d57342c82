"""Meta-learning as pure functions on JAX.

The top level has the vocabulary, the learners of `jaxmeta.learners`, three networks, `train`,
`restore` and `pretrained`. Everything but the vocabulary is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxmeta import interrupts as interrupts  # first: before the slow imports
from jaxmeta.core import (
    Adapt,
    Array,
    Batch,
    Carry,
    Derive,
    Info,
    Key,
    LearnerGrad,
    LearnerInit,
    LearnerLoss,
    MetaLearner,
    Model,
    ModelApply,
    ModelInit,
    Objective,
    Predict,
    PyTree,
    Rollout,
    SharedInit,
    SlotInit,
    Task,
    Trajectory,
    binary_cross_entropy,
    cross_entropy,
    masked_mean,
    meta_learner,
    squared_error,
    valid_mask,
)
from jaxmeta.version import __version__

if TYPE_CHECKING:
    from jaxmeta.learners import (
        active_one_shot,
        alpaca,
        anil,
        boil,
        cavia,
        conditional_neural_process,
        conditional_neural_process_classifier,
        darts,
        decision_pretrained,
        evolve,
        first_order_maml,
        imaml,
        maml,
        maml_plus_plus,
        maml_rl,
        matching,
        memory_classifier,
        meta_curvature,
        meta_lstm,
        meta_sgd,
        meta_transfer,
        metaqnn,
        multi_task,
        neural_process,
        one_hot_squared_error,
        persistent_es,
        promp,
        proto_maml,
        prototypical,
        r2d2,
        random_search,
        regularised_evolution,
        relation,
        reptile,
        rl_squared,
        semi_supervised_prototypical,
        sequence_learner,
        siamese,
        snail,
        sparse_maml,
        supervised,
        transformer_neural_process,
        truncated_backpropagation,
    )
    from jaxmeta.models import conv4, mlp, resnet12
    from jaxmeta.recipes import pretrained, restore
    from jaxmeta.training import train

__all__ = [
    "Adapt",
    "Array",
    "Batch",
    "Carry",
    "Derive",
    "Info",
    "Key",
    "LearnerGrad",
    "LearnerInit",
    "LearnerLoss",
    "MetaLearner",
    "Model",
    "ModelApply",
    "ModelInit",
    "Objective",
    "Predict",
    "PyTree",
    "Rollout",
    "SharedInit",
    "SlotInit",
    "Task",
    "Trajectory",
    "__version__",
    "active_one_shot",
    "alpaca",
    "anil",
    "binary_cross_entropy",
    "boil",
    "cavia",
    "conditional_neural_process",
    "conditional_neural_process_classifier",
    "conv4",
    "cross_entropy",
    "darts",
    "decision_pretrained",
    "evolve",
    "first_order_maml",
    "imaml",
    "maml",
    "maml_plus_plus",
    "maml_rl",
    "masked_mean",
    "matching",
    "memory_classifier",
    "meta_curvature",
    "meta_learner",
    "meta_lstm",
    "meta_sgd",
    "meta_transfer",
    "metaqnn",
    "mlp",
    "multi_task",
    "neural_process",
    "one_hot_squared_error",
    "persistent_es",
    "pretrained",
    "promp",
    "proto_maml",
    "prototypical",
    "r2d2",
    "random_search",
    "regularised_evolution",
    "relation",
    "reptile",
    "resnet12",
    "restore",
    "rl_squared",
    "semi_supervised_prototypical",
    "sequence_learner",
    "siamese",
    "snail",
    "sparse_maml",
    "squared_error",
    "supervised",
    "train",
    "transformer_neural_process",
    "truncated_backpropagation",
    "valid_mask",
]

# The modules of these names; all other names are in `jaxmeta.learners`.
_PLACES = {
    "conv4": "jaxmeta.models",
    "mlp": "jaxmeta.models",
    "resnet12": "jaxmeta.models",
    "pretrained": "jaxmeta.recipes",
    "restore": "jaxmeta.recipes",
    "train": "jaxmeta.training",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxmeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES.get(name, "jaxmeta.learners")), name)
    globals()[name] = value  # so that this runs once per name
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
