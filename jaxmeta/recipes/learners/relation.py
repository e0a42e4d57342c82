"""Relation networks on the command line."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, MetaLearner
from jaxmeta.learners import one_hot_squared_error, relation
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe


@recipe("relation", paper="Sung et al. 2018", kinds=("classification",))
@dataclass(frozen=True)
class Relation(Recipe):
    """Relation networks (Sung et al. 2018): learns the similarity of two examples."""

    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.COMPARING,
        presets.omniglot(
            "99.6 ± 0.2, 99.8 ± 0.1, 97.6 ± 0.2, 99.1 ± 0.1", wall_time="20 h on a CPU core"
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, own_objective=True, comparison=True)

    def build(self, problem: Problem) -> MetaLearner:
        if problem.comparison is None:
            raise ValueError("relation requires tasks with a network that compares two inputs.")
        encoder, comparator = problem.comparison(problem.constants)
        return relation(encoder, comparator, one_hot_squared_error, problem.ways)

    def probabilities(self, outputs: Array) -> Array:
        # The outputs are scores in [0, 1], not logits; that of a class without examples is below 0.
        return jax.nn.softmax(jnp.log(jnp.maximum(outputs, jnp.finfo(outputs.dtype).tiny)))
