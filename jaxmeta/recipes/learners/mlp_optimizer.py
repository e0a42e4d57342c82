"""A learned optimizer on the command line: the same perceptron for every coordinate."""

from dataclasses import dataclass

from jaxmeta.learners.optimizers import LearnedOptimizer, mlp_optimizer
from jaxmeta.recipes import recipe
from jaxmeta.recipes.learned_rule import LearnedRule
from jaxmeta.recipes.settings import Count


@recipe("mlp-optimizer", paper="Metz et al. 2019", kinds=("optimization",))
@dataclass(frozen=True)
class MlpOptimizer(LearnedRule):
    """MLP optimizer (Metz et al. 2019): a perceptron as the update rule."""

    hidden: Count = 16
    """Width of the perceptron."""

    def rule(self) -> LearnedOptimizer:
        return mlp_optimizer(hidden=self.hidden, scale=self.scale)
