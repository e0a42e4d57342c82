"""Regularised evolution of architectures."""

import jax
import jax.numpy as jnp

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Key, MetaLearner
from jaxmeta.learners.architecture.searching import (
    History,
    Search,
    architecture_search,
    random_architecture,
)


def regularised_evolution(
    space: SearchSpace, *, budget: int, population: int = 50, sample: int = 10
) -> MetaLearner:
    """Regularised evolution: the best of a sample is mutated, and the oldest dies.

        parent = best of S of the P youngest, drawn with replacement
        child: one decision of the parent is replaced by another option

    The first P architectures are random.

    Args:
      population: P.
      sample: S.

    Other arguments as in `architecture_search`.

    Raises:
      ValueError: a population or sample below 1, or a sample above the population; as
        `architecture_search`.

    Source: Real, Aggarwal, Huang, Le 2019, "Regularized evolution for image classifier architecture
    search", Algorithm 1; P and S as in the search of NAS-Bench-101 (Ying et al. 2019). Unlike in
    the paper, no architecture is evaluated twice.

    >>> accuracy = lambda key, architecture, task: architecture.mean() / 2
    >>> space = SearchSpace(3, ("a", "b", "c"), jnp.ones((4, 3), bool), accuracy)
    >>> learner = regularised_evolution(space, budget=20, population=5, sample=2)
    """
    if not 1 <= sample <= population:
        raise ValueError(
            f"regularised_evolution: population {population}, sample {sample}; give at least 1 of "
            "each, and a sample within the population."
        )
    options = len(space.options)

    def mutated(key: Key, parent: Array) -> Array:
        """Another allowed option in one place; the parent where there is none."""
        before = jnp.concatenate([jnp.array([options], jnp.int32), parent[:-1]])
        allowed = jnp.asarray(space.allowed)
        after = jnp.ones((space.decisions, options), bool)
        after = after.at[:-1].set(allowed[:options, parent[1:]].T)
        possible = allowed[before] & after & ~jax.nn.one_hot(parent, options, dtype=bool)
        logits = jnp.where(possible, 0.0, -jnp.inf).ravel()
        place, option = jnp.divmod(jax.random.categorical(key, logits), options)
        return jnp.where(possible.any(), parent.at[place].set(option.astype(jnp.int32)), parent)

    def propose(key: Key, state: tuple[()], history: History) -> Array:
        sample_key, mutate_key, random_key = jax.random.split(key, 3)
        drawn = jax.random.randint(sample_key, (sample,), 0, jnp.minimum(population, history.seen))
        rows = history.seen - 1 - drawn  # the youngest are the last ones
        best = rows[history.accuracies[rows].argmax()]
        child = mutated(mutate_key, history.architectures[best])
        fresh = random_architecture(random_key, space)
        return jnp.where(history.seen < population, fresh, child)

    search = Search(lambda key: (), propose, learn=lambda key, state, history: state)
    return architecture_search(search, space, budget)
