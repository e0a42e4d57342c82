"""What a domain gives the runner and every recipe: problems, tests, tasks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.core import Array, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.data.identity import NOTHING, Classes, Seen
from jaxmeta.training.feed import Source, first_task
from jaxmeta.training.state import draw_keys
from jaxmeta.training.update import MetaUpdate, Trained

Judge = Callable[[Key, MetaLearner, Trained, Task], tuple[Array, Mapping[str, Array]]]
"""`judge(key, learner, trained, task) -> (loss, metrics)`, in place of the learner's own loss."""


class Problem(NamedTuple):
    """What a learner is built for: the tasks of training, or those of one test.

    Attributes:
      kind: of the tasks: classification, regression, sequence, optimization, supervised, ...
      train: whether this is training.
      example: a task of zeros in the shapes of training, from which parameters are made.
      objective: of outputs and targets.
      network: `network(constants, outputs) -> Model`; without `outputs` (None) an encoder.
      outputs: numbers of the network's head.
      ways: classes of a task, and of a training task; 0 where tasks have none.
      support: most examples of a support set.
      horizon: steps that a task is learned for, where the tasks say so; 0 elsewhere.
      batch: examples a step, where the tasks say so; None for all.
      steps: meta-updates of the training, for what changes over it.
      comparison: an encoder and what compares two of its outputs, for learned comparison.
      context_layer: the parameters that a context modulates, by name.
      data: what identifies the data, see `Tasks.data`.
      constants: frozen weights that `network` needs; never optimised, never in a checkpoint.
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
    comparison: Callable[[], tuple[Model, Model]] | None = None
    context_layer: str = ""
    data: Mapping[str, Any] = {}
    constants: PyTree = ()

    def encoder(self, outputs: int | None = None) -> Model:
        """The network without its head, or with a last layer of so many outputs."""
        return self.network(self.constants, outputs)

    def same_ways(self) -> int:
        """The classes of a task, for a learner with an output for each.

        Raises:
          ValueError: training tasks have another number of them.
        """
        if self.ways != self.trained_ways:
            raise ValueError(
                f"this learner has an output for each of the {self.trained_ways} classes that it "
                f"is trained with and cannot tell {self.ways}; give both the same, or choose a "
                "learner that compares features."
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
    """What a recipe needs of its tasks.

    Attributes:
      in_order: it reads the support one example after the other, so these come in random order.
      any_ways: it can be tested with another number of classes than it is trained with.
      unlabelled: it takes support examples without a label, whose target is -1.
      comparison: its network is that of `Problem.comparison`.
      own_objective: it is not trained by the objective of the tasks.
      folded: its network is pre-trained, with the statistics of that folded into scale and shift.
      seen: what the run was trained and validated on, whose classes no test may have; nothing in
        training.
    """

    in_order: bool = False
    any_ways: bool = False
    unlabelled: bool = False
    comparison: bool = False
    own_objective: bool = False
    folded: bool = False
    seen: Seen = NOTHING


class Figure(NamedTuple):
    """A metric that results are known by.

    Attributes:
      metric: its name among the metrics.
      label: in words, behind the figure in a closing line.
      higher: whether more is better.
      percent: whether it is shown in percent.
    """

    metric: str
    label: str = ""
    higher: bool = False
    percent: bool = False

    def show(self, value: float, ci95: float) -> str:
        """The figure with its interval.

        >>> Figure("accuracy", higher=True, percent=True).show(0.931, 0.006)
        '93.1 ± 0.6 %'
        """
        if self.percent:
            return f"{100 * value:.1f} ± {100 * ci95:.1f} %"
        return f"{self.label or self.metric.replace('_', ' ')} {value:.4g} ± {ci95:.2g}"


ACCURACY = Figure("accuracy", higher=True, percent=True)
LOSS = Figure("loss")


class HeldOut(NamedTuple):
    """A set of tasks to be judged on.

    Attributes:
      source: where they come from; drawn by key, or enumerated by a stream.
      identity: what says which tasks these are, fit for JSON; two runs are compared pairwise only
        where it is the same.
      problem: what the learner is built for here, where shapes or networks differ. Defaults to
        `Domain.problem(..., train=False)`.
      number: tasks. Defaults to `eval_tasks`, or `validation_tasks`.
      judge: defaults to the learner's own query loss.
      prepare: `prepare(learner, trained) -> (source, trained)`, once before all tasks are judged,
        such as to compute the features of all images; None where there is nothing to prepare.
      at_once: tasks mapped together. Defaults to as many as in training, at most 100.
      trajectory_tasks: tasks that are also judged after every inner step. Defaults to all.
    """

    source: Source
    identity: Mapping[str, Any]
    problem: Problem | None = None
    number: int | None = None
    judge: Judge | None = None
    prepare: Callable[[MetaLearner, Trained], tuple[Source, Trained]] | None = None
    at_once: int | None = None
    trajectory_tasks: int | None = None


class Report(NamedTuple):
    """What a domain's further results and pictures are made from.

    Attributes:
      folder: of the run.
      title: such as `maml · glyphs · 5-way 1-shot`.
      recipe: the learner's settings.
      results: what `results.json` holds so far.
      trained: what was evaluated.
      tests: by name, as in `Tasks`, each with its problem.
      learners: by the name of the test, each built for its test.
      values: by the name of the test, the metrics of every task, `[tasks, ...]`.
      key: of the test tasks; the i-th task's is the i-th of `jax.random.split(key, tasks)`.
      say: takes a line for the user.
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
        """A test, its learner, and the first of its tasks."""
        test = self.tests[name]
        sample_key, learn_key = draw_keys(jax.random.split(self.key, 2)[0])
        task = jax.jit(lambda sample, key: sample(key))(first_task(test.source), sample_key)
        return test, self.learners[name], FirstTask(task, sample_key, learn_key)


class FirstTask(NamedTuple):
    """A test task, the key it was drawn with, and the key that it was learned from with."""

    task: Task
    key: Key
    learn_key: Key


class Tasks(NamedTuple):
    """A distribution of tasks, with what is judged and drawn.

    Attributes:
      train: `train() -> source` of training tasks. Called for training alone: an evaluation does
        not ask what the training classes can give.
      validation: `validation() -> HeldOut`, which chooses between checkpoints; likewise.
      tests: by name; the figures of the first one head the results.
      figures: that results may be known by; the first that is among the metrics is taken.
      selection: the figure that validation chooses by.
      title: of the tasks, such as `glyphs · 5-way 1-shot`.
      summary: stands beside the figures in the results, such as the data set and the ways.
      protocol: what makes a number comparable, fit for JSON.
      data: what identifies the data, fit for JSON: kept in `config.json`, compared when a run
        goes on, and given to `Domain.problem` when a run is restored without its data.
      classes: `classes(part)` says what the classes, or pools, of a part are known by: `train`,
        `validation` or `test`. Kept in the run folder, so that an evaluation never tests those of
        training or validation. None where tasks have none: then no other data is evaluated.
      calibration: inputs of training, `[batches, ...]`, for what a recipe does once after it.
      meta_update: how training tasks make an update, in place of `jaxmeta.training.meta_update`.
      at_once: tasks mapped together where the settings don't say. Defaults to all.
      streamed: whether the host sends the tasks, so that batches must divide among devices.
      notes: lines for the user, said before training.
      report: `report(Report) -> further results`, after the tests.
      draw: `draw(Report)`, pictures into the run folder, beside those that every run has.
      extra_lines: `extra_lines(results) -> lines`, shown after the closing lines.
    """

    train: Callable[[], Source]
    validation: Callable[[], HeldOut]
    tests: Mapping[str, HeldOut]
    figures: tuple[Figure, ...] = (LOSS,)
    selection: Figure = LOSS
    title: str = ""
    summary: Mapping[str, Any] = {}
    protocol: Mapping[str, Any] = {}
    data: Mapping[str, Any] = {}
    classes: Callable[[str], Classes] | None = None
    calibration: PyTree = None
    meta_update: Callable[..., MetaUpdate] | None = None
    at_once: int | None = None
    streamed: bool = False
    notes: tuple[str, ...] = ()
    report: Callable[[Report], Mapping[str, Any]] | None = None
    draw: Callable[[Report], None] | None = None
    extra_lines: Callable[[Mapping[str, Any]], list[str]] | None = None
