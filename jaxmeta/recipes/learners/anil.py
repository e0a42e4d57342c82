"""ANIL on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import anil
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent


@recipe("anil", paper="Raghu et al. 2020", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Anil(Differentiated, Batches, GradientDescent):
    """ANIL (Raghu et al. 2020): MAML in which only the head adapts."""

    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot("–, –, 96.2, 98.0", wall_time="3 h on a CPU core"),
        presets.miniimagenet("46.7 ± 0.4, 61.5 ± 0.5"),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return anil(problem.model(), problem.objective, **self.inner(problem))
