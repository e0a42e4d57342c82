"""Prior-fitted networks on the command line."""

from dataclasses import dataclass
from typing import Annotated

from jaxmeta.core import MetaLearner
from jaxmeta.learners import prior_fitted
from jaxmeta.learners.process import members_of_tables
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import AT_TEST, Count


@recipe("prior-fitted", paper="Müller et al. 2022", kinds=("tables",))
@dataclass(frozen=True)
class PriorFitted(Recipe):
    """Prior-fitted network (Müller et al. 2022): reads a table and predicts its other rows."""

    width: Count = 96
    """Width of the transformer."""
    layers: Count = 3
    """Layers of the transformer."""
    heads: Count = 4
    """Attention heads."""
    members: Annotated[Count, AT_TEST] = 1
    """Predictions of a test table that are averaged, with classes in other orders and with columns
    in other scales."""

    def build(self, problem: Problem) -> MetaLearner:
        learner = prior_fitted(
            classes=problem.outputs,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            only_seen_classes=True,
        )
        members = 1 if problem.train else self.members
        return members_of_tables(learner, problem.outputs, members)
