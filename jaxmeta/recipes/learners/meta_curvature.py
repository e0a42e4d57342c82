"""Meta-Curvature on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import meta_curvature
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent


@recipe("meta-curvature", paper="Park, Oliva 2019", kinds=("classification", "regression"))
@dataclass(frozen=True)
class MetaCurvature(Differentiated, Batches, GradientDescent):
    """Meta-Curvature (Park, Oliva 2019): MAML with a learned preconditioner."""

    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot(wall_time="5 h on a CPU core"),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return meta_curvature(problem.model(), problem.objective, **self.inner(problem))
