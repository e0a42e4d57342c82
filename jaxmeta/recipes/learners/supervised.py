"""Ordinary supervised training on the command line, a baseline for meta-learning."""

from dataclasses import dataclass

from jaxmeta.core import Key, MetaLearner, PyTree
from jaxmeta.learners import supervised
from jaxmeta.models import frozen_encoder
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.training.update import Trained


@recipe("supervised", paper="Chen et al. 2019", kinds=("supervised",))
@dataclass(frozen=True)
class Supervised(Recipe):
    """Supervised training (Chen et al. 2019): one network on all training classes, the baseline."""

    def build(self, problem: Problem) -> MetaLearner:
        return supervised(problem.model(), problem.objective)

    def finish(self, key: Key, trained: Trained, problem: Problem, calibration: PyTree) -> Trained:
        """Remove the network's head, and fold in the statistics of the calibration images."""
        return Trained(frozen_encoder(problem.model(), trained.meta_params, calibration))
