"""What domains of policies share: the problem, the judge of a rollout, and its returns."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, MetaLearner, Model, Task
from jaxmeta.data.control import environment_tasks
from jaxmeta.environment import Environment
from jaxmeta.learners.control import outputs_of, returns
from jaxmeta.learners.control.policy_gradient import no_objective
from jaxmeta.recipes.tasks import Figure, Judge, Problem
from jaxmeta.training.update import Trained

RETURN = Figure("return", higher=True)
SHARE = Figure("share", "share of the largest return", higher=True)


def policy_problem(
    kind: str, environment: Environment, *, episodes: int, steps: int, train: bool, network: Any
) -> Problem:
    """The problem of an environment; `network(constants, outputs)` is the policy."""
    task = jax.eval_shape(environment_tasks(environment), jax.random.key(0))

    return Problem(
        kind=kind,
        train=train,
        example=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), task),
        objective=no_objective,
        network=network,
        outputs=outputs_of(environment.actions),
        support=episodes,
        horizon=environment.horizon,
        steps=steps,
        environment=environment,
    )


def no_network(constants: Any, outputs: int | None) -> Model:
    """In place of a network, for learners that have their own."""
    raise ValueError("these tasks require a learner with a network of its own.")


def judge_of(environment: Environment) -> Judge:
    """Minus the return after adaptation as the loss, and all returns and rewards as metrics.

    `returns` are the mean returns after 0, 1, 2, ... adaptations, `rewards` those of their steps;
    `share` is the mean return of all episodes as a share of the optimum, if that is known.
    """

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        assert learner.rollout is not None, "policies have a rollout"
        episodes = learner.rollout(key, trained.meta_params, task)
        of_adaptations = returns(episodes).mean(axis=1)
        metrics = {
            "return": of_adaptations[-1],
            "return_before": of_adaptations[0],
            "returns": of_adaptations,
            "rewards": episodes.rewards.mean(axis=1),
        }
        if environment.optimum is not None:
            metrics["share"] = of_adaptations.mean() / environment.optimum(task.query)
        return -of_adaptations[-1], metrics

    return judge
