"""The predictions of a trained classifier on the query sets of many tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.calibration import risk_coverage
from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import Estimate, Judge, estimate, per_task
from jaxmeta.training.feed import Source, count_tasks
from jaxmeta.training.state import Trained, shared_of

THRESHOLDS = (*np.round(np.arange(0, 1, 0.05), 2).tolist(), 0.99)
CURVE = "risk_coverage"
_CURVE_TASKS = 200


class Predictions(NamedTuple):
    """Predictions for the queries of tasks with equally many classes.

    Attributes:
      logarithms_TQW: float, the logarithms of the class probabilities.
      targets_TQ: int, the true classes.
    """

    logarithms_TQW: np.ndarray
    targets_TQ: np.ndarray


Predict = Callable[[Trained, Source, Key], Predictions]


def predicting(
    build: Callable[[PyTree], MetaLearner],
    ways: int,
    count: int,
    *,
    probabilities: Callable[[Array], Array] = jax.nn.softmax,
    constants: PyTree = (),
    at_once: int = 1,
) -> Predict:
    """`predict(trained, source, key)`: the predictions on `count` tasks, compiled once.

    Args:
      build: `build(constants)`, the learner.
      ways: classes of a task. A learner with more outputs is asked for the first of them only.
      count: number of tasks.
      probabilities: of the outputs, `[examples, outputs]`.
      constants: frozen weights.
      at_once: tasks mapped together.
    """

    def judge(
        key: Key, given: tuple[Trained, PyTree], task: Task
    ) -> tuple[Array, dict[str, Array]]:
        trained, constants = given
        learner = build(constants)
        shared = shared_of(learner, trained)
        adapted = learner.adapt(key, trained.meta_params, task.support, **shared)
        outputs = probabilities(learner.predict(adapted, task.query.inputs))[:, :ways]
        logarithms = jnp.log(jnp.maximum(outputs, jnp.finfo(outputs.dtype).tiny))
        values = {"logarithms": jax.nn.log_softmax(logarithms), "targets": task.query.targets}
        return jnp.zeros(()), values

    own: Judge = judge
    evaluate = per_task(own, count, tasks_at_once=at_once)

    def predict(trained: Trained, source: Source, key: Key) -> Predictions:
        found = evaluate((trained, constants), source, key)
        return Predictions(found["logarithms"], found["targets"])

    return predict


def abstention(made: Report) -> dict[str, Any]:
    """Risk and coverage of a run over the probability below which it abstains.

    On the first 200 tasks of the run's test, see `curve_of`. It is left out for streamed tasks of
    several processes, each of which reads only a part of them.
    """
    if jax.process_count() > 1 and count_tasks(made.tests["test"].source) is not None:
        return {}
    test, count = made.tests["test"], min(_CURVE_TASKS, made.results["num_tasks"])
    problem = test.problem
    assert problem is not None
    predict = predicting(
        lambda constants: made.recipe.build(problem._replace(constants=constants)),
        problem.ways,
        count,
        probabilities=made.recipe.probabilities,
        constants=problem.constants,
        at_once=1 if jax.default_backend() == "cpu" else 100,
    )
    # Each process has all parameters, and predicts by itself.
    found = predict(jax.device_get(made.trained), test.source, made.key)
    return {CURVE: curve_of(found.logarithms_TQW, found.targets_TQ)}


def curve_of(logarithms_TQW: np.ndarray, targets_TQ: np.ndarray) -> dict[str, Any]:
    """Coverage and risk at each threshold over the queries of all tasks, with 95 % intervals.

        coverage = mean_i c_i,  risk = Σ_i w_i / Σ_i c_i,  its half-width 1.96 s / (√n mean_i c_i)

    c_i is the fraction of the queries of task i that are answered, w_i the fraction that is
    answered wrongly, and s the standard deviation of w_i − risk c_i over the n tasks. Where no
    query is answered, the risk is NaN.

    >>> logarithms = np.log(np.array([[[0.9, 0.1], [0.6, 0.4]]] * 2))
    >>> found = curve_of(logarithms, np.array([[0, 1]] * 2))
    >>> found["coverage"][0], found["risk"][0], found["coverage"][-1]
    (1.0, 0.5, 0.0)
    """
    found = jax.vmap(_curve)(jnp.asarray(logarithms_TQW), jnp.asarray(targets_TQ))
    coverages, risks = (np.asarray(own, np.float64) for own in found)
    wrong = risks * coverages
    with np.errstate(invalid="ignore", divide="ignore"):
        coverage = coverages.mean(axis=0)
        risk = wrong.mean(axis=0) / coverage
        residuals = (wrong - risk * coverages) / coverage
        values = {
            "coverage": estimate(coverages),
            "risk": Estimate(risk, estimate(residuals).ci95),
        }
    return {"thresholds": list(THRESHOLDS), **plain(values), "num_tasks": len(targets_TQ)}


def _curve(logarithms_QW: Array, targets_Q: Array) -> tuple[Array, Array]:
    probabilities = jnp.exp(logarithms_QW.max(axis=1))
    correct = logarithms_QW.argmax(axis=1) == targets_Q
    return risk_coverage(probabilities, correct, thresholds=jnp.array(THRESHOLDS))
