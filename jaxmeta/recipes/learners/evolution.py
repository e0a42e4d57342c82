"""Regularised evolution of architectures on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import regularised_evolution
from jaxmeta.recipes import Problem, recipe
from jaxmeta.recipes.searches import Search
from jaxmeta.recipes.settings import Count


@recipe("evolution", paper="Real et al. 2019", kinds=("architecture",))
@dataclass(frozen=True)
class Evolution(Search):
    """Regularised evolution (Real et al. 2019): mutated architectures, of which the oldest die."""

    population: Count = 50
    """Number of architectures that are alive."""
    sample: Count = 10
    """Number of architectures of which the best is mutated."""

    def check(self) -> None:
        if self.sample > self.population:
            raise ValueError(
                f"--sample {self.sample} is above --population {self.population}; give at most "
                "the population."
            )

    def build(self, problem: Problem) -> MetaLearner:
        assert problem.space is not None
        return regularised_evolution(
            problem.space, budget=problem.steps, population=self.population, sample=self.sample
        )
