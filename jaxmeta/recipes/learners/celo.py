"""Celo with its published weights on the command line: evaluated, not trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmeta.core import Carry, Info, Key, LearnerGrad, MetaLearner, PyTree, Task
from jaxmeta.learners.optimizers import (
    LearnedOptimizer,
    celo_optimizer,
    celo_weights,
    optimizer_learner,
)
from jaxmeta.learners.optimizers._pretrained import CELO_SHA256
from jaxmeta.recipes import Preset, Problem, Recipe, recipe


@recipe("celo", paper="Moudgil et al. 2025", kinds=("optimization",))
@dataclass(frozen=True)
class Celo(Recipe):
    """Celo (Moudgil et al. 2025): an optimizer trained by others. Its weights stay as published."""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "optimizers/*",
            {"steps": 1, "task_batch": 1, "validation_tasks": 2, "outer_optimizer": "sgd"},
        ),
    )

    def data(self) -> Mapping[str, Any]:
        return {"celo_sha256": CELO_SHA256}

    def build(self, problem: Problem) -> MetaLearner:
        weights, rule = celo_weights(), celo_optimizer(problem.horizon)
        published = LearnedOptimizer(lambda key: weights, rule.transformation, rule.value)
        learner = optimizer_learner(
            problem.encoder(),
            problem.objective,
            published,
            problem.horizon,
            problem_batch=problem.batch,
        )
        return learner._replace(grad=_without(learner)) if problem.train else learner


def _without(learner: MetaLearner) -> LearnerGrad:
    """A meta-gradient of 0: the published weights are not trained."""

    def grad(
        key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]:
        _, info = learner.loss(key, meta_params, task)
        return jax.tree.map(jnp.zeros_like, meta_params), info, carry

    return grad
