"""Celo with its published weights on the command line: evaluated, not trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.learners.optimizers import (
    LearnedOptimizer,
    celo_optimizer,
    celo_weights,
    optimizer_learner,
)
from jaxmeta.learners.optimizers._pretrained import CELO_SHA256
from jaxmeta.recipes import Preset, Problem, Recipe, recipe
from jaxmeta.recipes.base import Engine
from jaxmeta.training.update import MetaUpdate


@recipe("celo", paper="Moudgil et al. 2025", kinds=("optimization",))
@dataclass(frozen=True)
class Celo(Recipe):
    """Celo (Moudgil et al. 2025): an optimizer trained by others. Its weights stay as published."""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "optimizers/*",
            {"steps": 1, "task_batch": 1, "checkpoint_every": 1, "validation_tasks": 2},
        ),
    )

    def data(self) -> Mapping[str, Any]:
        return {"celo_sha256": CELO_SHA256}

    def build(self, problem: Problem) -> MetaLearner:
        weights, rule = celo_weights(), celo_optimizer(problem.horizon)
        published = LearnedOptimizer(lambda key: weights, rule.transformation, rule.value)
        return optimizer_learner(
            problem.encoder(),
            problem.objective,
            published,
            problem.horizon,
            problem_batch=problem.batch,
        )

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        return engine.update(learner, optax.set_to_zero())
