"""Semi-supervised prototypical networks on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import semi_supervised_prototypical
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import Natural


@recipe("semi-supervised-prototypical", paper="Ren et al. 2018", kinds=("classification",))
@dataclass(frozen=True)
class SemiSupervisedPrototypical(Recipe):
    """Semi-supervised prototypical networks (Ren et al. 2018): refined by unlabelled examples."""

    refinements: Natural = 1
    """Number of refinements of the prototypes by the --unlabelled examples."""
    distractor_cluster: bool = False
    """Add a cluster for unlabelled examples that belong to none of the classes."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.COMPARING,
        # Of the 20 images of a class, up to 5 shots and 5 unlabelled examples leave 10.
        Preset("few-shot/*", {"unlabelled": 5, "queries": 10}),
        presets.omniglot(wall_time="2.5 h on a CPU core"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, unlabelled=True, embeds=True)

    def build(self, problem: Problem) -> MetaLearner:
        return semi_supervised_prototypical(
            problem.encoder(),
            problem.objective,
            problem.ways,
            refinements=self.refinements,
            distractor_cluster=self.distractor_cluster,
        )
