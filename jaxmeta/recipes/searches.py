"""What the recipes of architecture search share."""

from dataclasses import dataclass

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.recipes.base import Engine, Recipe
from jaxmeta.recipes.settings import option
from jaxmeta.training.alternating import alternating_update
from jaxmeta.training.update import MetaUpdate


@dataclass(frozen=True)
class Search(Recipe):
    """A search that sees one architecture per meta-update, or takes one step."""

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        """`alternating_update`.

        Raises:
          ValueError: several tasks per meta-update.
        """
        if engine.training.task_batch != 1:
            raise ValueError(
                f"{option('task_batch', engine.training.task_batch)}: {self.name} takes one task "
                "per step; give 1."
            )
        return alternating_update(learner, self.optimizer(engine))

    def optimizer(self, engine: Engine) -> optax.GradientTransformation:
        """The optimizer of the meta-parameters."""
        return optax.identity()
