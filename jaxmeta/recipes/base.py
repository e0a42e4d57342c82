"""What recipes and domains derive from, and the training settings that all runs share."""

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
    """How meta-parameters are trained and chosen, in every experiment; see `start`."""

    steps: Count = 10_000
    """Meta-updates."""
    task_batch: Count = 16
    """Tasks of a meta-update."""
    tasks_at_once: Count | None = None
    """Tasks mapped together: the same mean gradient in less memory. Defaults to all, for images on
    a CPU to 1, which is faster there."""
    outer_optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the meta-parameters."""
    outer_rate: Positive = 1e-3
    """Learning rate of the meta-parameters."""
    outer_schedule: Schedule = "constant"
    """The outer rate over the run: constant, down to 0 (linear, cosine), or halved repeatedly."""
    halve_every: Count = 2000
    """Meta-updates between halvings, where the schedule is halving."""
    clip: Positive | None = None
    """Clip each entry of the meta-gradient to ± this. Defaults to no clipping."""
    clip_norm: Positive | None = None
    """Scale the meta-gradient down to this norm where it is larger. Defaults to no clipping."""
    aggregate: Aggregation = "mean"
    """How the gradients of the tasks become one: mean; mean of those clipped to --aggregate-norm;
    median of each entry; pcgrad: conflicting ones projected; balanced: all of one norm. For
    median and pcgrad, devices exchange the gradients of all tasks."""
    aggregate_norm: Positive = 1.0
    """Largest norm of a task's gradient, where the aggregation is clipped."""
    seed: Seed = 0
    """Seed of the run: initialisation, tasks, data splits."""
    eval_tasks: AtLeastTwo = 1000
    """Test tasks of the final evaluation."""
    validation_tasks: AtLeastTwo = 200
    """Validation tasks that choose the best checkpoint."""
    checkpoint_every: Count = 500
    """Meta-updates between validations and checkpoints."""
    chunk: Count = 20
    """Meta-updates of one compiled call; logs and interrupts come at its end."""

    def optimizer(self, last: optax.GradientTransformation | None = None) -> Any:
        """The optimizer of the meta-parameters: clipping, its schedule, and then `last`."""
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
    """What a recipe's meta-update is made with.

    Attributes:
      training: the settings.
      tasks: of the domain.
      mesh: the devices that share a batch. Defaults to one.
    """

    training: Training
    tasks: Tasks
    mesh: Mesh | None

    @property
    def at_once(self) -> int | None:
        """Tasks mapped together; None for all."""
        chosen = self.training.tasks_at_once
        return self.tasks.at_once if chosen is None else chosen

    def update(self, learner: MetaLearner, optimizer: Any = None) -> MetaUpdate:
        """The default: the mean of the tasks' gradients, and a step of the optimizer."""
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
    """Settings worth a name.

    Attributes:
      pattern: `EXPERIMENT/PRESET`, where * stands for any letters; of a domain the preset's name
        alone. Where several apply, the later ones override the earlier.
      settings: by the names of the options.
      published: the published result by preset, such as `{"omniglot-5w1s": "98.7 ± 0.4"}`; of
        curves the losses by inner step, of streams the accuracies by instance of a class.
      wall_time: wall time and on what.
    """

    pattern: str
    settings: Mapping[str, Any]
    published: Mapping[str, str | Mapping[int, str]] = {}
    wall_time: str = ""


@dataclass(frozen=True)
class Recipe:
    """A learner's settings, and how it is built from them: the base of every recipe.

    A subclass has `build`, and what else differs from what stands here; see `recipe`.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    presets: ClassVar[tuple[Preset, ...]] = ()

    @property
    def needs(self) -> Needs:
        """What it needs of its tasks."""
        return Needs()

    def data(self) -> Mapping[str, Any]:
        """What identifies the files that it reads for training, fit for JSON.

        A run keeps it beside `Tasks.data`.
        """
        return {}

    def build(self, problem: Problem) -> MetaLearner:
        """The learner for the tasks of training or of a test."""
        raise NotImplementedError(f"{type(self).__name__} has no build(problem).")

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        """The learner's meta-update."""
        return engine.update(learner)

    def finish(
        self, key: Key, trained: Trained, problem: Problem, calibration: PyTree
    ) -> Trained | None:
        """What is done once after training, such as to fold or prune; None for nothing.

        `calibration` holds inputs of training, `[batches, ...]`. The function is also traced for
        its shapes, when a run is restored.
        """
        return None

    def probabilities(self, outputs: Array) -> Array:
        """Of the classes, from what `predict` gives `[examples, ways]`."""
        return jax.nn.softmax(outputs)

    def draw(self, path: Path, problem: Problem, adapted: Any, task: Task, title: str) -> None:
        """A picture of what adaptation did, where the learner has one of its own."""


@dataclass(frozen=True)
class Domain:
    """A domain's settings, and the tasks that they describe: the base of every domain.

    A subclass has `problem` and `tasks`, and whatever else differs from what stands here;
    see `domain`.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    default_learner: ClassVar[str] = "maml"
    presets: ClassVar[tuple[Preset, ...]] = (Preset("default", {}),)

    def default_preset(self) -> str:
        """The preset that these settings start from where none is named."""
        return "default"

    def resolved(self) -> "Domain":
        """The settings with every default spelled out, as `config.json` keeps them."""
        return self

    def label(self) -> str:
        """Of the run folder, behind the learner's name."""
        return self.name

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        """What a learner is built for, from settings and `Tasks.data` alone."""
        raise NotImplementedError(f"{type(self).__name__} has no problem(...).")

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        """The tasks: data is loaded here.

        Raises:
          ValueError, OSError: data that is missing or damaged, tasks that it cannot give.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tasks(...).")

    def constants(self, data: Mapping[str, Any]) -> PyTree:
        """Frozen weights that networks need; never optimised, never in a checkpoint.

        They come to `Problem.constants`. A run keeps their checksum and is restored with the same.
        """
        return ()

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> "UserTask":
        """A user's own task, for `predict`; `ink` says whether dark drawings are read as 1."""
        raise ValueError(f"predict does not support runs of {self.name}.")

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """What else changes with these settings, where a run is evaluated with others."""
        return changes

    def for_user_task(self, given: "UserTask") -> "Domain":
        """The settings of the task that a user gives."""
        return self


class UserTask(NamedTuple):
    """A task that a user gives, for `predict`.

    Attributes:
      support: to learn from.
      inputs: of the query.
      rows: what each row of the query is called.
      names: of the classes; empty where there are none.
      draw: `draw(path, names, probabilities, title)`, a picture of the predictions; None without.
    """

    support: Batch
    inputs: PyTree
    rows: list[str]
    names: list[str]
    draw: Any = None


@dataclass(frozen=True)
class Experiment:
    """All that a run is made from; see `start`.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> experiment = Experiment(find_domain("regression")(), find_learner("maml")())
    >>> experiment.changed(steps=100, inner_rate=0.01).training.steps
    100
    """

    domain: Domain
    learner: Recipe
    training: Training = Training()

    def check(self) -> None:
        """Refuse a learner that does not take tasks of this kind, and settings of one name.

        Raises:
          ValueError: which learners do; the name that two settings have.
        """
        if self.domain.kind not in self.learner.kinds:
            fitting = ", ".join(registry.known_learners(self.domain.kind))
            raise ValueError(
                f"{self.learner.name} does not take tasks of {self.domain.name}, which are of the "
                f"kind {self.domain.kind}; these learners do: {fitting}."
            )
        parts = [settings.names(part) for part in (self.domain, self.learner, self.training)]
        if twice := (parts[0] & parts[1]) | (parts[2] & (parts[0] | parts[1])):
            raise ValueError(
                f"{self.learner.name} on {self.domain.name}: two settings are named "
                f"{min(twice)!r}; rename one."
            )

    def resolved(self) -> "Experiment":
        """With every default of the domain spelled out."""
        return dataclasses.replace(self, domain=self.domain.resolved())

    def replaced(self, domain: Domain) -> "Experiment":
        """With other settings of the domain."""
        return dataclasses.replace(self, domain=domain)

    def changed(self, **changes: Any) -> "Experiment":
        """With other values of some settings, by name.

        Raises:
          ValueError: a name that no setting has.
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
      ValueError: no preset of that name, with the nearest names.

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
    """The experiment as a dictionary fit for JSON; `from_json` is the inverse.

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
    """The experiment from what `to_json` gave, checked.

    Raises:
      ValueError: it names a domain, a learner or a setting that is not known here, or a value
        of another type.

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
