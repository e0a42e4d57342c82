"""Restores a trained run: its settings, the learner, and the trained parameters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmeta.core import MetaLearner, PyTree, Task
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.folders import CONFIG, FINISHED, RESULTS, read_config, read_identity
from jaxmeta.recipes.loading import problems, with_checksum
from jaxmeta.recipes.packing import read_packed
from jaxmeta.recipes.tasks import Problem, query_inputs
from jaxmeta.training import checkpoints
from jaxmeta.training.leaves import named
from jaxmeta.training.loop import CHECKPOINTS
from jaxmeta.training.state import Trained, untrained


class TrainedRun(NamedTuple):
    """A trained run, ready for use.

    Attributes:
      learner: the learner, built for evaluation.
      meta_params: the meta-parameters that were best in validation.
      trained: the same, together with other trained state (`shared`).
      experiment: the run's settings.
      data: identifies its data, see `Tasks.data`.
      example: a task of zeros in the shapes of training.
      step: the number of meta-updates at which they were saved.
    """

    learner: MetaLearner
    meta_params: PyTree
    trained: Trained
    experiment: Experiment
    data: dict[str, Any]
    example: Task
    step: int


def restore(
    run_directory: str | Path, *, recipes: Iterable[str] = (), **changes: Any
) -> TrainedRun:
    """Restore a run: the learner, and the meta-parameters that were best in validation.

        learner, meta_params, *_ = restore("runs/maml-glyphs-5w1s-seed0")
        adapted = learner.adapt(key, meta_params, support)
        outputs = learner.predict(adapted, images)

    Args:
      run_directory: a folder that an experiment wrote, or `jaxmeta package`.
      recipes: names of modules that declare recipes or domains of your own; they are imported.
      changes: other values of settings that do not affect the parameters, by name: the `ways` of
        a prototypical network, `eval_inner_steps`.

    Raises:
      FileNotFoundError: the folder holds no run, or no checkpoint yet.
      ValueError: the checkpoint is damaged, or belongs to another model or run; the learner has a
        head for another number of ways; an unknown setting.
      ArithmeticError: the parameters are NaN or infinite.
    """
    registry.load(recipes)
    folder = Path(run_directory)
    experiment, data = read_config(folder)
    return restore_as(folder, experiment.changed(**changes), data)


def restore_as(folder: Path, experiment: Experiment, data: dict[str, Any]) -> TrainedRun:
    """As `restore`, with settings that are changed already."""
    settings.check(experiment)
    identity = read_identity(folder)
    recipe = experiment.learner
    try:
        constants = experiment.domain.constants(data)
        of_training, of_test = problems(experiment, data, constants)
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{folder / CONFIG} can't be used: its data entries do not fit "
            f"{experiment.domain.name} ({type(error).__name__}: {error})."
        ) from error
    if with_checksum(data, constants) != data:
        raise ValueError(
            f"{folder} was trained with other frozen weights than those found here; provide the "
            "same weights."
        )
    learner, key = recipe.build(of_test), jax.random.key(0)
    like = jax.eval_shape(lambda key: untrained(learner, key, of_test.example), key)
    finished = _finished_like(recipe, of_training, like)
    place, like = (CHECKPOINTS, like) if finished is None else (FINISHED, finished)
    best = read_packed(folder, like, identity, finished=finished is not None)
    best = best or checkpoints.restore(folder / place, like, step="best", identity=identity)
    if best is None and (folder / RESULTS).is_file():
        raise FileNotFoundError(
            f"{folder} holds the results of a run without its checkpoints; train it again with the "
            f"command in its {RESULTS}."
        )
    if best is None:
        validated = checkpoints.newest_step(folder / CHECKPOINTS, "best") is not None
        fault = "is not trained to the end" if validated else "has no validated checkpoint yet"
        raise FileNotFoundError(f"{folder} {fault}; continue training with --resume.")
    trained: Trained = best.tree
    for name, leaf in named(trained.meta_params).items():
        # A recipe may restore another run while it is traced; the leaves then have no values.
        known = not isinstance(leaf, Tracer) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        if known and not np.isfinite(np.asarray(leaf)).all():
            raise ArithmeticError(
                f"{folder} has diverged: its parameters at step {best.step} are NaN or infinite "
                f"({name or 'the only one'}). Train again with a smaller inner or outer rate."
            )
    return TrainedRun(
        learner, trained.meta_params, trained, experiment, data, of_training.example, best.step
    )


def _finished_like(recipe: Recipe, problem: Problem, like: Trained) -> Trained | None:
    inputs = problem.calibration
    if inputs is None:
        inputs = jax.tree.map(lambda leaf: leaf[None], query_inputs(problem.example))
    key = jax.random.key(0)
    return jax.eval_shape(
        lambda trained, inputs: recipe.finish(key, trained, problem, inputs), like, inputs
    )
