"""Models of unknown dynamics: `python -m experiments.dynamics [LEARNER]`.

A learner predicts the next observation of a pendulum of unknown mass and length, or of a robot with
one disabled motor, from its last steps; the process is controlled by planning with that model.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, MetaLearner, Task, squared_error, valid_mask
from jaxmeta.data.control import Scales, explored, pooled_windows, transition_windows
from jaxmeta.data.samplers import Sampler
from jaxmeta.environment import Environment
from jaxmeta.learners.control import Planner, cross_entropy_method, random_shooting
from jaxmeta.learners.process.gaussian import mean_of
from jaxmeta.models import mlp
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Report, Tasks, Training, domain
from jaxmeta.recipes.dynamics_models import (
    ModelOf,
    episode_return,
    learned_model,
    open_loop_errors,
    regression_model,
)
from jaxmeta.recipes.dynamics_processes import FAMILIES
from jaxmeta.recipes.dynamics_report import (
    ADAPTED,
    FEATURES,
    TRUE,
    UNADAPTED,
    compared,
    draw_processes,
    first,
    open_loop,
    returns_of,
    tuned_regression,
)
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count, Natural, check_owned, option
from jaxmeta.recipes.tasks import Figure
from jaxmeta.training.estimates import estimate
from jaxmeta.training.state import Trained, shared_of

Range = tuple[float, float]
ERROR = Figure("one_step_error", "one-step error")
_SKIPPED = 100  # largest number of steps before a window
_EXPLORING = 2**20  # folded into the seed's key for the trajectories of training


@dataclass(frozen=True)
class Windows:
    """The steps of a task."""

    recent: Count = 16
    """Number of recent steps that the model adapts to; training tasks have a random number from 0
    to this."""
    queries: Count = 16
    """Number of following steps to predict, each from the true observation."""
    open_loop: Annotated[Count, AT_TEST] = 10
    """Number of steps to predict ahead without seeing a step, at most --queries."""
    trajectories: Natural = 0
    """Trajectories that training windows are drawn from, explored once before training; 0 to
    explore a new one for every window. For processes that are slow to simulate."""


@dataclass(frozen=True)
class Planning:
    """The control of test tasks by planning."""

    planner: Annotated[Literal["cem", "shooting"], AT_TEST] = "cem"
    """Cross-entropy method, or random shooting."""
    plan_steps: Annotated[Count, AT_TEST] = 20
    """Steps to plan ahead."""
    candidates: Annotated[Count, AT_TEST] = 100
    """Sequences of actions per iteration of the planner."""
    elites: Annotated[AtLeastTwo, AT_TEST] = 10
    """Number of best sequences to which the next iteration is fitted, with --planner cem."""
    iterations: Annotated[Count, AT_TEST] = 4
    """Iterations of --planner cem."""
    planning_tasks: Annotated[Natural, AT_TEST] = 100
    """Number of test tasks that are controlled; 0 for none, else at least 2."""
    episode_steps: Annotated[Count, AT_TEST] = 200
    """Steps of a controlled episode."""
    tuning_tasks: Annotated[AtLeastTwo, AT_TEST] = 200
    """Number of other tasks on which least squares on generic features is tuned."""


@domain("dynamics", kind="regression")
@dataclass(frozen=True)
class Dynamics(Domain):
    """Meta-train a model of unknown dynamics, and plan with it on unseen processes."""

    environment: Literal["pendulum", "cheetah"] = "pendulum"
    """Pendulums of unknown mass and length, or half-cheetahs with one disabled motor: of joints 0
    to 3 in training, 4 and 5 at test."""
    mass: Range = (0.5, 2.0)
    """Range of the pendulum's mass, in kg."""
    length: Range = (0.5, 2.0)
    """Range of the pendulum's length, in m."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network's hidden layers; not used by neural processes."""
    windows: Windows = field(default_factory=Windows)
    planning: Planning = field(default_factory=Planning)

    default_learner: ClassVar[str] = "alpaca"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 10_000,
                "task_batch": 32,
                "outer_schedule": "cosine",
                "checkpoint_every": 1000,
                "chunk": 100,
                "validation_tasks": 500,
            },
        ),
        Preset(
            "cheetah",
            {
                "environment": "cheetah",
                "steps": 10_000,
                "task_batch": 32,
                "outer_schedule": "cosine",
                "checkpoint_every": 1000,
                "chunk": 100,
                "validation_tasks": 100,
                "eval_tasks": 200,
                "trajectories": 1000,
                "hidden": (128, 128),
                "planning_tasks": 10,
                "plan_steps": 10,
                "episode_steps": 100,
                "iterations": 2,
            },
        ),
    )

    def check(self) -> None:
        """Check the sizes of the windows and of the planning."""
        own, planning = self.windows, self.planning
        if own.open_loop > own.queries:
            raise ValueError(
                f"{option('open_loop', own.open_loop)} exceeds {option('queries', own.queries)}."
            )
        if planning.planner == "cem" and planning.elites > planning.candidates:
            raise ValueError(
                f"{option('elites', planning.elites)} exceeds "
                f"{option('candidates', planning.candidates)}."
            )
        if planning.planning_tasks == 1:
            raise ValueError(f"{option('planning_tasks', 1)}: give 0, or at least 2.")
        family = FAMILIES[self.environment]
        if family.longest is not None and planning.episode_steps > family.longest:
            raise ValueError(
                f"{option('episode_steps', planning.episode_steps)}: give 1 to {family.longest}."
            )
        check_owned(self, "environment", {name: other.settings for name, other in FAMILIES.items()})
        for name in ("mass", "length"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{option(name, (low, high))}: give 0 < low ≤ high.")

    def default_preset(self) -> str:
        return self.environment if self.environment == "cheetah" else "default"

    def label(self) -> str:
        return self.environment

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        scales = FAMILIES[self.environment].scales
        observations = len(scales.observation)
        inputs = observations + len(scales.action)

        def batch(steps: int) -> Batch:
            return Batch(jnp.zeros((steps, inputs)), jnp.zeros((steps, observations)))

        support, query = batch(self.windows.recent), batch(self.windows.queries)
        return Problem(
            kind="regression",
            train=train,
            example=Task(support._replace(mask=valid_mask(None, self.windows.recent)), query),
            objective=squared_error,
            network=lambda constants, outputs: mlp(self.hidden, outputs or self.hidden[-1]),
            outputs=observations,
            support=self.windows.recent,
            steps=training.steps,
            context_layer="hidden_0/bias",
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        family, windows, planning = FAMILIES[self.environment], self.windows, self.planning
        scales, steps = family.scales, planning.episode_steps
        of_training, of_test = (family.make(self, steps, test) for test in (False, True))

        def source(environment: Environment) -> Sampler:
            """Windows that are judged, with all of the last steps."""
            recent = (windows.recent, windows.recent)
            return transition_windows(environment, scales, recent=recent, queries=windows.queries)

        def train() -> Sampler:
            # From no step on: a model is used from the beginning of an episode, too.
            sizes: dict[str, Any] = {"recent": (0, windows.recent), "queries": windows.queries}
            if not windows.trajectories:
                return transition_windows(of_training, scales, **sizes)
            key = jax.random.fold_in(jax.random.key(training.seed), _EXPLORING)
            pool = explored(
                key,
                of_training,
                scales,
                trajectories=windows.trajectories,
                steps=_SKIPPED + windows.recent + windows.queries,
            )
            return pooled_windows(pool, **sizes)

        judge = functools.partial(_judge, scales=scales, steps=windows.open_loop)
        own = {name: getattr(self, name) for name in ("environment", *family.settings)}
        sizes = {"recent": windows.recent, "queries": windows.queries}
        identity = {**own, **family.protocol, **sizes}
        named = {f"{name}_scale": list(values) for name, values in scales._asdict().items()}
        found: dict[str, np.ndarray] = {}  # from the report to the picture

        def held_out(environment: Environment, part: str) -> HeldOut:
            return HeldOut(source(environment), {**identity, "part": part}, judge=judge)

        def report(made: Report) -> dict[str, Any]:
            models = _models(self, made, source(of_training))
            judged, controlled = len(made.values["test"]["loss"]), planning.planning_tasks
            # The i-th key does not depend on the number of keys.
            keys = jax.random.split(made.key, max(judged, controlled))
            drawn = draw_processes(made.tests["test"].source, keys)
            predicting = {n: own for n, own in models.items() if n != TRUE or not family.exact}
            some, ahead = first(drawn, judged), windows.open_loop
            found.update(open_loop(made.trained, predicting, some, scales, ahead))
            rows = {name: plain({"error": estimate(own)}) for name, own in found.items()}
            results: dict[str, Any] = {"open_loop": rows}
            if controlled:
                play = functools.partial(
                    episode_return,
                    of_test,
                    reward=family.reward,
                    plan=planner_of(planning, scales),
                    scales=scales,
                    recent=windows.recent,
                    horizon=planning.plan_steps,
                )
                some = first(drawn, controlled)
                returns = returns_of(made.trained, models, some, play, made.say)
                results["control"] = {"models": compared(returns), "num_tasks": controlled}
            return results

        def draw_errors(made: Report) -> None:
            from jaxmeta import plots

            plots.prediction_errors(made.folder / "open-loop.png", found, title=made.title)

        return Tasks(
            train=train,
            validation=lambda: held_out(of_training, "validation"),
            tests={"test": held_out(of_test, "test")},
            figures=(ERROR,),
            selection=ERROR,
            title=f"{self.environment} · last {windows.recent} steps",
            summary={"environment": self.environment},
            protocol={
                **identity,
                **named,
                "trajectories": windows.trajectories,
                "open_loop": windows.open_loop,
                "control": dataclasses.asdict(planning),
                "query_statistics": "none",
            },
            report=report,
            draw=draw_errors,
            extra_lines=_lines,
        )


def _judge(
    key: Key, learner: MetaLearner, trained: Trained, task: Task, *, scales: Scales, steps: int
) -> tuple[Array, Mapping[str, Array]]:
    """The learner's loss, and the errors of its predictions one and several steps ahead.

    `one_step_error` is the root mean square over the query, in units of `Scales.change`;
    `open_loop_error` is that of the last of `steps` steps ahead, see `open_loop_errors`.
    """
    shared = shared_of(learner, trained)
    loss, info = learner.loss(key, trained.meta_params, task, **shared)
    query, errors = task.query, {}
    for name, adapts in (("", True), ("_unadapted", False)):
        model = learned_model(learner, trained, scales, adapts=adapts)
        adapted = model.adapt(key, task.support)
        residuals = mean_of(learner.predict(adapted, query.inputs)) - query.targets
        errors[f"one_step_error{name}"] = jnp.sqrt(jnp.square(residuals).mean())
        ahead = open_loop_errors(model, adapted, query, scales, steps)
        errors[f"open_loop_error{name}"] = ahead[-1]
    return loss, {**info.metrics, **errors}


def _models(own: Dynamics, made: Report, tuned_on: Sampler) -> dict[str, ModelOf]:
    """The models by name, each `model(trained, process) -> DynamicsModel`.

    The features and the ridge of least squares are chosen on processes of the training.
    """
    family, learner = FAMILIES[own.environment], made.learners["test"]
    scales, identified, simulated = family.scales, family.identified, family.simulate()
    other = jax.random.split(jax.random.fold_in(made.key, 1), own.planning.tuning_tasks)
    drawn = draw_processes(tuned_on, other)
    name, ridge = tuned_regression(drawn, scales, own.windows.open_loop)
    made.say(f"least squares on generic features, tuned: {name}, ridge {ridge:g}.")
    models: dict[str, ModelOf] = {
        UNADAPTED: lambda trained, _: learned_model(learner, trained, scales, adapts=False),
        ADAPTED: lambda trained, _: learned_model(learner, trained, scales, adapts=True),
        "least squares, generic features": lambda *_: regression_model(
            FEATURES[name], ridge, scales
        ),
    }
    if identified is not None:
        models["least squares, right features"] = lambda *_: identified
    return {**models, TRUE: lambda _, process: simulated(process)}


def planner_of(planning: Planning, scales: Scales) -> Planner:
    """The planner of the settings."""
    if planning.planner == "shooting":
        return random_shooting(planning.candidates, scales.action)
    return cross_entropy_method(
        planning.candidates,
        scales.action,
        elites=planning.elites,
        iterations=planning.iterations,
    )


def _lines(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, row in results["open_loop"].items():
        shown = [row["error"][0], row["error"][-1]]
        lines.append(
            f"{name}: error {shown[0]:.3g} after 1 step, {shown[1]:.3g} ± "
            f"{row['error_ci95'][-1]:.2g} after {len(row['error'])}"
        )
    for name, row in results.get("control", {"models": {}})["models"].items():
        lines.append(
            f"{name}: return {row['return']:.4g} ± {row['return_ci95']:.2g}, "
            f"{100 * row['gap_closed']:.3g} ± {100 * row['gap_closed_ci95']:.2g} % of the gap"
        )
    return lines
