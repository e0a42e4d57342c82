"""What a run is made from, as typed dataclasses: the command line, `config.json`, presets."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.synthetic.gaussian_processes import KernelKind
from jaxmeta.models.layers import NormalisationKind
from jaxmeta.training.aggregation import Aggregation
from jaxmeta.training.options import (
    Learner,
    Maml,
    Prototypical,
    Regressor,
    Relation,
    SemiSupervisedPrototypical,
    Siamese,
)

LEARNERS: tuple[type[Learner], ...] = get_args(Learner)
REGRESSORS: tuple[type[Regressor], ...] = get_args(Regressor)


# --- experiments --------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """What every experiment has."""

    steps: int
    """Meta-updates."""
    task_batch: int
    """Tasks of a meta-update."""
    tasks_at_once: int | None = None
    """Tasks mapped together: the same mean gradient in less memory. None: all, but of few-shot
    images on a CPU one, where that is fastest too."""
    outer_optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the meta-parameters."""
    outer_rate: float = 1e-3
    """Learning rate of the meta-parameters."""
    outer_schedule: Literal["constant", "linear", "cosine", "halving"] = "constant"
    """The outer rate over the run: constant, down to 0 (linear, cosine), or halved repeatedly."""
    halve_every: int = 2000
    """Meta-updates between halvings, where the schedule is halving."""
    clip: float | None = None
    """Clip each entry of the meta-gradient to ± this; None: not at all."""
    clip_norm: float | None = None
    """Scale the meta-gradient down to this norm where it is larger; None: not at all."""
    aggregate: Aggregation = "mean"
    """How the gradients of the tasks become one: mean; mean of those clipped to --aggregate-norm;
    median of each entry; pcgrad: conflicting ones projected; balanced: all of one norm. For
    median and pcgrad, devices exchange the gradients of all tasks."""
    aggregate_norm: float = 1.0
    """Largest norm of a task's gradient, where the aggregation is clipped."""
    seed: int = 0
    """Seed of the run: initialisation, tasks, data splits."""
    eval_tasks: int = 1000
    """Held-out tasks of the final evaluation."""
    validation_tasks: int = 200
    """Held-out tasks that choose the best checkpoint."""
    checkpoint_every: int = 500
    """Meta-updates between validations and checkpoints."""
    chunk: int = 20
    """Meta-updates of one compiled call; logs and interrupts come at its end."""


@dataclass(frozen=True)
class FewShot(Experiment):
    """Meta-train a few-shot image classifier and evaluate it on classes never seen."""

    experiment: ClassVar[str] = "few_shot"
    learner: Learner = Maml()
    """The learner."""
    dataset: str = "glyphs"
    """glyphs, omniglot, grocery, a TFDS image-classification set, or a folder of folders of images,
    FOLDER/class/*.png."""
    split: str | None = None
    """Class split: vinyals or maml (omniglot), TRAIN/VALIDATION/TEST counts (others)."""
    rotations: Rotations = "none"
    """Rotations by 0, 90, 180, 270 degrees: none, drawn per task, or as classes of their own."""
    image_size: int | None = None
    """Side of the images in pixels; None: the set's own."""
    color: bool | None = None
    """Three channels or one; None: as the images are."""
    ways: int = 5
    """Classes of a test task."""
    shots: int = 1
    """Support examples a class of a test task."""
    queries: int = 15
    """Query examples a class of a test task."""
    train_ways: int | None = None
    """Classes of a training task; None: as at test."""
    train_shots: int | None = None
    """Support examples a class of a training task; None: as at test."""
    train_queries: int | None = None
    """Query examples a class of a training task; None: as at test."""
    unlabelled: int = 0
    """Support examples without a label, of each class."""
    distractors: int = 0
    """Classes of which the support has unlabelled examples alone."""
    distortions: bool = False
    """Distort the images of training tasks at random, by affine maps."""
    network: Literal["conv4-stride", "conv4-pool", "conv-maps", "resnet12", "mlp"] = "conv4-stride"
    """Four convolutions of stride 2 (MAML's), the same with max-pooling, with two poolings and no
    head (relation networks'), a residual network of twelve layers, or a perceptron."""
    width: int = 64
    """Channels of each convolution; of the first block in resnet12."""
    query_statistics: NormalisationKind = "batch"
    """Whose statistics normalise the query: its own batch (transductive), the support set's,
    each example's own (layer, group), or none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; meta-parameters, statistics and losses stay float32."""
    hard_tasks: bool = False
    """Draw every second training batch from the classes that the one before failed at."""
    shuffle_labels: bool = False
    """The control: labels shuffled in every task, so that only chance can be reached."""
    pipeline: Literal["auto", "device", "stream"] = "auto"
    """Where the images lie: on the device, which draws the tasks in the compiled step, or on the
    host, which sends them; auto: on the device if they fit the budget."""
    device_budget: float = 2.0
    """GiB of a device's memory that images may take."""

    def episode(self, train: bool) -> dict[str, int]:
        """Ways, shots and queries of a training or a test task."""
        sizes = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        if train:
            own = {name: getattr(self, f"train_{name}") for name in sizes}
            sizes |= {name: value for name, value in own.items() if value is not None}
        return sizes


@dataclass(frozen=True)
class Regression(Experiment):
    """Meta-train a regressor of curves or images and evaluate it on some never seen."""

    experiment: ClassVar[str] = "regression"
    learner: Regressor = Maml()
    """The learner."""
    task: Literal["sinusoids", "gp", "images"] = "sinusoids"
    """Sine waves, curves of Gaussian processes, or images as functions of the place; without
    --preset, gp and images are those of the presets gp and completion."""
    points: tuple[int, int] = (3, 10)
    """Of gp and images: least and most support points of a task."""
    kernel: KernelKind = "rbf"
    """Of gp: its covariance."""
    kernel_length: tuple[float, float] = (0.4, 0.4)
    """Of gp: range of the length scale."""
    kernel_scale: tuple[float, float] = (1.0, 1.0)
    """Of gp: range of the curves' deviation."""
    kernel_period: tuple[float, float] = (1.0, 1.0)
    """Of gp, periodic: range of the period; x is from -2 to 2."""
    noise: float = 0.02
    """Of gp: deviation of each point from its curve."""
    dataset: str = "glyphs"
    """Of images: as in `experiments.few_shot`; they are taken in grey."""
    amplitude: tuple[float, float] = (0.1, 5.0)
    """Of sinusoids: range of the amplitude."""
    phase: tuple[float, float] = (0.0, math.pi)
    """Of sinusoids: range of the phase, in radians."""
    frequency: tuple[float, float] = (1.0, 1.0)
    """Of sinusoids: range of the angular frequency; MAML's curves all have 1."""
    domain: tuple[float, float] = (-5.0, 5.0)
    """Of sinusoids: range of x."""
    shots: int = 5
    """Of sinusoids: support points of a test task."""
    queries: int = 100
    """Query points of a test task."""
    train_shots: int | None = None
    """Of sinusoids: support points of a training task; None: as at test."""
    train_queries: int | None = None
    """Query points of a training task; None: as at test."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers, where the learner trains a network; processes have their own."""

    def episode(self, train: bool) -> dict[str, int]:
        """Shots, the most where their number varies, and queries of a training or a test task."""
        if self.task != "sinusoids":
            queries = self.train_queries if train and self.train_queries else self.queries
            return {"shots": self.points[1], "queries": queries}
        if not train:
            return {"shots": self.shots, "queries": self.queries}
        return {
            "shots": self.shots if self.train_shots is None else self.train_shots,
            "queries": self.queries if self.train_queries is None else self.train_queries,
        }


AnyExperiment = FewShot | Regression
EXPERIMENTS = {kind.experiment: kind for kind in (FewShot, Regression)}


def check(config: Experiment) -> None:
    """Refuse numbers that no run can use, before anything is loaded or compiled.

    Raises:
      ValueError: which option has which value, and what it may be.
    """
    positive = ("steps", "task_batch", "tasks_at_once", "halve_every", "checkpoint_every", "chunk")
    for name in (*positive, "shots", "queries", "train_shots", "train_queries", "width"):
        require(config, name, lambda value: value >= 1, "at least 1")
    for name in ("ways", "train_ways", "eval_tasks", "validation_tasks"):
        require(config, name, lambda value: value >= 2, "at least 2")
    for name in ("outer_rate", "clip", "clip_norm", "aggregate_norm", "device_budget"):
        require(config, name, lambda value: 0 < value < math.inf, "positive and finite")
    if isinstance(config, FewShot):
        _check_few_shot(config)
    if isinstance(config, Regression):
        check_foreign(config, config.task, _OF_TASK)
    learner = getattr(config, "learner", None)
    for name in ("inner_rate", "filter_rate", "strength"):
        require(learner, name, lambda value: 0 < value < math.inf, "positive and finite")
    low, high = getattr(learner, "initial_rate", (1.0, 1.0))
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"--initial-rate {low} {high}: give the ends of a range, positive and finite."
        )
    for name in ("inner_steps", "eval_inner_steps", "truncate", "refinements"):
        require(learner, name, lambda value: value >= 0, "0 or more")
    sizes = ("context", "lstm_width", "reads", "filters", "slots", "slot_width", "width", "layers")
    counts = ("features", "inner_batch", "solver_steps", "heads", "samples")
    for name in (*sizes, *counts, "controller_width", "representation"):
        require(learner, name, lambda value: value >= 1, "at least 1")
    for name in ("every_step_part", "first_order_part"):
        require(learner, name, lambda value: 0 <= value <= 1, "between 0 and 1")
    truncate, inner_steps = (getattr(learner, name, None) for name in ("truncate", "inner_steps"))
    if truncate is not None and inner_steps is not None and truncate > inner_steps:
        raise ValueError(f"--truncate {truncate}: there are {inner_steps} inner steps; give fewer.")
    require(learner, "damping", lambda value: 0 <= value < math.inf, "0 or more, and finite")


_OF_TASK = {
    "points": ("gp", "images"),
    **dict.fromkeys(("kernel", "kernel_length", "kernel_scale", "kernel_period", "noise"), ("gp",)),
    "dataset": ("images",),
    **dict.fromkeys(
        ("amplitude", "phase", "frequency", "domain", "shots", "train_shots"), ("sinusoids",)
    ),
}


def _check_few_shot(config: FewShot) -> None:
    """What goes with what."""
    require(config, "unlabelled", lambda value: value >= 0, "0 or more")
    require(config, "distractors", lambda value: value >= 0, "0 or more")
    takes_unlabelled = isinstance(config.learner, SemiSupervisedPrototypical | Prototypical)
    if config.unlabelled and not takes_unlabelled:
        raise ValueError(
            f"--unlabelled {config.unlabelled}: {config.learner.name} needs all labels; "
            "semi-supervised-prototypical does not, and prototypical passes over the others."
        )
    if config.distractors and not config.unlabelled:
        raise ValueError(f"--distractors {config.distractors} want --unlabelled of at least 1.")
    if (config.network == "conv-maps") != isinstance(config.learner, Relation):
        raise ValueError(
            f"--network {config.network}: relation compares maps and wants conv-maps, which no "
            "other learner takes."
        )
    if config.hard_tasks and (config.unlabelled or config.distortions):
        raise ValueError("--hard-tasks don't go with --unlabelled or --distortions.")
    if config.shuffle_labels and config.unlabelled:
        raise ValueError("--shuffle-labels doesn't go with --unlabelled.")
    if config.hard_tasks and isinstance(config.learner, Relation | Siamese):
        raise ValueError(f"--hard-tasks: {config.learner.name} is not trained by cross-entropy.")
    if config.pipeline == "stream" and (config.hard_tasks or config.distortions):
        raise ValueError(
            "--hard-tasks and --distortions are drawn on the device: give --pipeline device."
        )


def check_foreign(options: Any, task: str, owners: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse options that this task does not have: `owners` says whose each one is.

    Raises:
      ValueError: one of them has another value than its default.
    """
    defaults = {entry.name: entry.default for entry in dataclasses.fields(options)}
    for name, tasks in owners.items():
        value = getattr(options, name)
        if task not in tasks and value != defaults[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} {value}: {task} has none; {' and '.join(tasks)} "
                f"{'has' if len(tasks) == 1 else 'have'}."
            )


def require(options: Any, name: str, accepts: Callable[[Any], bool], remedy: str) -> None:
    """Raises `ValueError` where that option has a value which is not accepted; None always is."""
    value = getattr(options, name, None)
    if value is not None and not accepts(value):
        raise ValueError(f"--{name.replace('_', '-')} {value}: give a number that is {remedy}.")


# --- JSON ---------------------------------------------------------------------------------


def to_json(config: AnyExperiment) -> dict[str, Any]:
    """The configuration as a dictionary fit for JSON; `from_json` is the inverse.

    >>> from_json(to_json(FewShot(steps=10, task_batch=2))) == FewShot(steps=10, task_batch=2)
    True
    """
    fields = dataclasses.asdict(config)
    fields["learner"] = {"name": config.learner.name, **fields["learner"]}
    return {"experiment": config.experiment, **fields}


def from_json(fields: dict[str, Any]) -> AnyExperiment:
    """The configuration from what `to_json` gave.

    Raises:
      ValueError: it names an experiment, a learner or an option that is not known here.
    """
    fields = dict(fields)
    try:
        kind = EXPERIMENTS[fields.pop("experiment")]
        learner_fields = dict(fields.pop("learner"))
        learners = {learner.name: learner for learner in (*LEARNERS, *REGRESSORS)}
        learner = _build(learners[learner_fields.pop("name")], learner_fields)
        return _build(kind, {**fields, "learner": learner})
    except (KeyError, TypeError) as error:
        raise ValueError(f"a configuration of another version of jaxmeta: {error}.") from error


def _build(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
    )
