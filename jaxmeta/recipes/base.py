"""Base classes of recipes and domains, and the training settings that all runs share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree, Task
from jaxmeta.recipes.settings import AtLeastTwo, Count, Positive, Seed, changed, option, values
from jaxmeta.recipes.tasks import Needs, Problem, Tasks
from jaxmeta.training.aggregation import Aggregation, aggregate_of
from jaxmeta.training.update import MetaUpdate, Trained, meta_update

Schedule = Literal["constant", "linear", "cosine", "halving"]


@dataclass(frozen=True)
class Training:
    """Settings of meta-training, the same in every experiment.

    >>> Training(steps=100, outer_schedule="cosine").task_batch
    16
    """

    steps: Count = 10_000
    """Number of meta-updates."""
    task_batch: Count = 16
    """Tasks per meta-update (the meta-batch size)."""
    tasks_at_once: Count | None = None
    """Tasks mapped together; fewer use less memory. Defaults to all (1 for few-shot on a CPU)."""
    outer_optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the meta-parameters."""
    outer_rate: Positive = 1e-3
    """Learning rate of the meta-parameters."""
    outer_schedule: Schedule = "constant"
    """Schedule of the outer rate: constant, decayed to 0 (linear, cosine), or halved repeatedly."""
    halve_every: Count = 2000
    """Meta-updates between halvings, with --outer-schedule halving."""
    clip: Positive | None = None
    """Clip each entry of the meta-gradient to ± this value. Defaults to no clipping, unless a
    preset sets it."""
    clip_norm: Positive | None = None
    """Clip the meta-gradient to this global norm. Defaults to no clipping, unless a preset
    sets it."""
    aggregate: Aggregation = "mean"
    """How task gradients are combined.
    mean: their mean;
    clipped: mean of gradients that are clipped to --aggregate-norm;
    median: median of each entry;
    pcgrad: mean without conflicting components;
    balanced: mean at equal norms.
    With median and pcgrad, devices exchange the gradients of all tasks."""
    aggregate_norm: Positive = 1.0
    """Largest norm of a task's gradient, with --aggregate clipped."""
    seed: Seed = 0
    """Seed of the run: initialisation, tasks, data splits."""
    eval_tasks: AtLeastTwo = 1000
    """Number of test tasks in the final evaluation."""
    validation_tasks: AtLeastTwo = 200
    """Number of validation tasks, by which the best checkpoint is chosen."""
    checkpoint_every: Count = 500
    """Meta-updates between checkpoints, each with a validation."""
    chunk: Count = 20
    """Meta-updates per compiled call; logging and interrupts take place between calls."""

    def optimizer(
        self,
        last: optax.GradientTransformation | None = None,
        *,
        per_update: int = 1,
        decay: tuple[float, float] = (0.9, 0.999),
    ) -> Any:
        """The optimizer of the meta-parameters: clipping, the scheduled optimizer, then `last`.

        `per_update` is its number of steps per meta-update; schedules are in meta-updates.
        `decay` are Adam's β₁ and β₂.
        """
        rate, steps = self.outer_rate, per_update * self.steps
        schedule = {
            "constant": optax.constant_schedule(rate),
            "linear": optax.linear_schedule(rate, 0.0, steps),
            "cosine": optax.cosine_decay_schedule(rate, steps),
            "halving": optax.exponential_decay(
                rate, per_update * self.halve_every, 0.5, staircase=True
            ),
        }[self.outer_schedule]
        optimizer = optax.sgd(schedule)
        if self.outer_optimizer == "adam":
            optimizer = optax.adam(schedule, *decay)
        if last is not None:
            optimizer = optax.chain(optimizer, last)
        if self.clip_norm is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(self.clip_norm), optimizer)
        if self.clip is not None:
            optimizer = optax.chain(optax.clip(self.clip), optimizer)
        return optimizer


class Engine(NamedTuple):
    """The inputs of `Recipe.update`.

    Attributes:
      training: the training settings.
      tasks: the domain's tasks.
      mesh: the devices that share a task batch; None for a single device.
    """

    training: Training
    tasks: Tasks
    mesh: Mesh | None

    @property
    def at_once(self) -> int | None:
        """Number of tasks mapped together; None for all."""
        chosen = self.training.tasks_at_once
        return self.tasks.at_once if chosen is None else chosen

    def update(self, learner: MetaLearner, optimizer: Any = None) -> MetaUpdate:
        """The default meta-update: aggregates the tasks' gradients and takes an optimizer step."""
        make = self.tasks.meta_update or meta_update
        return make(
            learner,
            self.training.optimizer() if optimizer is None else optimizer,
            task_batch=self.training.task_batch,
            tasks_at_once=self.at_once,
            aggregate=aggregate_of(self.training.aggregate, self.training.aggregate_norm),
            mesh=self.mesh,
        )


class Preset(NamedTuple):
    """Named settings of a domain or of a learner.

    Attributes:
      pattern: in a domain the preset's name; in a recipe `EXPERIMENT/PRESET` or `KIND/PRESET` with
        shell wildcards such as `*`. Where several match, later ones override earlier ones.
      settings: values by setting name.
      published: the published result by preset, such as `{"omniglot-5w1s": "98.7 ± 0.4"}`; for
        curves the losses by inner step, for image streams the accuracies by instance of a class.
      wall_time: the time a run takes and the device, such as `3 h on a CPU core`.
    """

    pattern: str
    settings: Mapping[str, Any]
    published: Mapping[str, str | Mapping[int, str]] = {}
    wall_time: str = ""


@dataclass(frozen=True)
class Recipe:
    """A learner's settings, and how it is built from them: the base class of recipes.

    A subclass defines `build`, and overrides other methods where it differs; see `recipe`.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    presets: ClassVar[tuple[Preset, ...]] = ()

    @property
    def needs(self) -> Needs:
        """What the learner requires of its tasks."""
        return Needs()

    def data(self) -> Mapping[str, Any]:
        """Identifies the files that the recipe reads for training, as JSON values.

        A run stores it with `Tasks.data`.
        """
        return {}

    def build(self, problem: Problem) -> MetaLearner:
        """The learner for the training tasks or for a test."""
        raise NotImplementedError(f"{type(self).__name__} has no build(problem).")

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        """The learner's meta-update."""
        return engine.update(learner)

    def finish(
        self, key: Key, trained: Trained, problem: Problem, calibration: PyTree
    ) -> Trained | None:
        """A transformation of the best checkpoint after training, such as folding or pruning.

        Validation judges its result, too, so it must be traceable. The default is `Problem.fold` on
        the encoder; where that is None, it returns None and the checkpoint is kept as it is.
        `calibration` holds training inputs, `[batches, ...]`.
        """
        if problem.fold is None:
            return None
        fold = problem.fold
        folded = self.with_encoder(trained.meta_params, lambda own: fold(own, calibration))
        return trained._replace(meta_params=folded)

    def encoder_params(self, meta_params: PyTree) -> PyTree:
        """The parameters of the encoder, if `needs` has `embeds`."""
        return meta_params["encoder"]

    def with_encoder(self, meta_params: PyTree, change: Callable[[PyTree], PyTree]) -> PyTree:
        """The meta-parameters with changed parameters of the encoder, if `needs` has `embeds`."""
        return {**meta_params, "encoder": change(meta_params["encoder"])}

    def probabilities(self, outputs: Array) -> Array:
        """Class probabilities from the outputs of `predict`, `[examples, ways]`."""
        return jax.nn.softmax(outputs)

    def draw(self, path: Path, problem: Problem, adapted: Any, task: Task, title: str) -> None:
        """Draw the adapted learner, where the recipe has a picture of its own."""


@dataclass(frozen=True)
class Domain:
    """A domain's settings, and the tasks that they describe: the base class of domains.

    A subclass defines `problem` and `tasks`, and overrides other methods where it differs;
    see `domain`.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    default_learner: ClassVar[str] = "maml"
    presets: ClassVar[tuple[Preset, ...]] = (Preset("default", {}),)

    def task_kind(self) -> str:
        """The kind of the tasks, one of `kinds`, where the settings choose it."""
        return self.kind

    def default_preset(self) -> str:
        """The preset to start from where none is given."""
        return "default"

    def resolved(self) -> "Domain":
        """The settings with every default filled in, as stored in `config.json`."""
        return self

    def label(self) -> str:
        """The part of the run folder's name that follows the learner's name."""
        return self.name

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        """The problem that a learner is built for, from the settings and `Tasks.data` alone."""
        raise NotImplementedError(f"{type(self).__name__} has no problem(...).")

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        """Load the data and return the tasks.

        Raises:
          ValueError, OSError: the data is missing, damaged, or too small for these tasks.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tasks(...).")

    def constants(self, data: Mapping[str, Any]) -> PyTree:
        """Frozen weights of the networks, which are neither optimised nor stored in checkpoints.

        They are passed on in `Problem.constants`. A run stores their checksum, and is restored
        only with the same weights.
        """
        return ()

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> "UserTask":
        """A user's own task, for `predict`; with `ink`, dark drawings are read as 1."""
        raise ValueError(f"predict does not support runs of {self.name}.")

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes of an evaluation, and other settings that have to change with them."""
        return changes

    def for_user_task(self, given: "UserTask") -> "Domain":
        """The settings for a task that a user gives."""
        return self

    def for_labelling(self, asked: "Labelling") -> "Domain":
        """The settings with tests whose support is a pool of examples to label, for `active`.

        The default is for domains with the settings `ways`, `shots` and `queries`.

        Raises:
          ValueError: the tasks have no classes, or no such settings.
        """
        own = values(self)
        if self.kind != "classification" or not {"shots", "queries", "ways"} <= own.keys():
            raise ValueError(
                "active learning requires a run of few-shot classification, or of pools with "
                f"classes, but {self.name} has tasks of the kind {self.task_kind()}."
            )
        ways, pool = asked.ways or own["ways"], asked.pool or 10
        most = ways * (pool - asked.start)
        if asked.labels > most:
            raise ValueError(
                f"{option('labels', asked.labels)}: the pool has {ways * pool} examples "
                f"({pool} of each of {ways} classes), {ways * asked.start} labelled at the start; "
                f"give at most {max(most, 0)}, or a larger --pool."
            )
        # Pools have no examples that can't be labelled.
        plain = {"unlabelled": 0, "distractors": 0}
        sizes = {"shots": pool, "queries": asked.queries or 5, "ways": ways}
        return changed(self, {**sizes, **plain})


class Labelling(NamedTuple):
    """The tests that active learning asks a domain for; None is the domain's default.

    Attributes:
      ways: classes of a task.
      pool: examples per class in the pool.
      queries: query examples per class.
      start: labels per class before the first choice.
      labels: labels after that, for examples of the pool.
    """

    ways: int | None = None
    pool: int | None = None
    queries: int | None = None
    start: int = 0
    labels: int = 1


class UserTask(NamedTuple):
    """A task that a user gives, for `predict`.

    Attributes:
      support: the examples to learn from.
      inputs: the query inputs.
      rows: a label for each query input.
      names: the class names; empty outside classification.
      truth: the true class of each query input by its name, None where it is unknown; empty if all
        are unknown.
      draw: `draw(path, names, probabilities, title)` draws the predictions; None for no picture.
      kind: what a query input is, as the head of a table names it.
    """

    support: Batch
    inputs: PyTree
    rows: list[str]
    names: list[str]
    truth: tuple[str | None, ...] = ()
    draw: Any = None
    kind: str = "image"
