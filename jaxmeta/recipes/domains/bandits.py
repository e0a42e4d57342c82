"""Bernoulli bandits: `python -m experiments.bandits [LEARNER]`.

A learner pulls the arms of an unknown bandit, and is compared with Thompson sampling and UCB1 on
the same bandits.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxmeta.data.control import bandits, environment_tasks
from jaxmeta.environment import Environment
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Report, Tasks, Training, domain
from jaxmeta.recipes.bandit_rivals import Rivals, comparison, rivals
from jaxmeta.recipes.rollouts import RETURN, judge_of, no_network, policy_problem
from jaxmeta.recipes.settings import AtLeastTwo, Count
from jaxmeta.training.state import draw_keys


@domain("bandits", kind="bandits")
@dataclass(frozen=True)
class Bandits(Domain):
    """Meta-train a policy for bandits and compare it with Thompson sampling and UCB1."""

    arms: AtLeastTwo = 5
    """Number of arms."""
    pulls: Count = 100
    """Pulls per bandit."""
    tuning_tasks: AtLeastTwo = 1000
    """Number of other bandits on which the coefficient of UCB1 is tuned."""

    default_learner: ClassVar[str] = "rl-squared"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 2000,
                "task_batch": 256,
                "checkpoint_every": 100,
                "chunk": 10,
                "outer_schedule": "linear",
            },
        ),
    )

    def label(self) -> str:
        return f"{self.arms}-arms-{self.pulls}-pulls"

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        return policy_problem(
            self.kind,
            _environment(self.arms, self.pulls),
            episodes=1,
            steps=training.steps,
            train=train,
            network=no_network,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        environment = _environment(self.arms, self.pulls)
        source, judge = environment_tasks(environment), judge_of(environment)
        identity = {"arms": self.arms, "pulls": self.pulls}
        found: list[Rivals] = []  # from the report to the picture

        def held_out(part: str) -> HeldOut:
            return HeldOut(source, {**identity, "part": part}, judge=judge, at_once=100)

        def report(made: Report) -> dict[str, Any]:
            learned = made.values["test"]["rewards"][:, -1]
            made.say("playing Thompson sampling and UCB1.")
            found[:] = [rivals(environment, source, made.key, len(learned), self.tuning_tasks)]
            return {"comparison": comparison(learned, found[0])}

        def draw_regret(made: Report) -> None:
            from jaxmeta import plots

            count = len(made.values["test"]["loss"])
            best = jax.vmap(lambda key: source(draw_keys(key)[0]).query.max())
            largest = np.asarray(jax.jit(best)(jax.random.split(made.key, count)))
            rewards = {"learned": made.values["test"]["rewards"][:, -1], **found[0].rewards}
            curves = {
                name: np.cumsum(largest[:, None] - own, axis=1) for name, own in rewards.items()
            }
            plots.regret_curves(made.folder / "regret.png", curves, title=made.title)

        return Tasks(
            train=lambda: source,
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(RETURN,),
            selection=RETURN,
            title=f"{self.arms} arms · {self.pulls} pulls",
            summary={"arms": self.arms, "pulls": self.pulls},
            protocol=identity,
            report=report,
            draw=draw_regret,
            extra_lines=_lines,
        )


@functools.cache  # the same functions for the same settings, which share compiled programs
def _environment(arms: int, pulls: int) -> Environment:
    return bandits(arms, horizon=pulls)


def _lines(results: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {row['return']:.4g} ± {row['return_ci95']:.2g}, learned minus this "
        f"{row['learned_minus_this']:.3g} ± {row['learned_minus_this_ci95']:.2g}"
        for name, row in results["comparison"].items()
    ]
