"""Siamese networks on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import siamese
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import Count


@recipe("siamese", paper="Koch et al. 2015", kinds=("classification",))
@dataclass(frozen=True)
class Siamese(Recipe):
    """Siamese networks (Koch et al. 2015): learns to verify, classifies by similarity."""

    features: Count = 256
    """Size of the compared embedding, the output of a dense layer after the network."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.COMPARING,
        Preset("few-shot/*", {"distortions": True}),
        presets.omniglot("97.3, 98.4, 88.2, 97.0, 92.0", wall_time="2.5 h on a CPU core"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, own_objective=True)

    def build(self, problem: Problem) -> MetaLearner:
        return siamese(problem.encoder(self.features), problem.ways)
