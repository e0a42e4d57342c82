"""ALPaCA on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import alpaca
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count


@recipe("alpaca", paper="Harrison et al. 2018", kinds=("regression",))
@dataclass(frozen=True)
class Alpaca(Recipe):
    """ALPaCA (Harrison et al. 2018): a Bayesian last layer."""

    features: Count = 32
    """Number of learned features, of a network with the hidden layers of the tasks."""

    def build(self, problem: Problem) -> MetaLearner:
        return alpaca(problem.encoder(self.features))
