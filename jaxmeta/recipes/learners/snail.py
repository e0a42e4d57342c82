"""SNAIL on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import snail
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import Count


@recipe("snail", paper="Mishra et al. 2018", kinds=("classification",))
@dataclass(frozen=True)
class Snail(Recipe):
    """SNAIL (Mishra et al. 2018): temporal convolutions and attention."""

    features: Count = 64
    """Size of an example's embedding, the output of a linear layer after the network."""
    filters: Count = 128
    """Filters of each temporal convolution."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.READING,
        presets.omniglot(
            "99.07 ± 0.16, 99.78 ± 0.09, 97.64 ± 0.30, 99.36 ± 0.18", wall_time="6 h on a CPU core"
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(in_order=True)

    def build(self, problem: Problem) -> MetaLearner:
        steps = len(problem.example.support.targets) + 1
        encoder = problem.encoder(self.features)
        return snail(encoder, problem.objective, problem.same_ways(), steps, filters=self.filters)
