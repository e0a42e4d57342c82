"""Random architecture search on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import random_search
from jaxmeta.recipes import Problem, recipe
from jaxmeta.recipes.searches import Search


@recipe("random", paper="Li & Talwalkar 2019", kinds=("architecture",))
@dataclass(frozen=True)
class Random(Search):
    """Random search (Li & Talwalkar 2019): the baseline of architecture search."""

    def build(self, problem: Problem) -> MetaLearner:
        assert problem.space is not None
        return random_search(problem.space, budget=problem.steps)
