"""The sampler of an environment's tasks, and observations of the task."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmeta.core import Array, Key, PyTree, Task
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.environment import Environment, Space, Transition


def environment_tasks(environment: Environment) -> Sampler:
    """Tasks of an environment, whose support and query are the same process.

        support = query = environment.sample_task(key)

    The learner gathers experience from the support, and is evaluated on new episodes of the query.

    >>> from jaxmeta.data.control import bandits
    >>> task = environment_tasks(bandits(5))(jax.random.key(0))
    >>> task.support.shape, task.query.shape
    ((5,), (5,))
    """
    return sampler(_draw, environment=environment)


def observing_task(environment: Environment) -> Environment:
    """The environment with its task appended to every observation.

        observation: [s_t, task], flat, of the type of s_t

    A policy that observes the task has nothing to adapt to: it bounds what adaptation can reach.

    Source: Finn, Abbeel, Levine 2017, section 5.3, the oracle.

    >>> from jaxmeta.data.control import navigation
    >>> known = observing_task(navigation())
    >>> known.reset(jax.random.key(0), jnp.array([0.25, -0.5]))[1].tolist()
    [0.0, 0.0, 0.25, -0.5]
    """
    drawn = jax.eval_shape(environment.sample_task, jax.random.key(0))
    size = math.prod(environment.observations.shape)
    size += sum(leaf.size for leaf in jax.tree.leaves(drawn))

    def with_task(observation: Array, task: PyTree) -> Array:
        known: Any = ravel_pytree(task)[0]
        return jnp.concatenate([observation.ravel(), known.astype(observation.dtype)])

    def reset(key: Key, task: PyTree) -> tuple[PyTree, Array]:
        state, observation = environment.reset(key, task)
        return state, with_task(observation, task)

    def step(key: Key, state: PyTree, action: Array, task: PyTree) -> Transition:
        after = environment.step(key, state, action, task)
        return after._replace(observation=with_task(after.observation, task))

    return environment._replace(reset=reset, step=step, observations=Space((size,)))


def _draw(key: Key, *, environment: Environment) -> Task:
    task = environment.sample_task(key)
    return Task(task, task)
