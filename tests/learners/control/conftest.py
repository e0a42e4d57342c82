"""A two-state process of three steps whose trajectories are enumerated."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Model
from jaxmeta.data.control import Tables
from jaxmeta.learners.control import Episodes, Sampled, Seen


def table_policy() -> Model:
    """Logits as a table `[states, actions]`."""
    return Model(
        init=lambda key, inputs: 0.3 * jax.random.normal(key, (inputs.shape[-1], 2)),
        apply=lambda params, inputs, *, reference=None, key=None: inputs @ params,
    )


class Enumerated(NamedTuple):
    """All 32 trajectories of states `[32, 3]`, actions `[32, 3]` and rewards `[32, 3]`.

    `moves` is the log-probability of the transitions of each, `[32]`.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    moves: np.ndarray

    def log_likelihoods(self, logits):
        """log π(a_t | s_t), `[32, 3]`."""
        return jax.nn.log_softmax(logits)[self.states, self.actions]

    def probabilities(self, logits):
        return jnp.exp(self.log_likelihoods(logits).sum(axis=1) + self.moves)

    def value(self, logits):
        """The expected reward per step."""
        return self.probabilities(logits) @ self.rewards.mean(axis=1)

    def to_go(self):
        return np.cumsum(self.rewards[:, ::-1], axis=1)[:, ::-1]

    def sampled(self, logits, weights) -> Sampled:
        """The trajectories as episodes of a policy, with weights `[32]` of sum 1 in the mask."""
        shape = self.actions.shape
        zeros = jnp.zeros(shape)
        seen = Seen(jax.nn.one_hot(self.states, 2, dtype=float), zeros, zeros, zeros)
        mask = shape[0] * jnp.broadcast_to(jnp.asarray(weights)[:, None], shape)
        outputs, log_likelihoods = logits[self.states], self.log_likelihoods(logits)
        episodes = Episodes(
            seen, jnp.asarray(self.actions), log_likelihoods, jnp.asarray(self.rewards), mask
        )
        return jax.lax.stop_gradient(Sampled(episodes, outputs, jnp.asarray(self.to_go())))

    def expected(self, logits) -> Sampled:
        """All trajectories with their probabilities: expectations instead of means."""
        return self.sampled(logits, self.probabilities(logits))


@pytest.fixture
def tables(x64) -> Tables:
    random = np.random.default_rng(4)
    return Tables(
        jnp.asarray(random.dirichlet([1, 1], (2, 2))), jnp.asarray(random.normal(1, 2, (2, 2)))
    )


@pytest.fixture
def enumerated(tables) -> Enumerated:
    rows = []
    transitions, rewards = (np.asarray(leaf) for leaf in tables)
    for a0, s1, a1, s2, a2 in itertools.product((0, 1), repeat=5):
        moves = np.log(transitions[0, a0, s1]) + np.log(transitions[s1, a1, s2])
        paid = [rewards[0, a0], rewards[s1, a1], rewards[s2, a2]]
        rows.append(((0, s1, s2), (a0, a1, a2), paid, moves))
    return Enumerated(*map(np.array, zip(*rows)))


@pytest.fixture
def table() -> Model:
    return table_policy()
