"""BOIL on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import boil
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent


@recipe("boil", paper="Oh et al. 2021", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Boil(Differentiated, Batches, GradientDescent):
    """BOIL (Oh et al. 2021): MAML in which all but the head adapts."""

    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot(wall_time="3 h on a CPU core"),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return boil(problem.model(), problem.objective, **self.inner(problem))
