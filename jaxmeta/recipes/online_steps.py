"""Settings that the learners of streams of classes share."""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxmeta.core import Array, MetaLearner, Model
from jaxmeta.learners.continual import online
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.settings import Positive
from jaxmeta.recipes.tasks import Problem
from jaxmeta.training.update import Trained


@dataclass(frozen=True)
class OnlineSteps(Recipe):
    """Base class of recipes whose meta-parameters are `OnlineParams`."""

    inner_rate: Positive = 0.03
    """Learning rate of the online steps in training; at test, validation chooses among
    --eval-rates."""

    def encoder(self, problem: Problem) -> Model:
        """The network whose features the head learns from."""
        return problem.encoder()

    def at_rate(self, trained: Trained, rate: Array) -> Trained:
        """The trained learner with another rate of its online steps."""
        rate = jnp.asarray(rate, jnp.float32)
        return trained._replace(meta_params=trained.meta_params._replace(rate=rate))

    def replaying(self, problem: Problem, replay: int) -> MetaLearner | None:
        """A head that learns online from the same features and repeats earlier examples."""
        return online(
            self.encoder(problem),
            problem.objective,
            problem.trained_ways,
            ways=problem.ways,
            replay=replay,
        )


def new_classes(problem: Problem) -> int | None:
    """The number of new classes in a stream; None in training."""
    return None if problem.train else problem.ways
