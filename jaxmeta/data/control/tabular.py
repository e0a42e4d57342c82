"""Bernoulli bandits and random tabular Markov decision processes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key
from jaxmeta.environment import Environment, Space, Transition, check_horizon


def bandits(arms: int, *, horizon: int = 100) -> Environment:
    """Bernoulli bandits with independent arms.

        reward ~ Bernoulli(p_a),  task: p_a ~ U[0, 1] for each arm a

    An episode has `horizon` pulls; its observations are a constant 0.

    Raises:
      ValueError: fewer than 2 arms; `horizon` is below 1.

    Source: Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016, "RL²: fast reinforcement
    learning via slow reinforcement learning", section 3.1.

    >>> environment = bandits(2, horizon=10)
    >>> float(environment.optimum(jnp.array([0.25, 0.5])))
    5.0
    """
    check_horizon("bandits", horizon)
    if arms < 2:
        raise ValueError(f"bandits: {arms} arms; give at least 2.")

    def reset(key: Key, task: Array) -> tuple[tuple[()], Array]:
        return (), jnp.zeros((1,))

    def step(key: Key, state: tuple[()], action: Array, task: Array) -> Transition:
        reward = jax.random.bernoulli(key, jnp.asarray(task)[action]).astype(task.dtype)
        return Transition((), jnp.zeros((1,)), reward, jnp.zeros((), bool))

    def sample_task(key: Key) -> Array:
        return jax.random.uniform(key, (arms,))

    def optimum(task: Array) -> Array:
        return horizon * task.max()

    return Environment(reset, step, sample_task, Space((1,)), Space((), arms), horizon, optimum)


class Tables(NamedTuple):
    """A tabular Markov decision process.

    Attributes:
      transitions: probabilities of the next state, float `[states, actions, states]`.
      rewards: mean rewards, float `[states, actions]`.
    """

    transitions: Array
    rewards: Array


def tabular(
    states: int = 10, actions: int = 5, *, horizon: int = 10, noise: float = 1.0
) -> Environment:
    """Random Markov decision processes with a few states, which start in state 0.

        task: P(· | s, a) ~ Dirichlet(1, ..., 1),  mean rewards r̄(s, a) ~ N(1, 1)
        reward ~ N(r̄(s, a), noise²)

    The observation is the state, one-hot.

    Raises:
      ValueError: fewer than 1 state or 2 actions; `horizon` is below 1; negative noise.

    Source: Duan et al. 2016, section 3.2.

    >>> environment = tabular()
    >>> environment.sample_task(jax.random.key(0)).transitions.shape
    (10, 5, 10)
    """
    check_horizon("tabular", horizon)
    if states < 1 or actions < 2 or noise < 0:
        raise ValueError(
            f"tabular: {states} states, {actions} actions, noise {noise}; give at least 1 state, "
            "2 actions, and no negative noise."
        )

    def observe(state: Array) -> Array:
        return jax.nn.one_hot(state, states)

    def reset(key: Key, task: Tables) -> tuple[Array, Array]:
        start = jnp.zeros((), jnp.int32)
        return start, observe(start)

    def step(key: Key, state: Array, action: Array, task: Tables) -> Transition:
        state_key, reward_key = jax.random.split(key)
        transitions, rewards = jnp.asarray(task.transitions), jnp.asarray(task.rewards)
        log_probabilities = jnp.log(transitions[state, action])
        after = jax.random.categorical(state_key, log_probabilities).astype(jnp.int32)
        mean = rewards[state, action]
        reward = mean + noise * jax.random.normal(reward_key, dtype=mean.dtype)
        return Transition(after, observe(after), reward, jnp.zeros((), bool))

    def sample_task(key: Key) -> Tables:
        transitions_key, rewards_key = jax.random.split(key)
        alike = jnp.ones((states,))
        return Tables(
            jax.random.dirichlet(transitions_key, alike, (states, actions)),
            1.0 + jax.random.normal(rewards_key, (states, actions)),
        )

    def optimum(task: Tables) -> Array:
        def earlier(values: Array, _: None) -> tuple[Array, None]:
            return (task.rewards + task.transitions @ values).max(axis=1), None

        last = task.rewards.max(axis=1)
        values, _ = jax.lax.scan(earlier, last, length=horizon - 1)
        return values[0]

    return Environment(
        reset, step, sample_task, Space((states,)), Space((), actions), horizon, optimum
    )
