"""Environments of gymnax, with physical parameters as the task."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.environment import Environment, Space, Transition
from jaxmeta.extras import extra


def from_gymnax(
    name: str, ranges: Mapping[str, tuple[float, float]], *, horizon: int | None = None
) -> Environment:
    """An environment of gymnax; a task replaces some of its parameters.

        task: {parameter: value ~ U[low, high]} for each parameter in `ranges`

    Only these parameters change: one that is derived from another, such as the `polemass_length`
    of CartPole, keeps its default.

    Args:
      name: the name in gymnax, such as `Pendulum-v1` or `CartPole-v1`.
      ranges: the low and high end of each parameter, in gymnax' units: `{"m": (0.5, 2.0)}`.
      horizon: steps of an episode. Defaults to gymnax' `max_steps_in_episode`.

    Raises:
      ValueError: an unknown environment or parameter; an empty range; a horizon that is below 1 or
        above gymnax' own.
      ModuleNotFoundError: gymnax is not installed.

        pendulum = from_gymnax("Pendulum-v1", {"m": (0.5, 2.0), "l": (0.5, 2.0)})
    """
    with extra("control"):
        import gymnax
    if name not in gymnax.registered_envs:
        raise ValueError(
            f"from_gymnax: no environment {name!r}; give one of gymnax.registered_envs."
        )
    made, defaults = gymnax.make(name)
    most = int(defaults.max_steps_in_episode)
    steps = most if horizon is None else horizon
    if not 1 <= steps <= most:
        raise ValueError(f"from_gymnax: horizon {steps}; give 1 to {most} steps of {name}.")
    for parameter, (low, high) in ranges.items():
        if not hasattr(defaults, parameter):
            raise ValueError(f"from_gymnax: {name} has no parameter {parameter!r}.")
        if not low <= high:
            raise ValueError(f"from_gymnax: {parameter} from {low} to {high}; give low ≤ high.")

    def with_task(task: PyTree) -> Any:
        return defaults.replace(**task)

    def reset(key: Key, task: PyTree) -> tuple[PyTree, Array]:
        observation, state = made.reset_env(key, with_task(task))
        return jax.tree.map(jnp.asarray, state), observation

    def step(key: Key, state: PyTree, action: Array, task: PyTree) -> Transition:
        # Not `made.step`, which starts the next episode.
        observation, after, reward, done, _ = made.step_env(key, state, action, with_task(task))
        after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state)
        return Transition(after, observation, jnp.asarray(reward, observation.dtype), done)

    def sample_task(key: Key) -> PyTree:
        keys = jax.random.split(key, max(len(ranges), 1))
        return {
            parameter: jax.random.uniform(own, minval=low, maxval=high)
            for own, (parameter, (low, high)) in zip(keys, sorted(ranges.items()))
        }

    return Environment(
        reset,
        step,
        sample_task,
        _space(made.observation_space(defaults)),
        _actions(made.action_space(defaults)),
        steps,
    )


def _space(space: Any) -> Space:
    return Space((), int(space.n)) if hasattr(space, "n") else Space(tuple(space.shape))


def _actions(space: Any) -> Space:
    if hasattr(space, "n"):
        return _space(space)
    return Space(tuple(space.shape), largest=float(np.max(np.abs([space.low, space.high]))))
