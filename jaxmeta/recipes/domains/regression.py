"""Regression of curves and of images: `python -m experiments.regression [LEARNER]`."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Task, squared_error, valid_mask
from jaxmeta.data import Dataset, gaussian_curves, image_completion, load, sinusoids
from jaxmeta.data.identity import Seen
from jaxmeta.data.images.dataset import classes_of, unseen
from jaxmeta.data.synthetic import sinusoid_curve, sinusoid_parameters
from jaxmeta.data.synthetic.gaussian_processes import KernelKind, kernel_of, posterior
from jaxmeta.data.tables import read_numbers
from jaxmeta.learners.process import Gaussian, gaussian_likelihood
from jaxmeta.learners.process.gaussian import LEAST_STD
from jaxmeta.models import mlp
from jaxmeta.recipes import Domain, Preset, Training, UserTask, domain
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count, check_chosen, option
from jaxmeta.recipes.tasks import Figure, HeldOut, Needs, Problem, Report, Tasks
from jaxmeta.training.estimates import estimates
from jaxmeta.training.feed import Source
from jaxmeta.training.state import draw_keys, shared_of

Range = tuple[float, float]


@dataclass(frozen=True)
class Points:
    """The points of a task."""

    shots: Annotated[Count, AT_TEST] = 5
    """Support points per test task, for sinusoids."""
    queries: Annotated[Count, AT_TEST] = 100
    """Query points per test task, for sinusoids and gp; all pixels for images."""
    train_shots: Count | None = None
    """Support points per training task, for sinusoids. Defaults to the test value."""
    train_queries: Count | None = None
    """Query points per training task. Defaults to the test value."""
    points: tuple[int, int] = (3, 10)
    """Smallest and largest number of support points per task, for gp and images."""


@dataclass(frozen=True)
class Sinusoids:
    """Sine waves."""

    amplitude: Range = (0.1, 5.0)
    """Range of the amplitude."""
    phase: Range = (0.0, math.pi)
    """Range of the phase, in radians."""
    frequency: Range = (1.0, 1.0)
    """Range of the angular frequency; 1 for all curves in the MAML paper."""
    domain: Range = (-5.0, 5.0)
    """Range of x."""


@dataclass(frozen=True)
class Processes:
    """Curves of Gaussian processes."""

    kernel: KernelKind = "rbf"
    """The covariance function."""
    kernel_length: Range = (0.4, 0.4)
    """Range of the length scale."""
    kernel_scale: Range = (1.0, 1.0)
    """Range of the curves' standard deviation."""
    kernel_period: Range = (1.0, 1.0)
    """Range of the period, for periodic kernels; x is from -2 to 2."""
    noise: float = 0.02
    """Standard deviation of the observation noise."""


@dataclass(frozen=True)
class Completions:
    """Images to complete."""

    dataset: Annotated[str, PLACE] = "glyphs"
    """As in `experiments.few_shot`; images are converted to grey."""


_CURVES = {"task_batch": 25, "train_shots": 10, "train_queries": 10, "checkpoint_every": 5000}
_CURVES |= {"chunk": 500}
_FIVE = {"train_shots": 5, "train_queries": 5}
_GP: dict[str, Any] = {"task": "gp", "steps": 20_000, "task_batch": 64, "queries": 50}
_GP |= {"outer_schedule": "cosine", "checkpoint_every": 2000, "chunk": 100}
_RANDOM_KERNELS = {"kernel_length": (0.1, 0.6), "kernel_scale": (0.1, 1.0)}
_IMAGES = {"task": "images", "train_queries": 200, "steps": 5000, "checkpoint_every": 500}


@domain("regression", kind="regression")
@dataclass(frozen=True)
class Regression(Domain):
    """Meta-train a regressor of curves or images and evaluate it on unseen ones."""

    task: Literal["sinusoids", "gp", "images"] = "sinusoids"
    """Sine waves, curves of Gaussian processes, or images as functions of the pixel position.
    Without --preset, gp and images start from the presets gp and completion."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the network's hidden layers; not used by neural processes."""
    points: Points = field(default_factory=Points)
    sinusoids: Sinusoids = field(default_factory=Sinusoids)
    gp: Processes = field(default_factory=Processes)
    images: Completions = field(default_factory=Completions)

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("default", {**_CURVES, "steps": 20_000}, wall_time="1 min on 2 CPU cores"),
        # MAML's sinusoids: K = 10 in training, one inner step of rate 1e-3 (as in the authors'
        # code), tested at K = 5 with up to 10 steps.
        Preset("sinusoid", {**_CURVES, "steps": 70_000}, wall_time="1 min on 2 CPU cores"),
        # Meta-SGD's: one inner step at test too (Li et al. 2017, section 4.1).
        Preset(
            "sinusoid-frequency",
            {**_CURVES, "frequency": (0.8, 1.2), **_FIVE, "steps": 60_000},
            wall_time="1 min on 2 CPU cores",
        ),
        # Garnelo et al. 2018, section 4.1: there 200,000 steps of Adam 1e-4.
        Preset("gp", _GP, wall_time="10 min on a CPU core"),
        # Kim et al. 2019, section 4.1: there 100,000 steps.
        Preset(
            "gp-random",
            {**_GP, **_RANDOM_KERNELS, "points": (3, 50), "task_batch": 16},
            wall_time="10 min on a CPU core",
        ),
        # Garnelo et al. 2018, section 4.2: letters completed from 10 to 300 of their 784 pixels.
        Preset(
            "completion",
            {**_GP, **_IMAGES, "points": (10, 300), "task_batch": 16, "chunk": 50},
            wall_time="10 min on a CPU core",
        ),
    )

    def default_preset(self) -> str:
        return {"gp": "gp", "images": "completion"}.get(self.task, "default")

    def check(self) -> None:
        """Check that no options of another task are given."""
        check_chosen(self, self.task, {name: name for name in ("sinusoids", "gp", "images")})
        own, default = self.points, Points()
        if self.task == "sinusoids" and own.points != default.points:
            raise ValueError(f"{option('points', own.points)}: sinusoids require --shots instead.")
        for name in ("shots", "train_shots"):
            value = getattr(own, name)
            if self.task != "sinusoids" and value != getattr(default, name):
                raise ValueError(
                    f"{option(name, value)}: tasks with a random number of points require --points "
                    "instead."
                )

    def resolved(self) -> "Regression":
        shots, queries = self._sizes(True)
        sizes = {"train_shots": shots if self.task == "sinusoids" else self.points.train_shots}
        points = dataclasses.replace(self.points, **sizes, train_queries=queries)
        return dataclasses.replace(self, points=points)

    def label(self) -> str:
        names = {"gp": f"gp-{self.gp.kernel}", "images": Path(self.images.dataset).name}
        return names.get(self.task, f"sinusoid-{self.points.shots}s")

    def _sizes(self, train: bool) -> tuple[int, int]:
        """The numbers of support points (the largest, where it varies) and of query points."""
        own = self.points
        shots = own.train_shots if train and own.train_shots else own.shots
        queries = own.train_queries if train and own.train_queries else own.queries
        return (shots if self.task == "sinusoids" else own.points[1]), queries

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        shape = data.get("image_shape")
        places, values = (1, 1) if shape is None else (2, shape[-1])

        def batch(examples: int) -> Batch:
            return Batch(jnp.zeros((examples, places)), jnp.zeros((examples, values)))

        support, query = map(batch, self._sizes(True))
        if self.task != "sinusoids":
            support = support._replace(mask=valid_mask(None, len(support.inputs)))
        return Problem(
            kind="regression",
            train=train,
            example=Task(support, query),
            objective=squared_error,
            network=lambda constants, outputs: mlp(self.hidden, outputs or self.hidden[-1]),
            outputs=1,
            support=self._sizes(train)[0],
            steps=training.steps,
            context_layer="hidden_0/bias",
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset = self._load(training.seed, needs.seen)
        data: dict[str, Any] = {}
        if dataset is not None:
            data = {
                "image_shape": list(dataset.train.images.shape[1:]),
                "images_sha256": dataset.protocol["images_sha256"],
            }
        group = dataclasses.asdict(self)[self.task]
        points, (shots, queries) = list(self.points.points), self._sizes(True)
        sizes = {"points": points} if self.task != "sinusoids" else {"shots": shots}
        identity = {**data, **group, "sizes": self._sizes(False), "points": points}

        def held_out(part: str) -> HeldOut:
            few = None if dataset is None else 200
            own = {**identity, "part": part}
            return HeldOut(self._source(dataset, part), own, trajectory_tasks=few)

        if self.task == "sinusoids":
            name, shown = "sinusoids", f"{self.points.shots}-shot"
            described: dict[str, Any] = dict(zip(("shots", "queries"), self._sizes(False)))
        else:
            name = f"gp {self.gp.kernel}" if dataset is None else self.images.dataset
            shown, described = f"{points[0]} to {points[1]} points", {"points": points}
        return Tasks(
            train=lambda: self._source(dataset, "train"),
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(
                Figure("log_likelihood", "log-likelihood", higher=True),
                Figure("loss", "mean squared error"),
            ),
            title=f"{Path(name).name} · {shown}",
            summary={"dataset": name, **described},
            protocol={
                "train_episode": {**sizes, "queries": queries},
                **{name: value for name, value in group.items() if name != "dataset"},
                **({"points": points} if self.task != "sinusoids" else {"hidden": self.hidden}),
                "query_statistics": "none",
                **({} if dataset is None else dataset.protocol),
            },
            data=data,
            classes=None if dataset is None else partial(classes_of, dataset),
            report=_oracle if self.task == "gp" else None,
            draw=self._draw,
            extra_lines=_oracle_lines,
        )

    def _load(self, seed: int, seen: Seen) -> Dataset | None:
        """The images to complete, in grey; None if the task is curves."""
        if self.task != "images":
            return None
        dataset = load(self.images.dataset, rotations="none", seed=seed)
        if dataset.channels > 1:
            dataset = load(self.images.dataset, rotations="none", color=False, seed=seed)
        return unseen(dataset, seen)

    def _source(self, dataset: Dataset | None, part: str) -> Source:
        shots, queries = self._sizes(part == "train")
        points = self.points.points
        if self.task == "gp":
            return gaussian_curves(points=points, queries=queries, **dataclasses.asdict(self.gp))
        if dataset is not None:
            # All pixels are query points at test, some of them in training.
            judged = queries if part == "train" else None
            return image_completion(getattr(dataset, part), points=points, queries=judged)
        return sinusoids(shots=shots, queries=queries, **dataclasses.asdict(self.sinusoids))

    def _draw(self, made: Report) -> None:
        """Draw one test task with the learner's predictions."""
        from jaxmeta import plots

        test, learner, (task, sample_key, learn_key) = made.test("test")
        meta_params, path = made.trained.meta_params, made.folder / "episode.png"
        shared = shared_of(learner, made.trained)

        def predict(support: Batch, inputs: Array) -> Any:
            adapted = learner.adapt(learn_key, meta_params, support, **shared)
            return learner.predict(adapted, inputs)

        uncertain = "log_likelihood" in made.values["test"]
        if uncertain and self.task == "images":
            draw_completion(path, task, jax.jit(predict), f"{made.title}: one test image")
        elif uncertain:
            x = jnp.linspace(task.query.inputs.min(), task.query.inputs.max(), 200)[:, None]
            oracle = None
            if self.task == "gp":
                oracle = _band(posterior(kernel_of(test.source, sample_key), task.support, x))  # pyright: ignore[reportArgumentType]
            plots.process_episode(
                path,
                np.asarray(x)[:, 0],
                _band(jax.jit(predict)(task.support, x)),
                _real_points(task.support),
                _real_points(task.query),
                oracle=oracle,
                title=f"{made.title}: one test curve",
            )
        elif self.task == "sinusoids" and learner.trajectory is not None:
            x = jnp.linspace(*self.sinusoids.domain, 200)[:, None]
            given = (learn_key, meta_params, task.support, x)
            fits = np.asarray(learner.trajectory(*given, **shared))
            names = ("inner_steps", "eval_inner_steps")
            steps = sorted({0, *(getattr(made.recipe, name, 0) for name in names)})
            ranges = dataclasses.asdict(self.sinusoids)
            ranges.pop("domain")
            plots.curve_episode(
                path,
                np.asarray(x)[:, 0],
                np.asarray(sinusoid_curve(sinusoid_parameters(sample_key, **ranges), x))[:, 0],
                np.asarray(task.support.inputs)[:, 0],
                np.asarray(task.support.targets)[:, 0],
                {step: fits[step][:, 0] for step in steps if step < len(fits)},
                title=f"{made.title}: one test curve",
            )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read tables of numbers (CSV): inputs and values in the support, inputs in the query."""
        places = 2 if "image_shape" in data else 1
        known, asked = read_numbers(support, places + 1), read_numbers(query, places)
        return UserTask(
            support=Batch(known[:, :places], known[:, places:]),
            inputs=asked,
            rows=[" ".join(map(str, row)) for row in asked.tolist()],
            names=[],
        )


def _oracle(made: Report) -> dict[str, Any]:
    """The exact posterior on the test tasks: an upper bound for every learner.

    It uses the kernel and the noise of each task, which a learner has to infer. `lead` is its
    log-likelihood minus the learner's. A learner's standard deviations are at least 0.1; `floor`
    is the log-likelihood that the posterior loses under the same bound, and so the part of `lead`
    that no learner can make up. Intervals are of the differences.
    """
    test, learned = made.tests["test"], made.values["test"]

    def of_task(sample: Any, key: Array) -> dict[str, Array]:
        task_key, _ = draw_keys(key)
        task = sample(task_key)
        mean, std = posterior(kernel_of(sample, task_key), task.support, task.query.inputs)
        exact, floored = (
            gaussian_likelihood(Gaussian(mean, own), task.query.targets)[1]
            for own in (std, jnp.maximum(std, LEAST_STD))
        )
        return {**exact, "floor": exact["log_likelihood"] - floored["log_likelihood"]}

    @jax.jit
    def of_tasks(sample: Any, keys: Array) -> dict[str, Array]:
        return jax.lax.map(lambda key: of_task(sample, key), keys)

    count = len(learned["loss"])
    # The keys of the evaluation: the i-th does not depend on the number of keys.
    found = jax.device_get(of_tasks(test.source, jax.random.split(made.key, count)))
    if "log_likelihood" in learned:
        found["lead"] = found["log_likelihood"] - learned["log_likelihood"]
    return {"oracle": plain(estimates(found))}


def _oracle_lines(results: Mapping[str, Any]) -> list[str]:
    if "lead" not in results.get("oracle", {}):
        return []
    exact, lead = (
        Figure(name, label).show(results["oracle"][name], results["oracle"][f"{name}_ci95"])
        for name, label in (("log_likelihood", "log-likelihood"), ("lead", "above the learner by"))
    )
    return [f"the exact posterior: {exact}, {lead}"]


def _band(found: Any) -> tuple[np.ndarray, np.ndarray]:
    mean, std = found
    return np.asarray(mean)[:, 0], np.asarray(std)[:, 0]


def _real_points(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    real = np.asarray(valid_mask(batch.mask, len(batch.inputs)))
    return np.asarray(batch.inputs)[real, 0], np.asarray(batch.targets)[real, 0]


def draw_completion(path: Path, task: Task, predict: Any, title: str) -> None:
    """Draw an image completed from 10, 50, 100 and 300 pixels, up to the size of the support."""
    from jaxmeta import plots

    support, query = jax.device_get(task)
    image, most = query.targets[:, 0], len(support.inputs)
    side = len(np.unique(query.inputs[:, 0]))
    order = np.random.default_rng(0).permutation(len(image))[:most]
    contexts = {
        count: Batch(query.inputs[order], query.targets[order], jnp.arange(most) < count)
        for count in (10, 50, 100, 300)
        if count <= most
    } or {int(support.mask.sum()): support}  # the support has fewer than 10: all of it
    rows = {}
    for count, context in contexts.items():
        shown = context.inputs[np.asarray(context.mask)]
        known = (query.inputs[:, None] == shown[None]).all(axis=-1).any(axis=1)
        values = (known, *_band(predict(context, query.inputs)))
        rows[count] = tuple(array.reshape(side, -1) for array in values)
    plots.completions(path, image.reshape(side, -1), rows, title=title)
