"""MetaQNN: tabular Q-learning over the layers of a network."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Key, MetaLearner
from jaxmeta.learners.architecture.searching import History, Search, architecture_search

PUBLISHED_EPSILONS = (
    (1.0, 1500),
    *((round(0.1 * tenth, 1), 100) for tenth in (9, 8, 7)),
    *((round(0.1 * tenth, 1), 150) for tenth in (6, 5, 4, 3, 2, 1)),
)
"""ε and the number of networks that are proposed with it (Baker et al. 2017, table 2)."""


def epsilons(budget: int) -> np.ndarray:
    """The published schedule of ε, shortened or stretched to a budget, float32 `[budget]`.

    >>> [round(float(epsilon), 1) for epsilon in epsilons(27)[13:19]]
    [1.0, 1.0, 0.9, 0.8, 0.7, 0.6]
    """
    published = np.concatenate([np.full(count, value) for value, count in PUBLISHED_EPSILONS])
    places = (np.arange(budget) + 0.5) / budget * len(published)
    return published[places.astype(int)].astype(np.float32)


def q_update(
    values: Array, architecture: Array, accuracy: Array, rate: float, discount: float
) -> Array:
    """Q-learning on the decisions of one architecture, from the last to the first.

        Q(s_D, a_D) ← (1 − α) Q(s_D, a_D) + α accuracy
        Q(s_i, a_i) ← (1 − α) Q(s_i, a_i) + α γ max_a Q(s_{i+1}, a),  i = D − 1, ..., 1

    A position with a single allowed option is no decision: it is passed over. So the decision that
    ends a network early is the last one, and has the accuracy of its own network.

    Args:
      values: float `[decisions, options + 1, options]`; options that are not allowed are −∞.
      architecture: int32 `[decisions]`.
      accuracy: the reward of the last decision.
      rate: α.
      discount: γ.

    Source: Baker, Gupta, Naik, Raskar 2017, "Designing neural network architectures using
    reinforcement learning", Algorithm 3.

    >>> values = q_update(jnp.full((2, 3, 2), 0.5), jnp.array([1, 0]), jnp.array(0.9), 0.1, 1.0)
    >>> round(float(values[1, 1, 0]), 4), round(float(values[0, 2, 1]), 4)
    (0.54, 0.504)
    """
    decisions, rows, _ = values.shape
    before = jnp.concatenate([jnp.array([rows - 1], architecture.dtype), architecture[:-1]])

    def back(carry: tuple[Array, Array], position: Array) -> tuple[tuple[Array, Array], None]:
        values, target = carry
        place = (position, before[position], architecture[position])
        decides = jnp.isfinite(values[place[:2]]).sum() > 1
        learned = values.at[place].set((1 - rate) * values[place] + rate * target)
        values = jnp.where(decides, learned, values)
        return (values, jnp.where(decides, discount * values[place[:2]].max(), target)), None

    order = jnp.arange(decisions - 1, -1, -1)
    return jax.lax.scan(back, (values, accuracy), order)[0][0]


def metaqnn(
    space: SearchSpace,
    *,
    budget: int,
    rate: float = 0.01,
    discount: float = 1.0,
    initial: float = 0.5,
    replays: int = 128,
) -> MetaLearner:
    """MetaQNN: Q-learning over decisions, with an ε-greedy policy and experience replay.

        a_i: with probability ε a random allowed option, else argmax_a Q(s_i, a)
        after every architecture: `q_update` for `replays` architectures drawn from all so far

    The state of a decision is its position and the option chosen before. ε follows the published
    schedule, shortened to the budget: 1 for 56 % of the architectures, then from 0.9 down to 0.1.

    Args:
      rate: α, of the updates.
      discount: γ.
      initial: the values before any update.
      replays: updates after each architecture, on architectures drawn with replacement.

    Other arguments as in `architecture_search`.

    Raises:
      ValueError: a rate or discount outside 0 to 1; no replays; as `architecture_search`.

    Source: Baker, Gupta, Naik, Raskar 2017, "Designing neural network architectures using
    reinforcement learning", sections 4 and 5.

    >>> accuracy = lambda key, architecture, task: architecture.mean() / 2
    >>> space = SearchSpace(3, ("a", "b", "c"), jnp.ones((4, 3), bool), accuracy)
    >>> learner = metaqnn(space, budget=20)
    """
    if not (0 < rate <= 1 and 0 <= discount <= 1) or replays < 1:
        raise ValueError(
            f"metaqnn: rate {rate}, discount {discount}, {replays} replays; give a rate and a "
            "discount from 0 to 1, and at least 1 replay."
        )
    options = len(space.options)
    schedule = jnp.asarray(epsilons(max(budget, 1)))

    def init(key: Key) -> Array:
        values = jnp.where(space.allowed, initial, -jnp.inf)
        return jnp.broadcast_to(values, (space.decisions, options + 1, options))

    def propose(key: Key, state: Array, history: History) -> Array:
        epsilon = schedule[history.seen]

        def decide(before: Array, row: tuple[Array, Key]) -> tuple[Array, Array]:
            values, key = row
            explore_key, option_key = jax.random.split(key)
            # Ties are broken at random: at first all values are equal.
            ties = jnp.where(values[before] == values[before].max(), 0.0, -jnp.inf)
            explored = jnp.where(jnp.asarray(space.allowed)[before], 0.0, -jnp.inf)
            logits = jnp.where(jax.random.bernoulli(explore_key, epsilon), explored, ties)
            option = jax.random.categorical(option_key, logits).astype(jnp.int32)
            return option, option

        keys = jax.random.split(key, space.decisions)
        return jax.lax.scan(decide, jnp.array(options, jnp.int32), (state, keys))[1]

    def learn(key: Key, state: Array, history: History) -> Array:
        rows = jax.random.randint(key, (replays,), 0, history.seen)

        def replay(values: Array, row: Array) -> tuple[Array, None]:
            entry = (history.architectures[row], history.accuracies[row])
            return q_update(values, *entry, rate, discount), None

        return jax.lax.scan(replay, state, rows)[0]

    def metrics(history: History) -> dict[str, Array]:
        return {"epsilon": schedule[jnp.minimum(history.seen, len(schedule) - 1)]}

    return architecture_search(Search(init, propose, learn, metrics), space, budget)
