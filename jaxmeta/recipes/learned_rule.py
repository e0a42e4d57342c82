"""Settings that learned optimizers share, and the ways to meta-train them."""

from dataclasses import dataclass
from typing import Literal

from jaxmeta.core import MetaLearner
from jaxmeta.learners import evolve, persistent_es, truncated_backpropagation
from jaxmeta.learners.optimizers import LearnedOptimizer, optimizer_learner, windows
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.settings import Count, Positive
from jaxmeta.recipes.tasks import Problem


@dataclass(frozen=True)
class LearnedRule(Recipe):
    """A learned optimizer; a subclass defines `rule()`."""

    meta_gradient: Literal["truncated", "full", "evolution", "persistent"] = "truncated"
    """truncated, full: backpropagation through windows, or through whole runs;
    evolution, persistent: evolution strategies on whole runs, or persistent ones on windows."""
    window: Count = 20
    """Steps per window, with truncated and persistent."""
    std: Positive = 0.01
    """Standard deviation of the perturbations, with evolution and persistent."""
    pairs: Count = 8
    """Antithetic pairs of perturbations per problem, with evolution and persistent."""
    scale: Positive = 0.01
    """Factor by which the rule's output is multiplied."""

    def rule(self) -> LearnedOptimizer:
        """The update rule whose parameters are learned."""
        raise NotImplementedError

    def build(self, problem: Problem) -> MetaLearner:
        given = (problem.encoder(), problem.objective, self.rule(), problem.horizon)
        learner = optimizer_learner(*given, problem_batch=problem.batch)
        if not problem.train or self.meta_gradient == "full":
            return learner
        noise = {"std": self.std, "pairs": self.pairs}
        if self.meta_gradient == "evolution":
            return evolve(learner, **noise)
        parts = windows(*given, self.window, problem_batch=problem.batch)
        if self.meta_gradient == "truncated":
            return truncated_backpropagation(learner, parts)
        return persistent_es(learner, parts, **noise)
