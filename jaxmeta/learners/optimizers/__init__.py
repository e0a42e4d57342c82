"""Learned optimizers."""

from jaxmeta.learners.optimizers._pretrained import pretrained
from jaxmeta.learners.optimizers.learner import LearnedOptimizer, optimizer_learner, windows
from jaxmeta.learners.optimizers.lstm import lstm_optimizer
from jaxmeta.learners.optimizers.mlp import mlp_optimizer

__all__ = [
    "LearnedOptimizer",
    "lstm_optimizer",
    "mlp_optimizer",
    "optimizer_learner",
    "pretrained",
    "windows",
]
