"""Rules for Bernoulli bandits, to compare learned policies with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key
from jaxmeta.learners.control.gathering import Act, Seen


class Counts(NamedTuple):
    """The memory of a rule: pulls and successes of each arm, `[arms]`."""

    pulls: Array
    successes: Array


def no_pulls(arms: int) -> Counts:
    """The memory before the first pull.

    >>> no_pulls(2).pulls.tolist()
    [0.0, 0.0]
    """
    return Counts(jnp.zeros((arms,)), jnp.zeros((arms,)))


def _counted(memory: Counts, seen: Seen) -> Counts:
    """The memory with the pull before, unless an episode begins."""
    of_arm = jax.nn.one_hot(seen.action, len(memory.pulls), dtype=memory.pulls.dtype)
    of_arm = of_arm * (1 - seen.first.astype(of_arm.dtype))
    return Counts(memory.pulls + of_arm, memory.successes + seen.reward * of_arm)


def thompson_sampling() -> Act:
    """Thompson sampling with a uniform prior: the best arm of one draw from the posterior.

        p̃_a ~ Beta(1 + successes_a, 1 + failures_a),  arm argmax_a p̃_a

    Source: Chapelle, Li 2011, "An empirical evaluation of Thompson sampling", Algorithm 2.

        act = thompson_sampling()
    """

    def act(key: Key, memory: Counts, seen: Seen) -> tuple[Counts, Array, Array]:
        memory = _counted(memory, seen)
        failures = memory.pulls - memory.successes
        drawn = jax.random.beta(key, 1 + memory.successes, 1 + failures)
        return memory, drawn.argmax().astype(jnp.int32), jnp.zeros(())

    return act


def upper_confidence(coefficient: Array | float = 2**0.5) -> Act:
    """UCB1: every arm once, then the one with the largest upper confidence bound.

        arm argmax_a successes_a / n_a + c √(ln t / n_a),  t the number of pulls so far

    Args:
      coefficient: c; √2 in the paper.

    Source: Auer, Cesa-Bianchi, Fischer 2002, "Finite-time analysis of the multiarmed bandit
    problem", Figure 1.

        act = upper_confidence(0.25)
    """

    def act(key: Key, memory: Counts, seen: Seen) -> tuple[Counts, Array, Array]:
        memory = _counted(memory, seen)
        pulls = jnp.maximum(memory.pulls, 1)
        time = jnp.log(jnp.maximum(memory.pulls.sum(), 1))
        bound = memory.successes / pulls + coefficient * jnp.sqrt(time / pulls)
        bound = jnp.where(memory.pulls > 0, bound, jnp.inf)
        return memory, bound.argmax().astype(jnp.int32), jnp.zeros(())

    return act
