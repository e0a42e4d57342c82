"""Settings that adaptive policies share, and the meta-updates that they are trained with."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.inner import DIFFERENTIATIONS
from jaxmeta.learners.control import linear_advantages
from jaxmeta.recipes.base import Engine, Recipe
from jaxmeta.recipes.inner_loop import Steps, Way
from jaxmeta.recipes.settings import AT_TEST, Count, Fraction, Positive, option
from jaxmeta.recipes.tasks import Problem
from jaxmeta.training.policy import proximal_update, trust_region_update
from jaxmeta.training.update import MetaUpdate

NAVIGATION: dict[str, Any] = {
    "inner_rate": 0.1,
    "later_rate": 0.5,
    "activation": "tanh",
    "task_batch": 20,
    "eval_episodes": 40,
    "steps": 150,
    "checkpoint_every": 25,
}
"""2-D navigation with the rates and the meta-batch of Finn et al. 2017, and the network of
pytorch-maml-rl, two layers of 64 tanh units (the paper has 100 ReLU); 150 meta-updates instead of
500, and the 4,000 steps of experience with which its code tests."""


@dataclass(frozen=True)
class Policy(Recipe):
    """A policy that is trained on experience gathered once for several steps; see `outer`."""

    outer: Literal["trpo", "ppo", "gradient"] = "ppo"
    """Meta-update. trpo: a trust-region step, without --outer-optimizer; ppo: --epochs passes over
    a batch of episodes; gradient: one step."""
    trust_region: Positive = 0.01
    """Largest KL divergence of a meta-update in nats, with --outer trpo."""
    curvature_fraction: Fraction = 1.0
    """Fraction of the tasks that the curvature of the KL divergence is measured on, with --outer
    trpo; fewer are faster."""
    epochs: Count = 5
    """Passes over a batch of episodes, with --outer ppo."""
    minibatches: Count = 1
    """Steps of the outer optimizer per pass, each on another part of the tasks, with --outer ppo;
    at most one per task. It must divide --task-batch."""

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        """The meta-update of `outer`.

        Raises:
          ValueError: another aggregate than the mean, with several steps; `minibatches` that do not
            divide the tasks.
        """
        training = engine.training
        if self.outer == "gradient":
            return engine.update(learner)
        if training.aggregate != "mean":
            raise ValueError(
                f"{option('aggregate', training.aggregate)} requires --outer gradient."
            )
        batch: dict[str, Any] = {
            "task_batch": training.task_batch,
            "tasks_at_once": engine.at_once,
            "mesh": engine.mesh,
        }
        if self.outer == "trpo":
            few = max(1, round(self.curvature_fraction * training.task_batch))
            return trust_region_update(
                learner, largest=self.trust_region, curvature_tasks=few, **batch
            )
        parts = min(self.minibatches, training.task_batch)
        if training.task_batch % parts:
            raise ValueError(
                f"--minibatches {self.minibatches} does not divide --task-batch "
                f"{training.task_batch}; choose a number that does."
            )
        return proximal_update(
            learner,
            training.optimizer(per_update=self.epochs * parts),
            epochs=self.epochs,
            minibatches=parts,
            **batch,
        )


@dataclass(frozen=True)
class AdaptivePolicy(Policy, Steps):
    """A policy that adapts by steps of policy gradients."""

    inner_rate: Positive = 0.1
    """Learning rate of the inner loop."""
    later_rate: Annotated[Fraction, AT_TEST] = 1.0
    """At test, the inner rate is multiplied by this after the first step."""
    discount: Fraction = 0.99
    """Discount of the advantages."""
    trace: Fraction = 1.0
    """λ of the generalised advantage estimates."""
    differentiation: Way = "second-order"
    """How to differentiate through the inner steps, as for maml."""

    def policy(self, problem: Problem) -> dict[str, Any]:
        """The arguments that adaptive policies share, by name."""
        rate: Any = self.inner_rate
        if not problem.train:
            rate = optax.piecewise_constant_schedule(rate, {1: self.later_rate})
        return {
            **self.inner(problem),
            "environment": problem.environment,
            "policy": problem.model(),
            "inner_optimizer": optax.sgd(rate),
            "episodes": problem.support,
            "advantages": linear_advantages(self.discount, self.trace),
            "differentiation": DIFFERENTIATIONS[self.differentiation],
        }
