"""Proto-MAML on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import proto_maml
from jaxmeta.recipes import Needs, Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent
from jaxmeta.recipes.settings import Positive


@recipe("proto-maml", paper="Triantafillou et al. 2020", kinds=("classification",))
@dataclass(frozen=True)
class ProtoMaml(Differentiated, Batches, GradientDescent):
    """Proto-MAML (Triantafillou et al. 2020): MAML whose head starts at the class means."""

    inner_rate: Positive = 0.05
    """Learning rate of the inner loop."""
    presets: ClassVar[tuple[Preset, ...]] = (
        presets.omniglot(wall_time="15 h on a CPU core", train_queries=15),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True)

    def build(self, problem: Problem) -> MetaLearner:
        return proto_maml(problem.encoder(), problem.objective, problem.ways, **self.inner(problem))
