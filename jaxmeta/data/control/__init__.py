"""Environments of meta-reinforcement learning, and the samplers of their tasks."""

from jaxmeta.data.control._brax import (
    CHEETAH_SCALES,
    ant,
    cheetah_dynamics,
    cheetah_outline,
    cheetah_reward,
    from_brax,
    half_cheetah,
    reacher,
)
from jaxmeta.data.control._gymnax import from_gymnax
from jaxmeta.data.control.dynamics import (
    Scales,
    Trajectories,
    encode_change,
    encode_step,
    explored,
    next_observation,
    pooled_windows,
    process_of,
    transition_windows,
)
from jaxmeta.data.control.environments import environment_tasks, observing_task
from jaxmeta.data.control.pendulum import (
    PENDULUM_SCALES,
    pendulum_features,
    pendulum_parameters,
    pendulum_reward,
    pendulum_step,
)
from jaxmeta.data.control.point import corners, navigation
from jaxmeta.data.control.tabular import Tables, bandits, tabular

__all__ = [
    "CHEETAH_SCALES",
    "PENDULUM_SCALES",
    "Scales",
    "Tables",
    "Trajectories",
    "ant",
    "bandits",
    "cheetah_dynamics",
    "cheetah_outline",
    "cheetah_reward",
    "corners",
    "encode_change",
    "encode_step",
    "environment_tasks",
    "explored",
    "from_brax",
    "from_gymnax",
    "half_cheetah",
    "navigation",
    "next_observation",
    "observing_task",
    "pendulum_features",
    "pendulum_parameters",
    "pendulum_reward",
    "pendulum_step",
    "pooled_windows",
    "process_of",
    "reacher",
    "tabular",
    "transition_windows",
]
