"""Applies a trained run to tasks that a user gives."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.files import shown
from jaxmeta.recipes.base import Domain, UserTask
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.loading import problems
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.training.state import Trained, shared_of

Predictor = Callable[[UserTask, Path], Any]


def predictor(folder: Path, experiment: Experiment, data: dict[str, Any]) -> Predictor:
    """`predict(given, path)`: the outputs for a user's query inputs, which were read from `path`.

    Restores the run once, and compiles once, for all tasks of the same shape.

    Raises:
      ValueError: the inputs have another shape than in training; otherwise as
        `jaxmeta.recipes.restore`.
    """
    key = jax.random.key(experiment.training.seed)

    @functools.cache
    def restored(domain: Domain) -> tuple[Callable[..., Any], Any]:
        of_domain = experiment.replaced(domain)
        run = restore_as(folder, of_domain, data)
        constants = domain.constants(data)
        _, problem = problems(of_domain, data, constants)

        # Built in here, so that frozen weights are arguments of the program.
        def outputs(
            trained: Trained, constants: PyTree, key: Key, support: PyTree, inputs: PyTree
        ) -> Array:
            learner = of_domain.learner.build(problem._replace(constants=constants))
            shared = shared_of(learner, trained)
            adapted = learner.adapt(key, trained.meta_params, support, **shared)
            return learner.predict(adapted, inputs)

        compiled = jax.jit(outputs)
        return functools.partial(compiled, run.trained, constants), run.example

    def predict(given: UserTask, path: Path) -> Any:
        outputs, example = restored(experiment.domain.for_user_task(given))
        _check_shapes(path, given.inputs, example.query.inputs)
        support: PyTree = given.support
        if given.names:
            # Some learners read the support in order, and were not trained on examples sorted by
            # class.
            order = np.asarray(jax.random.permutation(key, len(given.support.targets)))
            support = jax.tree.map(lambda leaf: leaf[order], support)
        return outputs(key, *jax.tree.map(jnp.asarray, (support, given.inputs)))

    return predict


def _check_shapes(path: Path, given: Any, trained: Any) -> None:
    """Check that inputs have the same shape as in training."""
    one, other = ([leaf.shape[1:] for leaf in jax.tree.leaves(tree)] for tree in (given, trained))
    if one != other:
        raise ValueError(
            f"{shown(path)} holds inputs of shape {one[0]}; the run was trained on {other[0]}."
        )
