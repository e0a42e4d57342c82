"""The families of processes whose dynamics are modelled, by name."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, PyTree, valid_mask
from jaxmeta.data.control import (
    CHEETAH_SCALES,
    PENDULUM_SCALES,
    Scales,
    cheetah_dynamics,
    cheetah_reward,
    from_gymnax,
    half_cheetah,
    pendulum_features,
    pendulum_parameters,
    pendulum_reward,
    pendulum_step,
)
from jaxmeta.data.control.pendulum import LARGEST_SPEED
from jaxmeta.environment import Environment
from jaxmeta.learners.control import Reward
from jaxmeta.recipes.dynamics_models import DynamicsModel, decode, least_squares

TRAINED_JOINTS, TESTED_JOINTS = (0, 1, 2, 3), (4, 5)
"""The joints of the cheetah of which one has no motor torque, in training and validation, and at
test."""


class Family(NamedTuple):
    """A family of processes.

    Attributes:
      scales: its units.
      reward: `reward(observation, action, next observation)` of a step.
      make: `make(settings, steps, test) -> Environment`.
      simulate: `simulate() -> model`, `model(process) -> DynamicsModel`: the true model.
      exact: whether the true model predicts the next observation without error.
      settings: the names of the settings that apply to it alone.
      identified: least squares on the right features, or None.
      longest: the largest number of steps of an episode, or None.
      protocol: what makes its results comparable, besides the settings.
    """

    scales: Scales
    reward: Reward
    make: Callable[[Any, int, bool], Environment]
    simulate: Callable[[], Callable[[PyTree], DynamicsModel]]
    exact: bool
    settings: tuple[str, ...] = ()
    identified: DynamicsModel | None = None
    longest: int | None = None
    protocol: Mapping[str, Any] = {}


def identify_pendulum(support: Batch, ridge: float = 1e-6) -> Array:
    """The parameters of a pendulum from its steps, by least squares on the right features, `[2]`.

    Without any step they are those of mass 1 and length 1; see `pendulum_parameters`. Steps at the
    largest speed are left out, since there the change of speed is not linear.
    """
    observation, action, after = decode(PENDULUM_SCALES, support)
    free_S = jnp.abs(after[:, 2]) < LARGEST_SPEED - 1e-3
    mask = free_S & valid_mask(support.mask, len(free_S))
    change_S1 = (after - observation)[:, 2:]
    features_SD = pendulum_features(observation, action)
    start = jnp.ones((2, 1), features_SD.dtype)
    return least_squares(features_SD, change_S1, mask, ridge, start)[:, 0]


def _pendulum() -> Callable[[PyTree], DynamicsModel]:
    def model(process: PyTree) -> DynamicsModel:
        parameters = pendulum_parameters(process["m"], process["l"])
        return DynamicsModel(lambda key, support: parameters, pendulum_step)

    return model


def _cheetah() -> Callable[[PyTree], DynamicsModel]:
    step = cheetah_dynamics()

    def model(process: PyTree) -> DynamicsModel:
        def adapt(key: Key, support: Batch) -> PyTree:
            return process

        return DynamicsModel(adapt, step)

    return model


@functools.cache  # the same functions for the same settings, which share compiled programs
def _of_gymnax(mass: tuple[float, float], length: tuple[float, float], steps: int) -> Environment:
    return from_gymnax("Pendulum-v1", {"m": mass, "l": length}, horizon=steps)


@functools.cache
def _of_brax(joints: tuple[int, ...], steps: int) -> Environment:
    return half_cheetah("joint", joints=joints, horizon=steps)


FAMILIES: dict[str, Family] = {
    "pendulum": Family(
        PENDULUM_SCALES,
        lambda observation, action, after: pendulum_reward(observation, action),
        lambda own, steps, test: _of_gymnax(own.mass, own.length, steps),
        _pendulum,
        exact=True,
        settings=("length", "mass"),
        identified=DynamicsModel(lambda key, support: identify_pendulum(support), pendulum_step),
        longest=200,
    ),
    "cheetah": Family(
        CHEETAH_SCALES,
        cheetah_reward,
        lambda own, steps, test: _of_brax(TESTED_JOINTS if test else TRAINED_JOINTS, steps),
        _cheetah,
        exact=False,
        protocol={"trained_joints": list(TRAINED_JOINTS), "tested_joints": list(TESTED_JOINTS)},
    ),
}
