"""Thompson sampling and UCB1 on the tasks of a run, with the same draws as the learner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key
from jaxmeta.environment import Environment
from jaxmeta.learners.control import (
    begin,
    episode,
    no_pulls,
    thompson_sampling,
    upper_confidence,
)
from jaxmeta.training.estimates import estimate
from jaxmeta.training.state import Sample, draw

_GRID = tuple(round(0.05 * number, 2) for number in range(1, 21))  # 0.05 … 1


class Rivals(NamedTuple):
    """Rewards of rules, `[tasks, H]` by name, and the tuned coefficient of UCB1."""

    rewards: dict[str, np.ndarray]
    coefficient: float


def rivals(
    environment: Environment, source: Sample, key: Key, tasks: int, tuning_tasks: int
) -> Rivals:
    """The rewards of Thompson sampling, UCB1, and UCB1 with a coefficient tuned on other tasks.

    Task i is that of the i-th of `jax.random.split(key, tasks)`, as in the evaluation of a learner.
    """

    def of_tasks(act_of: Callable[[Array], Any]) -> Callable[[Array, Key], np.ndarray]:
        def of_task(coefficient: Array, key: Key) -> Array:
            task, learn_key = draw(source, key)
            memory = no_pulls(environment.actions.choices)
            act, start = act_of(coefficient), begin(environment)
            return episode(environment, act, learn_key, task.query, memory, start)[2].rewards

        run = jax.jit(jax.vmap(of_task, in_axes=(None, 0)))
        return lambda coefficient, keys: np.asarray(run(coefficient, keys))

    bound = of_tasks(upper_confidence)
    other = jax.random.split(jax.random.fold_in(key, 1), tuning_tasks)
    found = {c: bound(jnp.asarray(c), other).sum(axis=1).mean() for c in _GRID}
    best = max(found, key=lambda c: found[c])
    keys, none = jax.random.split(key, tasks), jnp.zeros(())
    rewards = {
        "Thompson sampling": of_tasks(lambda _: thompson_sampling())(none, keys),
        "UCB1": bound(jnp.asarray(2**0.5), keys),
        "UCB1, tuned": bound(jnp.asarray(best), keys),
    }
    return Rivals(rewards, best)


def comparison(learned: np.ndarray, found: Rivals) -> dict[str, Any]:
    """The mean total reward of each rule, and the paired difference of the learned policy to it."""
    rows = {}
    for name, rewards in {"learned": learned, **found.rewards}.items():
        total = estimate(rewards.sum(axis=1))
        lead = estimate((learned - rewards).sum(axis=1))
        rows[name] = {
            "return": float(total.mean),
            "return_ci95": float(total.ci95),
            "learned_minus_this": float(lead.mean),
            "learned_minus_this_ci95": float(lead.ci95),
        }
    rows["UCB1, tuned"]["coefficient"] = found.coefficient
    return rows
