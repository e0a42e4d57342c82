"""A learned optimizer on the command line: the same LSTM for every coordinate."""

from dataclasses import dataclass

from jaxmeta.learners.optimizers import LearnedOptimizer, lstm_optimizer
from jaxmeta.recipes import recipe
from jaxmeta.recipes.learned_rule import LearnedRule
from jaxmeta.recipes.settings import Count


@recipe("lstm-optimizer", paper="Andrychowicz et al. 2016", kinds=("optimization",))
@dataclass(frozen=True)
class LstmOptimizer(LearnedRule):
    """LSTM optimizer (Andrychowicz et al. 2016): a coordinate-wise LSTM as the update rule."""

    hidden: Count = 20
    """Width of the LSTM."""

    def rule(self) -> LearnedOptimizer:
        return lstm_optimizer(hidden=self.hidden, scale=self.scale)
