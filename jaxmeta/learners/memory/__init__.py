"""Learners with a memory: recurrent networks that learn within a sequence."""

from jaxmeta.learners.memory._active_one_shot import (
    Rewards,
    active_one_shot,
    q_targets,
    stream_rewards,
)
from jaxmeta.learners.memory._dnc import dnc
from jaxmeta.learners.memory._mann import mann
from jaxmeta.learners.memory._ntm import ntm
from jaxmeta.learners.memory._snail import snail
from jaxmeta.learners.memory.classifier import memory_classifier
from jaxmeta.learners.memory.lstm import lstm_machine
from jaxmeta.learners.memory.machine import Machine, as_model, run, sequence_learner

__all__ = [
    "Machine",
    "Rewards",
    "active_one_shot",
    "as_model",
    "dnc",
    "lstm_machine",
    "mann",
    "memory_classifier",
    "ntm",
    "q_targets",
    "run",
    "sequence_learner",
    "snail",
    "stream_rewards",
]
