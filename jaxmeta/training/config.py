"""What a run is made from, as typed dataclasses: the command line, `config.json`, presets."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxmeta.data.episodes import Rotations
from jaxmeta.models.layers import NormalisationKind

Differentiate = Literal["second-order", "mixed-mode", "rematerialised", "reverse-mode"]


# --- learners -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _InnerLoop:
    inner_rate: float = 0.4
    """Learning rate of the inner loop."""
    inner_steps: int = 1
    """Inner steps in training."""
    eval_inner_steps: int = 3
    """Inner steps in evaluation."""
    inner_batch: int | None = None
    """Support examples an inner step; None: all of them."""


@dataclass(frozen=True)
class _GradientDescent(_InnerLoop):
    inner_optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer of the inner loop."""


@dataclass(frozen=True)
class _Exact:
    differentiate: Differentiate = "second-order"
    """How the meta-gradient goes back through the inner steps; second-order is the recommended
    one of the three exact ways."""
    truncate: int | None = None
    """Differentiate through this many last inner steps only; None: all."""


@dataclass(frozen=True)
class Maml(_Exact, _GradientDescent):
    """MAML (Finn et al. 2017): learn an initialisation by gradients through the inner loop."""

    name: ClassVar[str] = "maml"


@dataclass(frozen=True)
class FirstOrderMaml(_GradientDescent):
    """First-order MAML (Finn et al. 2017): inner gradients taken as constants."""

    name: ClassVar[str] = "first-order-maml"


@dataclass(frozen=True)
class Anil(_Exact, _GradientDescent):
    """ANIL (Raghu et al. 2020): MAML in which only the head adapts."""

    name: ClassVar[str] = "anil"


@dataclass(frozen=True)
class MetaSgd(_Exact):
    """Meta-SGD (Li et al. 2017): MAML with a learned inner rate for every parameter."""

    name: ClassVar[str] = "meta-sgd"
    initial_rate: tuple[float, float] = (0.005, 0.1)
    """The learned rates start uniformly between these two."""
    inner_steps: int = 1
    """Inner steps in training."""
    eval_inner_steps: int = 1
    """Inner steps in evaluation."""


@dataclass(frozen=True)
class Reptile(_InnerLoop):
    """Reptile (Nichol et al. 2018): move towards where each task's training ends."""

    name: ClassVar[str] = "reptile"
    inner_rate: float = 1e-3
    """Learning rate of the inner loop."""
    inner_steps: int = 5
    """Inner steps in training."""
    eval_inner_steps: int = 50
    """Inner steps in evaluation."""
    inner_batch: int | None = 10
    """Support examples an inner step, the whole support set where it is smaller."""
    inner_optimizer: Literal["sgd", "adam", "rmsprop"] = "rmsprop"
    """Optimizer of the inner loop. rmsprop: Adam with β1 = 0 whose second moments run on from
    task to task, as in the authors' code; adam: they start anew in every task."""


@dataclass(frozen=True)
class Prototypical:
    """Prototypical networks (Snell et al. 2017): classify by the nearest class mean."""

    name: ClassVar[str] = "prototypical"
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """Squared Euclidean as published, or cosine with a learned temperature."""


LEARNERS = (Maml, FirstOrderMaml, Anil, MetaSgd, Reptile, Prototypical)
REGRESSORS = (Maml, FirstOrderMaml, Anil, MetaSgd, Reptile)


# --- experiments --------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """What every experiment has."""

    steps: int
    """Meta-updates."""
    task_batch: int
    """Tasks of a meta-update."""
    tasks_at_once: int | None = None
    """Tasks mapped together: the same mean gradient in less memory. None: one for images on a
    CPU, where that is fastest too, else all."""
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
    learner: Maml | FirstOrderMaml | Anil | MetaSgd | Reptile | Prototypical = Maml()
    """The learner."""
    dataset: str = "glyphs"
    """glyphs, omniglot, a TFDS image-classification set, or a folder FOLDER/class/*.png."""
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
    network: Literal["conv4-stride", "conv4-pool", "resnet12", "mlp"] = "conv4-stride"
    """Four convolutions of stride 2 (MAML's), the same with max-pooling, a residual network of
    twelve layers, or a perceptron."""
    width: int = 64
    """Channels of each convolution; of the first block in resnet12."""
    query_statistics: NormalisationKind = "batch"
    """Whose statistics normalise the query: its own batch (transductive), the support set's,
    each example's own (layer, group), or none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; meta-parameters, statistics and losses stay float32."""
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
    """Meta-train a regressor of sinusoids and evaluate it on curves never seen."""

    experiment: ClassVar[str] = "regression"
    learner: Maml | FirstOrderMaml | Anil | MetaSgd | Reptile = Maml()
    """The learner."""
    amplitude: tuple[float, float] = (0.1, 5.0)
    """Range of the amplitude."""
    phase: tuple[float, float] = (0.0, math.pi)
    """Range of the phase, in radians."""
    frequency: tuple[float, float] = (1.0, 1.0)
    """Range of the angular frequency; MAML's curves all have 1."""
    domain: tuple[float, float] = (-5.0, 5.0)
    """Range of x."""
    shots: int = 5
    """Support points of a test task."""
    queries: int = 100
    """Query points of a test task."""
    train_shots: int | None = None
    """Support points of a training task; None: as at test."""
    train_queries: int | None = None
    """Query points of a training task; None: as at test."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers."""

    def episode(self, train: bool) -> dict[str, int]:
        """Shots and queries of a training or a test task."""
        if not train:
            return {"shots": self.shots, "queries": self.queries}
        return {
            "shots": self.shots if self.train_shots is None else self.train_shots,
            "queries": self.queries if self.train_queries is None else self.train_queries,
        }


AnyExperiment = FewShot | Regression
EXPERIMENTS = {kind.experiment: kind for kind in (FewShot, Regression)}


def check(config: AnyExperiment) -> None:
    """Refuse numbers that no run can use, before anything is loaded or compiled.

    Raises:
      ValueError: which option has which value, and what it may be.
    """
    positive = ("steps", "task_batch", "tasks_at_once", "halve_every", "checkpoint_every", "chunk")
    for name in (*positive, "shots", "queries", "train_shots", "train_queries", "width"):
        _require(config, name, lambda value: value >= 1, "at least 1")
    for name in ("ways", "train_ways", "eval_tasks", "validation_tasks"):
        _require(config, name, lambda value: value >= 2, "at least 2")
    for name in ("outer_rate", "clip", "device_budget"):
        _require(config, name, lambda value: 0 < value < math.inf, "positive and finite")
    learner = config.learner
    _require(learner, "inner_rate", lambda value: 0 < value < math.inf, "positive and finite")
    low, high = getattr(learner, "initial_rate", (1.0, 1.0))
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"--initial-rate {low} {high}: give the ends of a range, positive and finite."
        )
    for name in ("inner_steps", "eval_inner_steps", "truncate"):
        _require(learner, name, lambda value: value >= 0, "0 or more")
    _require(learner, "inner_batch", lambda value: value >= 1, "at least 1")


def _require(options: Any, name: str, accepts: Any, remedy: str) -> None:
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
        learners = {learner.name: learner for learner in LEARNERS}
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
