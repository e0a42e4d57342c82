"""MetaQNN on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import metaqnn
from jaxmeta.recipes import Problem, recipe
from jaxmeta.recipes.searches import Search
from jaxmeta.recipes.settings import Count, Fraction


@recipe("metaqnn", paper="Baker et al. 2017", kinds=("architecture",))
@dataclass(frozen=True)
class MetaQnn(Search):
    """MetaQNN (Baker et al. 2017): Q-learning over the decisions of an architecture."""

    q_rate: Fraction = 0.01
    """Learning rate of the values."""
    discount: Fraction = 1.0
    """Discount of a decision's successor."""
    initial_value: Fraction = 0.5
    """The values before any update."""
    replays: Count = 128
    """Updates after each architecture, on architectures drawn from all so far."""

    def check(self) -> None:
        if self.q_rate == 0:
            raise ValueError("--q-rate 0.0 never learns; give a positive number.")

    def build(self, problem: Problem) -> MetaLearner:
        assert problem.space is not None
        return metaqnn(
            problem.space,
            budget=problem.steps,
            rate=self.q_rate,
            discount=self.discount,
            initial=self.initial_value,
            replays=self.replays,
        )
