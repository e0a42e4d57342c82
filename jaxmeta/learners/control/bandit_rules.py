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

    The rule is an `Act` whose memory starts as `no_pulls`. The log-probability that it returns is
    0, not that of the arm.

    Source: Chapelle, Li 2011, "An empirical evaluation of Thompson sampling", Algorithm 2.

    >>> from jaxmeta.data.control import bandits
    >>> from jaxmeta.learners.control import begin, episode
    >>> environment, arms = bandits(2), jnp.array([0.1, 0.9])
    >>> key, act = jax.random.key(0), thompson_sampling()
    >>> lived = episode(environment, act, key, arms, no_pulls(2), begin(environment))[2]
    >>> int(lived.actions[-10:].sum())
    10
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

    The rule is an `Act` whose memory starts as `no_pulls`. The log-probability that it returns is
    0.

    Args:
      coefficient: c; √2 in the paper.

    Source: Auer, Cesa-Bianchi, Fischer 2002, "Finite-time analysis of the multiarmed bandit
    problem", Figure 1.

    >>> from jaxmeta.data.control import bandits
    >>> from jaxmeta.learners.control import begin, episode
    >>> environment, arms = bandits(2, horizon=6), jnp.array([0.0, 1.0])
    >>> key, act = jax.random.key(0), upper_confidence(0.25)
    >>> lived = episode(environment, act, key, arms, no_pulls(2), begin(environment))[2]
    >>> lived.actions.tolist()
    [0, 1, 1, 1, 1, 1]
    """

    def act(key: Key, memory: Counts, seen: Seen) -> tuple[Counts, Array, Array]:
        memory = _counted(memory, seen)
        pulls = jnp.maximum(memory.pulls, 1)
        time = jnp.log(jnp.maximum(memory.pulls.sum(), 1))
        bound = memory.successes / pulls + coefficient * jnp.sqrt(time / pulls)
        bound = jnp.where(memory.pulls > 0, bound, jnp.inf)
        return memory, bound.argmax().astype(jnp.int32), jnp.zeros(())

    return act
