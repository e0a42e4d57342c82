"""Base classes of recipes and domains, and the training settings that all runs share."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree, Task
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.settings import AtLeastTwo, Count, Positive, Seed
from jaxmeta.recipes.tasks import Needs, Problem, Tasks
from jaxmeta.training.aggregation import Aggregation, aggregate_of
from jaxmeta.training.update import MetaUpdate, Trained, meta_update

Schedule = Literal["constant", "linear", "cosine", "halving"]


@dataclass(frozen=True)
class Training:
    """Settings of meta-training, the same in every experiment; see `start`."""

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
    """Clip each entry of the meta-gradient to ± this value. Defaults to no clipping."""
    clip_norm: Positive | None = None
    """Clip the meta-gradient to this global norm. Defaults to no clipping."""
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

    def optimizer(self, last: optax.GradientTransformation | None = None) -> Any:
        """The optimizer of the meta-parameters: clipping, the scheduled optimizer, then `last`."""
        schedule = {
            "constant": optax.constant_schedule(self.outer_rate),
            "linear": optax.linear_schedule(self.outer_rate, 0.0, self.steps),
            "cosine": optax.cosine_decay_schedule(self.outer_rate, self.steps),
            "halving": optax.exponential_decay(
                self.outer_rate, self.halve_every, 0.5, staircase=True
            ),
        }[self.outer_schedule]
        optimizer = {"adam": optax.adam, "sgd": optax.sgd}[self.outer_optimizer](schedule)
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
      pattern: in a domain the preset's name; in a recipe `EXPERIMENT/PRESET` with shell wildcards
        such as `*`. Where several match, later ones override earlier ones.
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

        Returns None to keep the checkpoint as it is, the default. `calibration` holds training
        inputs, `[batches, ...]`. The method is also traced for its shapes when a run is restored.
        """
        return None

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
    default_learner: ClassVar[str] = "maml"
    presets: ClassVar[tuple[Preset, ...]] = (Preset("default", {}),)

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


class UserTask(NamedTuple):
    """A task that a user gives, for `predict`.

    Attributes:
      support: the examples to learn from.
      inputs: the query inputs.
      rows: a label for each query input.
      names: the class names; empty outside classification.
      draw: `draw(path, names, probabilities, title)` draws the predictions; None for no picture.
    """

    support: Batch
    inputs: PyTree
    rows: list[str]
    names: list[str]
    draw: Any = None


@dataclass(frozen=True)
class Experiment:
    """The domain, the learner and the training settings of a run; see `start`.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> experiment = Experiment(find_domain("regression")(), find_learner("maml")())
    >>> experiment.changed(steps=100, inner_rate=0.01).training.steps
    100
    """

    domain: Domain
    learner: Recipe
    training: Training = Training()

    def check(self) -> None:
        """Check that the learner supports the domain's tasks, and that setting names are unique.

        Raises:
          ValueError: it does not, with the learners that do; two settings have the same name.
        """
        if self.domain.kind not in self.learner.kinds:
            fitting = ", ".join(registry.known_learners(self.domain.kind))
            raise ValueError(
                f"{self.learner.name} does not support tasks of {self.domain.name} (kind "
                f"{self.domain.kind}); these learners do: {fitting}."
            )
        parts = [settings.names(part) for part in (self.domain, self.learner, self.training)]
        if twice := (parts[0] & parts[1]) | (parts[2] & (parts[0] | parts[1])):
            raise ValueError(
                f"{self.learner.name} on {self.domain.name}: two settings are named "
                f"{min(twice)!r}; rename one."
            )

    def resolved(self) -> "Experiment":
        """The experiment with every default of the domain filled in."""
        return dataclasses.replace(self, domain=self.domain.resolved())

    def replaced(self, domain: Domain) -> "Experiment":
        """The experiment on another domain."""
        return dataclasses.replace(self, domain=domain)

    def changed(self, **changes: Any) -> "Experiment":
        """The experiment with other values of some settings, by name.

        Raises:
          ValueError: an unknown setting.
        """
        unknown = changes.keys() - settings.names(self)
        if unknown:
            name = min(unknown)
            raise ValueError(
                f"{settings.option(name, changes[name])}: {self.learner.name} on "
                f"{self.domain.name} has no such setting."
            )
        return settings.changed(self, changes)


def start(domain: type[Domain], learner: type[Recipe], preset: str = "default") -> Experiment:
    """The experiment of a preset: the domain's settings for it, then the learner's.

    Raises:
      ValueError: an unknown preset, with the nearest names.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> start(find_domain("few-shot"), find_learner("maml"), "omniglot-5w1s").training.steps
    60000
    """
    known = [own.pattern for own in domain.presets]
    registry.check_known("preset", preset, known)
    experiment = Experiment(domain(), learner())
    for own in domain.presets:
        if own.pattern == preset:
            experiment = experiment.changed(**own.settings)
    for own in learner.presets:
        if fnmatchcase(f"{domain.name}/{preset}", own.pattern):
            experiment = experiment.changed(**own.settings)
    return experiment


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as a dictionary of JSON values; `from_json` is the inverse.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> to_json(start(find_domain("sequence"), find_learner("lstm")))["learner"]
    {'name': 'lstm', 'width': 256, 'layers': 1}
    """
    return {
        "experiment": experiment.domain.name,
        "learner": {"name": experiment.learner.name, **dataclasses.asdict(experiment.learner)},
        "tasks": dataclasses.asdict(experiment.domain),
        "training": dataclasses.asdict(experiment.training),
    }


def from_json(fields: Any) -> Experiment:
    """The experiment from the result of `to_json`, checked.

    Raises:
      ValueError: an unknown domain, learner or setting, or a value of the wrong type.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> experiment = start(find_domain("sequence"), find_learner("lstm"))
    >>> from_json(to_json(experiment)) == experiment
    True
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("learner"), dict):
        raise ValueError("it does not hold the settings of an experiment")
    entries = {"experiment", "learner", "tasks", "training"}
    if unknown := fields.keys() - entries:
        raise ValueError(f"it has the unknown entry {min(unknown)!r}")
    learner_fields = dict(fields["learner"])
    kind = registry.find_domain(str(fields.get("experiment")))
    learner = registry.find_learner(str(learner_fields.pop("name", None)))
    if missing := entries - fields.keys():
        raise ValueError(f"it has no entry {min(missing)!r}")
    experiment = Experiment(
        settings.from_json(kind, fields["tasks"]),
        settings.from_json(learner, learner_fields),
        settings.from_json(Training, fields["training"]),
    )
    settings.check(experiment)
    return experiment
