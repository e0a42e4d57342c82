"""Settings that the learners of streams of classes share."""

from dataclasses import dataclass

import jax.numpy as jnp

from jaxmeta.core import Array, MetaLearner, Model
from jaxmeta.learners.continual import online
from jaxmeta.models import on_features
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.settings import Positive
from jaxmeta.recipes.tasks import Problem
from jaxmeta.training.update import Trained


@dataclass(frozen=True)
class OnlineSteps(Recipe):
    """Base class of the recipes for streams of classes; their meta-parameters are `OnlineParams`.

    If the features are frozen at test, they are computed once for all streams, and a stream is one
    of features.
    """

    inner_rate: Positive = 0.03
    """Learning rate of the online steps in training; at test, validation chooses among
    --eval-rates."""

    @property
    def freezes_features(self) -> bool:
        """Whether only the head learns a test stream."""
        return True

    def encoder(self, problem: Problem) -> Model:
        """The network whose features the head learns from."""
        return problem.encoder()

    def at_test(self, problem: Problem, *, replay: int = 0) -> MetaLearner:
        """The learner of a test stream, or one that repeats `replay` earlier examples a step."""
        if not self.freezes_features:
            return self.build(problem)
        given = (on_features(), problem.objective, problem.trained_ways)
        return online(*given, ways=problem.ways, replay=replay)

    def for_test(self, trained: Trained) -> Trained:
        """The parameters of `at_test`."""
        if not self.freezes_features:
            return trained
        return trained._replace(meta_params=trained.meta_params._replace(encoder=()))

    def at_rate(self, trained: Trained, rate: Array) -> Trained:
        """The trained learner with another rate of its online steps."""
        rate = jnp.asarray(rate, jnp.float32)
        return trained._replace(meta_params=trained.meta_params._replace(rate=rate))


def new_classes(problem: Problem) -> int | None:
    """The number of new classes in a stream; None in training."""
    return None if problem.train else problem.ways
