"""The decision-pretrained transformer on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import decision_pretrained
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count


@recipe("decision-pretrained", paper="Lee et al. 2023", kinds=("bandits",))
@dataclass(frozen=True)
class DecisionPretrained(Recipe):
    """Decision-pretrained transformer (Lee et al. 2023): learns to name the best arm."""

    width: Count = 32
    """Width of the transformer."""
    layers: Count = 2
    """Layers of the transformer."""
    heads: Count = 2
    """Attention heads."""

    def build(self, problem: Problem) -> MetaLearner:
        assert problem.environment is not None
        return decision_pretrained(
            problem.environment, width=self.width, layers=self.layers, heads=self.heads
        )
