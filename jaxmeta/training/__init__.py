"""Meta-updates, the training loop, evaluation, checkpoints and logs."""

from jaxmeta.training._train import train
from jaxmeta.training.alternating import alternating_update
from jaxmeta.training.estimates import Estimate, evaluation, per_task, trajectory_evaluation
from jaxmeta.training.loop import Interrupted, NotFinite, Outcome, train_with_checkpoints
from jaxmeta.training.parallel import mesh_for, replicate, task_mesh
from jaxmeta.training.policy import proximal_update, trust_region_update
from jaxmeta.training.processes import join
from jaxmeta.training.state import Trained, TrainState
from jaxmeta.training.update import MetaUpdate, Supplied, meta_update, with_constants

__all__ = [
    "Estimate",
    "Interrupted",
    "MetaUpdate",
    "NotFinite",
    "Outcome",
    "Supplied",
    "TrainState",
    "Trained",
    "alternating_update",
    "evaluation",
    "join",
    "mesh_for",
    "meta_update",
    "per_task",
    "proximal_update",
    "replicate",
    "task_mesh",
    "train",
    "train_with_checkpoints",
    "trajectory_evaluation",
    "trust_region_update",
    "with_constants",
]
