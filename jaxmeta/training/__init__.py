"""Meta-updates, the training loop, evaluation, checkpoints, logs and plots."""

from jaxmeta.training.estimates import Estimate, evaluation, trajectory_evaluation
from jaxmeta.training.loop import Interrupted, NotFinite, Outcome, train
from jaxmeta.training.parallel import join, mesh_for, replicate, task_mesh
from jaxmeta.training.restore import TrainedRun, restore
from jaxmeta.training.update import MetaUpdate, TrainState, meta_update

__all__ = [
    "Estimate",
    "Interrupted",
    "MetaUpdate",
    "NotFinite",
    "Outcome",
    "TrainState",
    "TrainedRun",
    "evaluation",
    "join",
    "mesh_for",
    "meta_update",
    "replicate",
    "restore",
    "task_mesh",
    "train",
    "trajectory_evaluation",
]
