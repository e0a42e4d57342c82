"""Reptile on the command line."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.inner import adam
from jaxmeta.learners import reptile
from jaxmeta.recipes import Engine, Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Steps
from jaxmeta.recipes.settings import AT_TEST, Count, Natural, Positive
from jaxmeta.training.update import MetaUpdate

_OUTER = {"task_batch": 5, "outer_optimizer": "sgd", "outer_rate": 1.0, "outer_schedule": "linear"}


@recipe("reptile", paper="Nichol et al. 2018", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Reptile(Batches, Steps):
    """Reptile (Nichol et al. 2018): moves towards the adapted parameters."""

    inner_rate: Positive = 1e-3
    """Learning rate of the inner loop."""
    inner_steps: Natural = 5
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 50
    """Inner steps in evaluation."""
    inner_batch: Count | None = 10
    """Support examples per inner step, at most all of them."""
    inner_optimizer: Literal["sgd", "adam", "rmsprop"] = "rmsprop"
    """Optimizer of the inner loop. adam has β1 = 0 and starts anew in every task;
    rmsprop carries its second moments from task to task, as in the authors' code."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("*/*", _OUTER),
        Preset("few-shot/*", {"train_shots": 10, "train_queries": 1}),
        Preset("few-shot/default", {"steps": 1500}),
        presets.omniglot(
            "97.68 ± 0.04, 99.48 ± 0.06, 89.43 ± 0.14, 97.12 ± 0.32",
            wall_time="3 h on a CPU core",
            rotations="as-classes",
            steps=100_000,
            chunk=40,
        ),
        Preset(
            presets.TWENTY_WAYS,
            {"inner_rate": 5e-4, "inner_steps": 10, "inner_batch": 20, "steps": 200_000},
        ),
        Preset(
            "regression/*",
            {
                "inner_rate": 0.02,
                "inner_steps": 8,
                "inner_optimizer": "sgd",
                "eval_inner_steps": 32,
            },
        ),
    )

    def build(self, problem: Problem) -> MetaLearner:
        optimizer = {
            "sgd": optax.sgd,
            "adam": partial(adam, b1=0.0),
            # The second moments start well above squared gradients, so the first steps are small.
            "rmsprop": partial(optax.rmsprop, decay=0.999, initial_scale=1e-4, eps_in_sqrt=False),
        }[self.inner_optimizer](self.inner_rate)
        return reptile(
            problem.model(),
            problem.objective,
            inner_optimizer=optimizer,
            carry_optimizer_state=self.inner_optimizer == "rmsprop",
            **self.inner(problem),
        )

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        outer = engine.training
        plain = outer.outer_optimizer == "sgd" and outer.outer_rate <= 1
        if self.inner_optimizer == "rmsprop" and not plain:
            raise ValueError(
                f"--outer-optimizer {outer.outer_optimizer} --outer-rate {outer.outer_rate:g}: "
                "--inner-optimizer rmsprop carries second moments from task to task, which stay "
                "positive only with --outer-optimizer sgd and an --outer-rate of at most 1; give "
                "these, or --inner-optimizer adam."
            )
        return engine.update(learner)
