"""Meta-reinforcement learning: `python -m experiments.control [LEARNER]`.

A learner gathers episodes of an unknown process, adapts its policy, and is judged by the return of
new episodes.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Key, Model
from jaxmeta.data.control import (
    ant,
    cheetah_outline,
    corners,
    environment_tasks,
    from_gymnax,
    half_cheetah,
    navigation,
    observing_task,
    reacher,
    tabular,
)
from jaxmeta.environment import Environment
from jaxmeta.learners.control import outputs_of, policy_model
from jaxmeta.models import mlp
from jaxmeta.recipes import (
    Domain,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    domain,
)
from jaxmeta.recipes.rollouts import RETURN, SHARE, judge_of, policy_problem
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count, Natural, check_owned
from jaxmeta.training.estimates import estimate
from jaxmeta.training.state import draw

Film = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`film(observations [H, ...]) -> (outlines, distances moved)`, for `jaxmeta.plots.frames`."""


class _Family(NamedTuple):
    """An environment on the command line.

    Attributes:
      steps: steps of an episode, by default.
      make: `make(settings, steps) -> Environment`.
      settings: the names of the settings that apply to it alone.
      in_the_plane: whether its observation is a position that can be drawn.
      film: outlines of the robot along an episode, see `Film`.
    """

    steps: int
    make: Callable[["Control", int], Environment]
    settings: tuple[str, ...] = ()
    in_the_plane: bool = False
    film: Film | None = None


def _cheetah_film(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    outlines = jax.device_get(jax.jit(cheetah_outline())(observations))
    return outlines, 0.05 * np.cumsum(observations[:, 8])  # the velocity along x, every 0.05 s


_FAMILIES: dict[str, _Family] = {
    "navigation": _Family(100, lambda own, steps: navigation(horizon=steps), in_the_plane=True),
    "corners": _Family(
        100,
        lambda own, steps: corners(reward=own.reward, horizon=steps),
        settings=("reward",),
        in_the_plane=True,
    ),
    "tabular": _Family(
        10,
        lambda own, steps: tabular(own.states, own.actions, horizon=steps),
        settings=("actions", "states"),
    ),
    "pendulum": _Family(
        200,
        lambda own, steps: from_gymnax(
            "Pendulum-v1", {"m": (0.5, 2.0), "l": (0.5, 2.0)}, horizon=steps
        ),
    ),
    "cheetah-direction": _Family(
        100, lambda own, steps: half_cheetah(horizon=steps), film=_cheetah_film
    ),
    "cheetah-velocity": _Family(
        100, lambda own, steps: half_cheetah("velocity", horizon=steps), film=_cheetah_film
    ),
    "ant-direction": _Family(100, lambda own, steps: ant(horizon=steps)),
    "reacher": _Family(50, lambda own, steps: reacher(horizon=steps)),
}
_DRAWN_EPISODES = 3  # more of them hide each other
_FRAMES = 9
_SHORT: dict[str, Any] = {"task_batch": 20, "checkpoint_every": 50, "chunk": 5}
_SHORT |= {"validation_tasks": 40, "eval_tasks": 200}


@domain("control", kind="control")
@dataclass(frozen=True)
class Control(Domain):
    """Meta-train a policy and evaluate it on unseen processes."""

    environment: Literal[
        "navigation",
        "corners",
        "tabular",
        "pendulum",
        "cheetah-direction",
        "cheetah-velocity",
        "ant-direction",
        "reacher",
    ] = "navigation"
    """A point that moves to an unknown goal or corner, random tabular processes, pendulums of
    unknown mass and length, or robots with an unknown direction, velocity or goal."""
    episode_steps: Count | None = None
    """Steps per episode. Defaults to 100, to 10 for tabular, 200 for pendulum, 50 for reacher."""
    episodes: Count = 20
    """Episodes gathered before each adaptation step and after the last one; for rl-squared,
    episodes of a trial."""
    eval_episodes: Annotated[Count | None, AT_TEST] = None
    """--episodes in validation and at test. Defaults to --episodes."""
    reward: Literal["dense", "sparse"] = "sparse"
    """Reward of corners."""
    actions: AtLeastTwo = 5
    """Actions of tabular."""
    states: Count = 10
    """States of tabular."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers; not used by rl-squared, see --width."""
    activation: Literal["tanh", "relu"] = "relu"
    """Activation of the policy's hidden layers; not used by rl-squared."""
    observe_task: bool = False
    """Append the task to the observation, so that there is nothing to adapt to: an upper bound."""
    drawn_tasks: Natural = 4
    """Test tasks in the picture of trajectories or frames."""

    default_learner: ClassVar[str] = "promp"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("default", {**_SHORT, "steps": 300}),
        # Finn et al. 2017, section 5.3.
        Preset("navigation", {**_SHORT, "steps": 500}),
        Preset(
            "tabular",
            {
                **_SHORT,
                "environment": "tabular",
                "episodes": 10,
                "steps": 500,
                "task_batch": 256,
                "eval_tasks": 1000,
            },
        ),
        # 40,000 steps per meta-update, a quarter of the published ones.
        Preset(
            "cheetah-direction",
            {
                **_SHORT,
                "environment": "cheetah-direction",
                "activation": "tanh",
                "episodes": 10,
                "steps": 80,
                "checkpoint_every": 20,
            },
        ),
        # Rothfuss et al. 2019, appendix: 40 tasks, 20 episodes, tanh.
        Preset(
            "corners",
            {
                **_SHORT,
                "environment": "corners",
                "activation": "tanh",
                "steps": 500,
                "task_batch": 40,
            },
        ),
    )

    def check(self) -> None:
        """Check that no options of another environment are given."""
        check_owned(
            self, "environment", {name: family.settings for name, family in _FAMILIES.items()}
        )

    def default_preset(self) -> str:
        own = ("cheetah-direction", "corners", "tabular")
        return self.environment if self.environment in own else "default"

    def label(self) -> str:
        return self.environment

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        environment = _environment(self)
        actions = environment.actions
        activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[self.activation]

        def network(constants: Any, outputs: int | None) -> Model:
            size = outputs_of(actions) if outputs is None else outputs
            return policy_model(mlp(self.hidden, size, activation=activation), actions)

        return policy_problem(
            self.kind,
            environment,
            episodes=self.episodes if train else self._eval_episodes(),
            steps=training.steps,
            train=train,
            network=network,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        environment = _environment(self)
        source, judge = environment_tasks(environment), judge_of(environment)
        names = ("environment", *_FAMILIES[self.environment].settings)
        own = {name: getattr(self, name) for name in names}
        identity = {**own, "episode_steps": environment.horizon}
        if self.observe_task:
            identity["observe_task"] = True

        # The share is of all episodes, as RL² is trained and published, not of the last ones.
        figures = (RETURN,) if environment.optimum is None else (SHARE, RETURN)

        def held_out(part: str) -> HeldOut:
            return HeldOut(source, {**identity, "part": part}, judge=judge, at_once=10)

        return Tasks(
            train=lambda: source,
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=figures,
            selection=figures[0],
            title=self.environment,
            summary={"environment": self.environment},
            protocol={
                **identity,
                "episodes": self.episodes,
                "eval_episodes": self._eval_episodes(),
            },
            report=_report,
            draw=self._draw,
            extra_lines=_lines,
        )

    def _eval_episodes(self) -> int:
        return self.eval_episodes or self.episodes

    def _draw(self, made: Report) -> None:
        """Draw trajectories, or frames of robots, before and after the adaptation."""
        family = _FAMILIES[self.environment]
        if not self.drawn_tasks or not (family.in_the_plane or family.film):
            return
        test, learner, _ = made.test("test")
        keys = jax.random.split(made.key, self.drawn_tasks)

        def of_task(key: Key) -> Any:
            task, learn_key = draw(test.source, key)  # pyright: ignore[reportArgumentType]
            assert learner.rollout is not None
            lived = learner.rollout(learn_key, made.trained.meta_params, task)
            return task.query, lived.seen.observation, lived.mask

        # Task by task, since robots are slow to compile and to step in large batches.
        drawn = jax.jit(lambda keys: jax.lax.map(of_task, keys))(keys)
        tasks, observations, masks = jax.device_get(drawn)
        observations = observations[..., : _family_environment(self).observations.shape[0]]
        if family.film is None:
            _draw_trajectories(made, tasks, observations, masks)
        else:
            _draw_film(made, family.film, tasks, observations)


def _draw_trajectories(
    made: Report, goals: np.ndarray, positions: np.ndarray, masks: np.ndarray
) -> None:
    from jaxmeta import plots

    positions = np.where(masks[..., None] > 0, positions, np.nan)
    plots.trajectories(
        made.folder / "trajectories.png",
        goals,
        positions[:, 0, :_DRAWN_EPISODES],
        positions[:, -1, :_DRAWN_EPISODES],
        title=made.title,
    )


def _draw_film(made: Report, film: Film, tasks: np.ndarray, observations: np.ndarray) -> None:
    """One episode before and one after the adaptation to each task, in equally spaced frames."""
    from jaxmeta import plots

    outlines, moved = {}, {}
    for task, lived in zip(tasks, observations):
        for place, name in ((0, "before"), (-1, "after")):
            segments, distances = film(lived[place, 0])
            shown = np.linspace(0, len(segments) - 1, _FRAMES).astype(int)
            title = f"task {float(task):+.2g}, {name} adaptation"
            outlines[title], moved[title] = segments[shown], distances[shown]
    plots.frames(made.folder / "frames.png", outlines, moved, title=made.title)


@functools.cache  # the same functions for the same settings, which share compiled programs
def _environment(own: Control) -> Environment:
    environment = _family_environment(own)
    return observing_task(environment) if own.observe_task else environment


@functools.cache
def _family_environment(own: Control) -> Environment:
    family = _FAMILIES[own.environment]
    return family.make(own, own.episode_steps or family.steps)


def _report(made: Report) -> dict[str, Any]:
    """The returns after every adaptation, with intervals."""
    values = made.values["test"]["returns"]
    found = estimate(values)
    curve = {"return": found.mean.tolist(), "return_ci95": found.ci95.tolist()}
    return {"after_inner_steps": {**curve, "num_tasks": len(values)}}


def _lines(results: Mapping[str, Any]) -> list[str]:
    curve = results["after_inner_steps"]
    shown = [f"{m:.4g} ± {c:.2g}" for m, c in zip(curve["return"], curve["return_ci95"])]
    if len(shown) > 10:
        shown = [*shown[:3], "…", *shown[-3:]]
    return [f"return after 0, 1, ... adaptations: {', '.join(shown)}"]
