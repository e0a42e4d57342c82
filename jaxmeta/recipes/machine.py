"""The base class of recipes for machines with a memory, which learn sequences."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners.memory import Machine, as_model, sequence_learner
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.tasks import Problem


@dataclass(frozen=True)
class MachineRecipe(Recipe):
    """A machine that reads sequences; a subclass defines `machine(problem)`."""

    def machine(self, problem: Problem) -> Machine:
        """The machine, with as many outputs as the problem has."""
        raise NotImplementedError

    def build(self, problem: Problem) -> MetaLearner:
        return sequence_learner(as_model(self.machine(problem)), problem.objective)
