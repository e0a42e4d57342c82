"""The interface between domains, recipes and the runner: problems, tests, tasks."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.data.identity import NOTHING, Classes, Seen
from jaxmeta.environment import Environment
from jaxmeta.training.feed import Source, first_task
from jaxmeta.training.state import draw_keys
from jaxmeta.training.update import MetaUpdate, Trained

Judge = Callable[[Key, MetaLearner, Trained, Task], tuple[Array, Mapping[str, Array]]]
"""`judge(key, learner, trained, task) -> (loss, metrics)`, a replacement of the learner's loss."""


class Problem(NamedTuple):
    """The description of the training tasks, or of one test, from which a learner is built.

    Attributes:
      kind: the kind of tasks: classification, regression, sequence, optimization, control, ...
      train: whether this is training.
      example: a task of zeros in the shapes of training, for initialising parameters.
      objective: the objective of outputs and targets.
      network: `network(constants, outputs) -> Model`; an encoder if `outputs` is None.
      outputs: size of the network's output.
      ways: classes of a task; 0 if tasks have no classes.
      trained_ways: classes of a training task.
      support: largest number of examples in a support set.
      horizon: inner steps per task, or steps per episode, where the domain fixes them; 0 elsewhere.
      batch: examples per inner step, where the domain fixes them; None for all.
      steps: meta-updates of the training, for schedules over it.
      comparison: `comparison(constants)` builds an encoder and a network that compares two of its
        outputs.
      context_layer: the parameters that a context modulates, by name.
      data: identifies the data, see `Tasks.data`.
      constants: frozen weights of `network`, neither optimised nor stored in checkpoints.
      fold: `fold(params, calibration) -> params`, the parameters of `encoder()` with the statistics
        of training inputs, for the network of the tests; None if it is the one of training.
      unfold: the opposite of `fold`, where there is one.
      environment: the environment of policies; `support` is then the number of episodes.
      space: the architectures of a search.
      architecture: the parameter of the network with the logits of an architecture, which is
        learned but does not adapt to a task; empty if there is none.
      calibration: the shapes of `Tasks.calibration`. Defaults to those of a batch of query inputs.
    """

    kind: str
    train: bool
    example: Task
    objective: Objective
    network: Callable[[PyTree, int | None], Model]
    outputs: int = 1
    ways: int = 0
    trained_ways: int = 0
    support: int = 0
    horizon: int = 0
    batch: int | None = None
    steps: int = 0
    comparison: Callable[[PyTree], tuple[Model, Model]] | None = None
    context_layer: str = ""
    data: Mapping[str, Any] = {}
    constants: PyTree = ()
    fold: Callable[[PyTree, PyTree], PyTree] | None = None
    unfold: Callable[[PyTree, PyTree], PyTree] | None = None
    environment: Environment | None = None
    space: SearchSpace | None = None
    architecture: str = ""
    calibration: PyTree = None

    def encoder(self, outputs: int | None = None) -> Model:
        """The network without its head, or with a last layer of `outputs` units."""
        return self.network(self.constants, outputs)

    def same_ways(self) -> int:
        """The number of classes of a task, for a learner with one output per class.

        Raises:
          ValueError: training tasks have another number of classes.
        """
        if self.ways != self.trained_ways:
            raise ValueError(
                f"this learner has one output for each of the {self.trained_ways} classes of its "
                f"training tasks, and requires tasks of {self.trained_ways} classes, not "
                f"{self.ways}; give as many, or choose a learner for any number of classes, such "
                "as prototypical."
            )
        return self.ways

    def model(self) -> Model:
        """The network with a head, which fixes the number of classes.

        Raises:
          ValueError: training tasks have another number of classes.
        """
        self.same_ways()
        return self.network(self.constants, self.outputs)


class Needs(NamedTuple):
    """A recipe's requirements of its tasks.

    Attributes:
      in_order: it reads the support sequentially, so the examples come in random order.
      any_ways: it can be tested with another number of classes than in training.
      unlabelled: it supports examples without a label, whose target is -1.
      comparison: it uses the networks of `Problem.comparison`.
      own_objective: it is not trained by the objective of the tasks.
      folded: it uses a pre-trained network, whose statistics are folded into scale and shift.
      embeds: its network only embeds examples, with the parameters `encoder`, and never adapts; so
        it can be tested with the statistics of training.
      supernet: it trains a network of all architectures on images.
      requests: it asks for the labels of a stream, and is judged by its rewards.
      relaxed: it can learn `Problem.architecture` beside its other meta-parameters.
      sampled: its supernet computes one operation of every edge at a time.
      numbered: the number of training tasks, which carry their number; 0 for tasks without.
      seen: the classes that the run was trained and validated on, which no test may contain; empty
        in training.
      trained: `Tasks.data` of the run that is evaluated; empty in training.
    """

    in_order: bool = False
    any_ways: bool = False
    unlabelled: bool = False
    comparison: bool = False
    own_objective: bool = False
    folded: bool = False
    embeds: bool = False
    supernet: bool = False
    requests: bool = False
    relaxed: bool = False
    sampled: bool = False
    numbered: int = 0
    seen: Seen = NOTHING
    trained: Mapping[str, Any] = {}


class Figure(NamedTuple):
    """A metric that is reported as the main result.

    Attributes:
      metric: the metric's name.
      label: the words before the number in a closing line. Defaults to the name.
      higher: whether higher is better.
      percent: whether it is shown in percent.
    """

    metric: str
    label: str = ""
    higher: bool = False
    percent: bool = False

    def show(self, value: float, ci95: float) -> str:
        """The figure with its interval, if it has one.

        >>> Figure("accuracy", higher=True, percent=True).show(0.931, 0.006)
        '93.1 ± 0.6 %'
        """
        factor, digits, unit = (100, ".1f", " %") if self.percent else (1, ".4g", "")
        half = "" if math.isnan(ci95) else f" ± {factor * ci95:{'.1f' if self.percent else '.2g'}}"
        name = "" if self.percent else f"{self.label or self.metric.replace('_', ' ')} "
        return f"{name}{factor * value:{digits}}{half}{unit}"


ACCURACY = Figure("accuracy", higher=True, percent=True)
LOSS = Figure("loss")


def query_inputs(task: Task) -> PyTree:
    """The query inputs of a task, since sequences have no support; a process stands for itself."""
    return getattr(task.query, "inputs", task.query)


class HeldOut(NamedTuple):
    """A set of tasks for evaluation.

    Attributes:
      source: the source of the tasks: drawn by key, or enumerated by a stream.
      identity: identifies the tasks, as JSON values; runs are compared task by task only if it is
        the same.
      problem: the problem that the learner is built for, where shapes or networks differ. Defaults
        to `Domain.problem(..., train=False)`.
      number: number of tasks. Defaults to `eval_tasks`, or to `validation_tasks` in validation.
      judge: the loss and metrics of a task. Defaults to the learner's query loss.
      prepare: `prepare(recipe, trained) -> (source, trained)`, called once before the tasks are
        judged, for instance to compute the features of all images. Defaults to no preparation.
      at_once: tasks mapped together. Defaults to as many as in training, at most 100.
      trajectory_tasks: tasks that are also judged after every inner step. Defaults to all.
    """

    source: Source
    identity: Mapping[str, Any]
    problem: Problem | None = None
    number: int | None = None
    judge: Judge | None = None
    prepare: Callable[[Any, Trained], tuple[Source, Trained]] | None = None
    at_once: int | None = None
    trajectory_tasks: int | None = None


class Report(NamedTuple):
    """The evaluated run, for a domain's further results and pictures.

    Attributes:
      folder: the run folder.
      title: the title, such as `maml · glyphs · 5-way 1-shot`.
      recipe: the learner's settings.
      results: the content of `results.json` so far.
      trained: the trained parameters that were evaluated.
      tests: the tests by name, as in `Tasks`, each with its problem.
      learners: the learner built for each test, by the test's name.
      values: the metrics of every task, `[tasks, ...]`, by the test's name.
      key: the key of the test tasks; task i has the i-th of `jax.random.split(key, tasks)`.
      say: prints a line for the user.
    """

    folder: Path
    title: str
    recipe: Any
    results: dict[str, Any]
    trained: Trained
    tests: Mapping[str, HeldOut]
    learners: Mapping[str, MetaLearner]
    values: Mapping[str, Mapping[str, np.ndarray]]
    key: Key
    say: Callable[[str], object]

    def test(self, name: str) -> tuple[HeldOut, MetaLearner, "FirstTask"]:
        """A test, its learner, and the test's first task."""
        test = self.tests[name]
        sample_key, learn_key = draw_keys(jax.random.split(self.key, 2)[0])
        task = jax.jit(lambda sample, key: sample(key))(first_task(test.source), sample_key)
        return test, self.learners[name], FirstTask(task, sample_key, learn_key)


class FirstTask(NamedTuple):
    """A test task, the key that it was drawn with, and the key for adapting to it."""

    task: Task
    key: Key
    learn_key: Key


class Tasks(NamedTuple):
    """A distribution of tasks, with its metrics and pictures.

    Attributes:
      train: `train() -> source`, the training tasks. Only called for training, so that an
        evaluation does not depend on the training classes.
      validation: `validation() -> HeldOut`, the tasks that choose between checkpoints; likewise.
      tests: the tests by name; the figures of the first one are the run's main results.
      figures: candidates for the main figure; the first one that is among the metrics is used.
      selection: the figure by which validation chooses the best checkpoint.
      keeps_last: whether the last checkpoint is evaluated instead of the best one.
      title: the title of the tasks, such as `glyphs · 5-way 1-shot`.
      summary: further entries of the results, such as the data set and the ways.
      protocol: what makes a number comparable, as JSON values.
      data: identifies the data, as JSON values: stored in `config.json`, compared when a run is
        resumed, and passed to `Domain.problem` when a run is restored without its data.
      classes: `classes(part)` identifies the classes, or pools, of `train`, `validation` or `test`.
        Stored in the run folder, so that an evaluation never tests classes of training or
        validation. None if tasks have none; a run can then not be evaluated on other data.
      calibration: `calibration() -> inputs` of training, `[batches, ...]`, for `Recipe.finish`.
      meta_update: builds the meta-update, in place of `jaxmeta.training.meta_update`.
      at_once: the default number of tasks mapped together. Defaults to all.
      streamed: whether the host sends the tasks, so that batches must divide among devices.
      notes: lines that are printed before training.
      report: `report(Report) -> further results`, called after the tests.
      draw: `draw(Report)` draws the domain's own pictures into the run folder.
      extra_lines: `extra_lines(results) -> lines`, printed after the closing lines.
    """

    train: Callable[[], Source]
    validation: Callable[[], HeldOut]
    tests: Mapping[str, HeldOut]
    figures: tuple[Figure, ...] = (LOSS,)
    selection: Figure = LOSS
    keeps_last: bool = False
    title: str = ""
    summary: Mapping[str, Any] = {}
    protocol: Mapping[str, Any] = {}
    data: Mapping[str, Any] = {}
    classes: Callable[[str], Classes] | None = None
    calibration: Callable[[], PyTree] = tuple
    meta_update: Callable[..., MetaUpdate] | None = None
    at_once: int | None = None
    streamed: bool = False
    notes: tuple[str, ...] = ()
    report: Callable[[Report], Mapping[str, Any]] | None = None
    draw: Callable[[Report], None] | None = None
    extra_lines: Callable[[Mapping[str, Any]], list[str]] | None = None
