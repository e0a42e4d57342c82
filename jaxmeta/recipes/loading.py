"""Loads the tasks of an experiment, for training and for evaluation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import files
from jaxmeta.core import Key, PyTree
from jaxmeta.data.identity import NOTHING, Seen
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.experiment import Experiment, to_json
from jaxmeta.recipes.fitting import naming_settings
from jaxmeta.recipes.tasks import HeldOut, Problem, Tasks
from jaxmeta.training import checkpoints
from jaxmeta.training.feed import count_tasks, without_constants
from jaxmeta.training.memory import check_fits
from jaxmeta.training.state import untrained
from jaxmeta.training.update import Trained


class Loaded(NamedTuple):
    """An experiment with its tasks.

    Attributes:
      experiment: the experiment, resolved.
      tasks: the tasks of its domain.
      constants: frozen weights; `()` for domains without any.
      data: `Tasks.data`, and the checksum of the constants.
      of_training, of_test: the problem of training, and the default problem of tests.
    """

    experiment: Experiment
    tasks: Tasks
    constants: PyTree
    data: dict[str, Any]
    of_training: Problem
    of_test: Problem


def load(experiment: Experiment, seen: Seen = NOTHING, trained: Mapping[str, Any] = {}) -> Loaded:
    """Load the data and tasks of an experiment, for the evaluation of a run as `Needs` says.

    Raises:
      ValueError, OSError: as `Domain.tasks`.
    """
    domain = experiment.domain
    needs = experiment.learner.needs._replace(seen=seen, trained=trained)
    tasks = domain.tasks(experiment.training, needs)
    constants = domain.constants(tasks.data)
    data = with_checksum(tasks.data, constants)
    with naming_settings(experiment):  # checked before the arrays are made
        for shapes in jax.eval_shape(
            lambda: [own.example for own in problems(experiment, tasks.data, constants)]
        ):
            check_fits("the arrays of a single task", shapes)
        for test in tasks.tests.values():
            if count_tasks(test.source) is None:  # drawn by key, not read from a stream
                draw: Any = without_constants(test.source)
                shapes = jax.eval_shape(draw, jax.random.key(0))
                count = test.number or experiment.training.eval_tasks
                at_once = min(count, tasks_at_once(experiment, tasks, test))
                check_fits("the arrays of the tasks of a test", *[shapes] * at_once)
    return Loaded(experiment, tasks, constants, data, *problems(experiment, tasks.data, constants))


def tasks_at_once(experiment: Experiment, tasks: Tasks, test: HeldOut) -> int:
    """The number of a test's tasks that are mapped together."""
    return test.at_once or min(experiment.training.tasks_at_once or tasks.at_once or 100, 100)


def problems(
    experiment: Experiment, data: Mapping[str, Any], constants: PyTree
) -> tuple[Problem, Problem]:
    """The problem of training, and the default problem of tests."""
    of_training, of_test = (
        experiment.domain.problem(
            experiment.training, experiment.learner.needs, data, train=train
        )._replace(constants=constants)
        for train in (True, False)
    )
    return of_training, of_test


def untrained_shapes(recipe: Recipe, problem: Problem) -> Trained:
    """The shapes of what a recipe trains on a problem."""
    return jax.eval_shape(
        lambda key: untrained(recipe.build(problem), key, problem.example), jax.random.key(0)
    )


def with_checksum(data: Mapping[str, Any], constants: PyTree) -> dict[str, Any]:
    """The entries that identify the data, with the checksum of frozen weights, if any."""
    if not jax.tree.leaves(constants):
        return dict(data)
    return {**data, "constants_sha256": checkpoints.parameters_sha256(constants)}


def describe(loaded: Loaded) -> dict[str, Any]:
    """The experiment, the learner, and the protocol that makes a result comparable."""
    experiment, tasks = loaded.experiment, loaded.tasks
    training = experiment.training
    fields = to_json(experiment)["learner"]
    return files.plain(
        {
            "experiment": experiment.domain.name,
            "learner": experiment.learner.name,
            **tasks.summary,
            "protocol": {
                "inner": {name: value for name, value in fields.items() if name != "name"},
                "selected_on": f"{_selected_on(tasks)}, {training.validation_tasks} tasks every "
                f"{training.checkpoint_every} steps",
                **tasks.protocol,
            },
        }
    )


def _selected_on(tasks: Tasks) -> str:
    if tasks.keeps_last:
        return "nothing: the last step; validated"
    return f"validation {tasks.selection.metric.replace('_', ' ')}"


def run_keys(seed: int) -> tuple[Key, Key, Key]:
    """The three keys of a run: for training, for validation tasks, for test tasks."""
    return _split_in_three(np.uint32(seed))


@jax.jit
def _split_in_three(seed: np.uint32) -> tuple[Key, Key, Key]:
    training, validation, test = jax.random.split(jax.random.key(seed), 3)
    return training, validation, test
