"""ALPaCA on the last examples of a stream, on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import alpaca, sliding_window
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count, Natural


@recipe("sliding-window", paper="Harrison et al. 2018", kinds=("stream",))
@dataclass(frozen=True)
class SlidingWindow(Recipe):
    """Sliding window (Harrison et al. 2018): ALPaCA on the last examples of a stream."""

    features: Count = 32
    """Number of learned features, of a network with the hidden layers of the tasks."""
    window: Natural = 10
    """Number of last examples to adapt to; 0 for no adaptation."""

    def build(self, problem: Problem) -> MetaLearner:
        return sliding_window(alpaca(problem.encoder(self.features)), self.window)
