"""Learned optimizers."""

from jaxmeta.learners.optimizers._pretrained import celo_weights, pretrained
from jaxmeta.learners.optimizers.celo import celo_optimizer
from jaxmeta.learners.optimizers.learner import LearnedOptimizer, optimizer_learner, windows
from jaxmeta.learners.optimizers.lstm import lstm_optimizer
from jaxmeta.learners.optimizers.mlp import mlp_optimizer

__all__ = [
    "LearnedOptimizer",
    "celo_optimizer",
    "celo_weights",
    "lstm_optimizer",
    "mlp_optimizer",
    "optimizer_learner",
    "pretrained",
    "windows",
]
