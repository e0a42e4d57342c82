"""Gathering experience: episodes of a policy in an environment, as compiled scans."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.environment import Environment
from jaxmeta.ops import varying_with


class Seen(NamedTuple):
    """What a policy sees before it acts.

    Attributes:
      observation: the current observation.
      action: the previous action; 0 before the first.
      reward: the previous reward, float scalar; 0 before the first.
      first: bool scalar, whether an episode begins.
    """

    observation: Array
    action: Array
    reward: Array
    first: Array


class Act(Protocol):
    """`act(key, memory, seen) -> (memory, action, log_probability)`, a policy with a memory.

    A policy without one passes `()` on.
    """

    def __call__(self, key: Key, memory: PyTree, seen: Seen, /) -> tuple[PyTree, Array, Array]: ...


class Episodes(NamedTuple):
    """Experience, float unless noted, with axes `[H]`, or `[E, H]` for several episodes.

    Attributes:
      seen: what the policy saw before each step.
      actions: its actions; integers for a choice.
      log_probabilities: those of the actions, under the policy that took them.
      rewards: the rewards, 0 after the end.
      mask: 1 for the steps of the episode, 0 after its end.
    """

    seen: Seen
    actions: Array
    log_probabilities: Array
    rewards: Array
    mask: Array


def begin(environment: Environment) -> Seen:
    """What a policy sees before its first episode: zeros, and `first`; see `episode`.

    >>> from jaxmeta.data.control import navigation
    >>> seen = begin(navigation())
    >>> seen.action.tolist(), float(seen.reward), bool(seen.first)
    ([0.0, 0.0], 0.0, True)
    """
    space = environment.actions
    kind = jnp.int32 if space.choices else float
    return Seen(
        jnp.zeros(environment.observations.shape),
        jnp.zeros(space.shape, kind),
        jnp.zeros(()),
        jnp.ones((), bool),
    )


def episode(
    environment: Environment, act: Act, key: Key, task: PyTree, memory: PyTree, last: Seen
) -> tuple[PyTree, Seen, Episodes]:
    """One episode of a policy.

    After the end of an episode the memory and what the policy sees no longer change; rewards and
    mask are 0. All values are constants: nothing is differentiated.

    Args:
      environment: with a horizon of H steps.
      act: the policy, see `Act`.
      key: of the reset, the actions and the steps.
      task: the process, from `environment.sample_task`.
      memory: what `act` starts with.
      last: from `begin`, or from the last episode. The observation is replaced by the first one of
        this episode.

    Returns:
      The memory after the episode, what the policy has seen last, and the episode `[H]`.

    >>> from jaxmeta.data.control import bandits
    >>> environment, task = bandits(2, horizon=4), jnp.array([1.0, 0.0])
    >>> def act(key, memory, seen):
    ...     return memory + 1, jnp.where(seen.reward > 0, 0, 1 - seen.action), jnp.zeros(())
    >>> start = begin(environment)
    >>> memory, _, seen = episode(environment, act, jax.random.key(0), task, 0, start)
    >>> seen.actions.tolist(), seen.rewards.tolist(), int(memory)
    ([1, 0, 0, 0], [0.0, 1.0, 1.0, 1.0], 4)
    """
    task = jax.tree.map(jnp.asarray, task)  # NumPy's arrays cannot be indexed by traced states
    reset_key, steps_key = jax.random.split(key)
    state, observation = environment.reset(reset_key, task)
    seen = last._replace(observation=observation, first=jnp.ones((), bool))

    def step(
        carry: tuple[PyTree, ...], keys: tuple[Key, Key]
    ) -> tuple[tuple[PyTree, ...], Episodes]:
        state, seen, memory, running = carry
        act_key, step_key = keys
        remembered, action, log_probability = act(act_key, memory, seen)
        after = environment.step(step_key, state, action, task)
        mask = running.astype(after.reward.dtype)
        reward = jnp.where(running, after.reward, 0)
        row = Episodes(seen, action, log_probability, reward, mask)
        observed = Seen(after.observation, action, reward, jnp.zeros((), bool))
        going_on = (after.state, observed, remembered, ~after.done)
        standing = (state, seen, memory, jnp.zeros((), bool))
        kept = jax.tree.map(
            lambda new, old: jnp.where(running, new, old).astype(jnp.result_type(old)),
            going_on,
            standing,
        )
        return kept, row

    # On several devices, every part of the loop's state differs between them, as the keys do.
    start = varying_with((state, seen, memory, jnp.ones((), bool)), (task, key))
    # Keys are split before the loop, in one call for all steps.
    keys = jax.vmap(jax.random.split)(jax.random.split(steps_key, environment.horizon))
    (_, seen, memory, _), steps = jax.lax.scan(step, start, (keys[:, 0], keys[:, 1]))
    memory, seen, steps = jax.lax.stop_gradient((memory, seen, steps))
    return memory, seen, steps


def gather(environment: Environment, act: Act, key: Key, task: PyTree, episodes: int) -> Episodes:
    """Independent episodes `[E, H]` of a policy without memory; see `episode`.

    >>> from jaxmeta.data.control import bandits
    >>> def act(key, memory, seen):
    ...     return memory, jnp.array(1), jnp.zeros(())
    >>> arms = jnp.array([0.0, 1.0])
    >>> lived = gather(bandits(2, horizon=4), act, jax.random.key(0), arms, episodes=3)
    >>> lived.rewards.shape, float(lived.rewards.mean())
    ((3, 4), 1.0)
    """

    def one(key: Key) -> Episodes:
        return episode(environment, act, key, task, (), begin(environment))[2]

    return jax.vmap(one)(jax.random.split(key, episodes))


def returns(episodes: Episodes) -> Array:
    """The undiscounted return of each episode, `[..., H]` to `[...]`.

    >>> ones = jnp.ones((2, 3))
    >>> mask = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    >>> returns(Episodes((), ones, ones, 2 * ones, mask)).tolist()
    [6.0, 2.0]
    """
    return (episodes.rewards * episodes.mask).sum(axis=-1)


def over_steps(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of one step, mapped over episodes `[E, H, ...]`."""
    return jax.vmap(jax.vmap(function))


def mean_of_steps(values: Array, mask: Array) -> Array:
    """The mean over the valid steps of all episodes, a scalar; the mask may hold weights.

    >>> float(mean_of_steps(jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[1.0, 1.0, 0.0]])))
    2.0
    """
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1e-8)
