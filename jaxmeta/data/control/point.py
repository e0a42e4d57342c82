"""Points in the plane: MAML's navigation and ProMP's corners."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key
from jaxmeta.environment import Environment, Space, Transition, check_horizon

_PLANE = Space((2,))


def navigation(*, horizon: int = 100) -> Environment:
    """2-D navigation: a point that starts at the origin moves to an unknown goal.

        s' = s + clip(a, ±0.1),  reward −‖s' − g‖₂,  done if |s' − g| < 0.01 in both coordinates
        task: the goal g ~ U[−0.5, 0.5]²

    The observation is the position.

    Raises:
      ValueError: `horizon` is below 1.

    Source: Finn, Abbeel, Levine 2017, section 5.3, with the constants of its published code.

    >>> environment = navigation()
    >>> state, _ = environment.reset(jax.random.key(0), jnp.array([0.1, 0.0]))
    >>> after = environment.step(jax.random.key(1), state, jnp.array([3.0, 0.0]), jnp.zeros(2))
    >>> after.observation.tolist(), round(float(after.reward), 3)
    ([0.10000000149011612, 0.0], -0.1)
    """
    check_horizon("navigation", horizon)

    def reset(key: Key, goal: Array) -> tuple[Array, Array]:
        start = jnp.zeros_like(goal)
        return start, start

    def step(key: Key, position: Array, action: Array, goal: Array) -> Transition:
        position = position + jnp.clip(action, -0.1, 0.1)
        away = position - goal
        return Transition(position, position, -_length(away), (jnp.abs(away) < 0.01).all())

    def sample_task(key: Key) -> Array:
        return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)

    return Environment(reset, step, sample_task, _PLANE, Space((2,), largest=0.1), horizon)


Reward = Literal["dense", "sparse"]


def corners(*, reward: Reward = "sparse", horizon: int = 100) -> Environment:
    """Corners: a point that starts near the origin moves to one of the corners (±2, ±2).

        s' = s + clip(a, ±0.2),  s_0 ~ U[−0.2, 0.2]²
        dense:   reward −‖s' − g‖₂
        sparse:  reward ‖s − g‖₂ − ‖s' − g‖₂ if ‖s'‖₁ ≥ 0.5 and no corner is nearer to s', else 0
        task: the corner g, each with probability 1/4

    The observation is the position. Without a reward near the start, the first episodes have to
    explore.

    Raises:
      ValueError: an unknown reward; `horizon` is below 1.

    Source: Rothfuss, Lee, Clavera, Asfour, Abbeel 2019, "ProMP: proximal meta-policy search",
    appendix, with the constants of its published code.

    >>> environment = corners(reward="dense")
    >>> sorted(jnp.abs(environment.sample_task(jax.random.key(0))).tolist())
    [2.0, 2.0]
    """
    check_horizon("corners", horizon)
    if reward not in get_args(Reward):
        raise ValueError(f"corners: reward {reward!r}; give dense or sparse.")

    def reset(key: Key, goal: Array) -> tuple[Array, Array]:
        start = jax.random.uniform(key, (2,), goal.dtype, -0.2, 0.2)
        return start, start

    def step(key: Key, position: Array, action: Array, goal: Array) -> Transition:
        moved = position + jnp.clip(action, -0.2, 0.2)
        distance = _length(moved - goal)
        value = -distance
        if reward == "sparse":
            # The nearest corner has the signs of the position.
            near = (moved * goal >= 0).all() & (jnp.abs(moved).sum() >= 0.5)
            value = jnp.where(near, _length(position - goal) - distance, 0.0)
        return Transition(moved, moved, value, jnp.zeros((), bool))

    def sample_task(key: Key) -> Array:
        return 2.0 * jax.random.rademacher(key, (2,)).astype(float)

    return Environment(reset, step, sample_task, _PLANE, Space((2,), largest=0.2), horizon)


def _length(vector: Array) -> Array:
    return jnp.sqrt(jnp.square(vector).sum())
