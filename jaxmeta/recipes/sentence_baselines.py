"""Classifiers of frozen embeddings on the test tasks of a run, without meta-training."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmeta.core import Array, Key, Objective, PyTree, Task, cross_entropy
from jaxmeta.extras import extra
from jaxmeta.learners import prototypical
from jaxmeta.models import on_features
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import estimate, per_task
from jaxmeta.training.feed import first_task, sampler, tasks_at
from jaxmeta.training.state import draw

PROTOTYPES = "prototypes of frozen embeddings"
REGRESSION = "logistic regression on frozen embeddings"


def compared(made: Report, sources: Mapping[str, Any], ways: int) -> dict[str, Any]:
    """The accuracy of the frozen classifiers in each test, and paired differences.

    `sources` have the same tasks as the tests, with embeddings as inputs.
    """
    found = {}
    for test, source in sources.items():
        learned = made.values[test]["accuracy"]
        given = (source, made.key, len(learned))
        rows = {}
        for name, accuracy in (
            (PROTOTYPES, frozen_prototypes(*given, ways)),
            (REGRESSION, logistic_regression(*given)),
        ):
            rows[name] = beside(accuracy, learned)
        found[test] = rows
    return {"frozen": found}


def beside(found: np.ndarray, learned: np.ndarray, metric: str = "accuracy") -> dict[str, float]:
    """The mean of a baseline's metric, and of the paired difference of the learner to it."""
    own, lead = estimate(found), estimate(learned - found)
    return {
        metric: float(own.mean),
        f"{metric}_ci95": float(own.ci95),
        "learned_minus_this": float(lead.mean),
        "learned_minus_this_ci95": float(lead.ci95),
    }


def lines_of(results: Mapping[str, Any], metric: str = "accuracy") -> list[str]:
    """A line per baseline and test, with the paired difference of the learner to it."""
    lines = []
    for test, rows in results["frozen"].items():
        if "tests" in results:
            shots = f"{results['shots']}-shot" if test == "test" else test
            lines.append(f"{shots}: {_percent(results['tests'][test], metric)} %")
        lines += [
            f"{name}: {_percent(row, metric)} % "
            f"(the learner {_percent(row, 'learned_minus_this', sign='+')})"
            for name, row in rows.items()
        ]
    return lines


def _percent(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    return f"{100 * row[name]:{sign}.2f} ± {100 * row[f'{name}_ci95']:.2f}"


def frozen_prototypes(
    source: Any,
    key: Key,
    tasks: int,
    ways: int,
    *,
    objective: Objective = cross_entropy,
    metric: str = "accuracy",
) -> np.ndarray:
    """The accuracy, or another metric, of the nearest mean embedding by cosine, for each task."""
    learner = prototypical(on_features(), objective, ways, distance="cosine")

    def judge(key: Key, params: PyTree, task: Task) -> tuple[Array, Mapping[str, Array]]:
        loss, info = learner.loss(key, params, task)
        return loss, info.metrics

    first = jax.eval_shape(first_task(source), key)
    params = learner.init(key, first)
    return per_task(judge, tasks, tasks_at_once=min(tasks, 100))(params, source, key)[metric]


def logistic_regression(source: Any, key: Key, tasks: int) -> np.ndarray:
    """The accuracy of scikit-learn's logistic regression on embeddings of norm 1, for each task."""
    with extra("text"):
        from sklearn.linear_model import LogisticRegression
    sample = jax.jit(lambda sample, key, listed: draw(sample, key, listed)[0])
    found = []
    for index, own in enumerate(jax.random.split(key, tasks)):
        listed = jax.tree.map(lambda leaf: leaf[0], tasks_at(source, index, 1, None))
        support, query = jax.device_get(sample(sampler(source), own, listed))
        given, asked = (
            inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
            for inputs in (support.inputs, query.inputs)
        )
        # C = 10: with embeddings of norm 1, the default of 1 hardly departs from equal odds.
        fitted = LogisticRegression(C=10.0).fit(given, support.targets)
        correct = fitted.predict(asked) == query.targets
        found.append(correct[... if query.mask is None else query.mask].mean())
    return np.array(found)
