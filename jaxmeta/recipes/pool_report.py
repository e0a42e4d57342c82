"""The evaluation on whole pools, beside baselines and published figures, paired by pool."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.calibration import reliability
from jaxmeta.core import (
    Array,
    Batch,
    Key,
    MetaLearner,
    Task,
    cross_entropy,
    squared_error,
    unpadded,
)
from jaxmeta.data._whole_pools import WholePools
from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.pool_sets import PoolSet
from jaxmeta.data.pool_sets.dataset import Baseline
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood, mean_of
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.tasks import Figure, Report
from jaxmeta.training.estimates import estimate
from jaxmeta.training.state import Trained, shared_of

_VERSION = 2  # of the baselines that are kept in the cache
_FEW = 50  # pools: with more, the results have no figures of each


def judge_of(dataset: PoolSet) -> Callable[..., tuple[Array, Mapping[str, Array]]]:
    """`judge(key, learner, trained, task, draws=False)`: the loss and the metrics of the set.

    With `draws`, a task has all draws of a pool, and its metrics are the means over the draws.
    """

    def of_draw(
        key: Key, learner: MetaLearner, trained: Trained, task: Task, draws: bool
    ) -> tuple[Array, dict[str, Array]]:
        shared = shared_of(learner, trained)
        task = task if dataset.prepare is None else dataset.prepare(task)
        with unpadded(task.query) as (query,):
            adapted = learner.adapt(key, trained.meta_params, task.support, **shared)
            outputs = learner.predict(adapted, query.inputs)
        objective: Any = cross_entropy if dataset.ways else squared_error
        if isinstance(outputs, Gaussian):
            objective = gaussian_likelihood
        loss, found = objective(outputs, query.targets, query.mask)
        own = _details(dataset, mean_of(outputs), query) if draws else {}
        return loss, {**found, **dataset.metrics(mean_of(outputs), query), **own}

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task, draws: bool = False
    ) -> tuple[Array, Mapping[str, Array]]:
        if not draws:
            return of_draw(key, learner, trained, task, draws)
        keys = jax.random.split(key, jax.tree.leaves(task)[0].shape[0])
        each = jax.lax.map(
            lambda given: of_draw(given[0], learner, trained, given[1], draws), (keys, task)
        )
        return jax.tree.map(lambda values: values.mean(axis=0), each)

    return judge


def _details(dataset: PoolSet, outputs: Array, query: Batch) -> dict[str, Array]:
    """The set's own details; of two classes also `reliability`, the sums of a diagram, `[3, B]`."""
    found = dict(dataset.details(outputs, query)) if dataset.details else {}
    if dataset.ways == 2:
        probabilities = jax.nn.softmax(outputs)[:, 1]
        sums = reliability(probabilities, query.targets, query.mask)
        found["reliability"] = jnp.stack(sums)
    return found


def compared(
    made: Report, dataset: PoolSet, wholes: Mapping[str, WholePools], draws: int
) -> dict[str, Any]:
    """The baselines and the published figures on the pools of each test, and the differences.

    `learned_minus_this` is the mean over pools of the learner's figure minus the other's, with the
    95 % interval of the paired differences. Baselines learn from the first `draws` draws. With at
    most 50 pools, `by_pool` has the figure of every method on each.
    """
    name, rows = dataset.figure, {}
    for test, whole in wholes.items():
        own = np.asarray(made.values[test][name], np.float64)
        beside: dict[str, Any] = {}
        outputs = {made.recipe.name: dict(made.values[test])}
        for baseline, learn in dataset.baselines.items() if draws else ():
            made.say(f"{test}: {baseline}.")
            found = baseline_values(dataset, whole, learn, baseline, draws)
            outputs[baseline] = found
            single = {metric: values for metric, values in found.items() if values.ndim == 1}
            beside[baseline] = {
                **plain({metric: estimate(values) for metric, values in single.items()}),
                **_lead(own - found[name]),
            }
        row: dict[str, Any] = {"baselines": beside}
        if dataset.ways == 2:
            sums = {method: own["reliability"].sum(axis=0) for method, own in outputs.items()}
            row["reliability"] = {method: own.tolist() for method, own in sums.items()}
        names = [dataset.test.names[pool] for pool in whole.pools.tolist()]
        if len(names) <= _FEW:
            row["by_pool"] = {
                pool: {method: float(own[name][at]) for method, own in outputs.items()}
                for at, pool in enumerate(names)
            }
        if dataset.further is not None:
            row |= dataset.further(whole, outputs)
        for method, figures in dataset.published(whole.size).items():
            places = [row for row, own_name in enumerate(names) if own_name in figures]
            if len(places) > 1:
                theirs = np.array([figures[names[place]] for place in places])
                row.setdefault("published", {})[method] = {
                    **plain({name: estimate(theirs)}),
                    **_lead(own[places] - theirs),
                    "num_tasks": len(places),
                }
        rows[test] = row
    return {"comparison": rows}


def _lead(differences: np.ndarray) -> dict[str, float]:
    return plain({"learned_minus_this": estimate(differences)})


def baseline_values(
    dataset: PoolSet, whole: WholePools, learn: Baseline, name: str, draws: int
) -> dict[str, np.ndarray]:
    """The metrics of a baseline, the mean over the first draws of each pool: `[pools]` by metric.

    They are kept in the cache, since they are the same for every learner.
    """
    pools, leaves = (
        dataset.test,
        [np.asarray(leaf) for leaf in jax.tree.leaves(dataset.test.inputs)],
    )
    digest = hashlib.sha256(f"{_VERSION} {name} {draws} {whole.size} {dataset.ways}".encode())
    for function in (learn, dataset.metrics, dataset.details):  # a set of your own may change them
        digest.update(_source_of(function).encode())
    for places in whole.places:
        chosen = places[:draws]
        digest.update(np.ascontiguousarray(pools.rows[chosen]).tobytes())
        digest.update(np.ascontiguousarray(pools.targets[chosen]).tobytes())
        for leaf in leaves:
            digest.update(np.ascontiguousarray(leaf[pools.rows[chosen[0]]]).tobytes())

    @jax.jit
    def metrics(outputs: Array, query: Batch) -> dict[str, Array]:
        return {**dataset.metrics(outputs, query), **_details(dataset, outputs, query)}

    def of_draw(task: Task, prepare: Any, seed: int) -> dict[str, np.ndarray]:
        support, query = jax.tree.map(np.asarray, prepare(task))
        known, asked = support.mask, query.mask
        found = learn(support.inputs[known], support.targets[known], query.inputs[asked], seed)
        # In the shape of the stream, so that the metrics are compiled once for each.
        outputs = np.zeros((len(asked), found.shape[1]), np.float32)
        outputs[asked] = found
        judged = metrics(outputs, query)
        return {metric: np.asarray(value, np.float64) for metric, value in judged.items()}

    def build() -> dict[str, np.ndarray]:
        rows = []
        for stream in whole.source.streams:
            for index in range(len(stream.tasks)):
                task = stream.tasks[index]
                each = [
                    of_draw(_draw_of(task, seed), stream.prepare, seed)
                    for seed in range(min(draws, len(task.support.mask)))
                ]
                rows.append(
                    {metric: np.mean([own[metric] for own in each], axis=0) for metric in each[0]}
                )
        return {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}

    return cached_arrays(f"pool-baseline-{digest.hexdigest()[:24]}", build)


def _source_of(function: Any) -> str:
    """The source of a function; its name where there is none, as in an interpreter."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", "")


def _draw_of(task: Task, draw: int) -> Task:
    return jax.tree.map(lambda leaf: leaf[draw], task)


def comparison_lines(results: Mapping[str, Any], *, figure: Figure) -> list[str]:
    """A line for each baseline and each published method on each test."""
    lines = []
    for test, row in results["comparison"].items():
        for kind in ("baselines", "published"):
            for method, own in row.get(kind, {}).items():
                shown = figure.show(own[figure.metric], own[f"{figure.metric}_ci95"])
                shown += "" if kind == "baselines" else " (published)"
                lead = f"{own['learned_minus_this']:+.3g}"
                if np.isfinite(half := own["learned_minus_this_ci95"]):
                    lead += f" ± {half:.2g}"
                lines.append(f"{test} · {method}: {shown}, learned minus this {lead}")
    return lines


def draw_comparison(
    made: Report,
    *,
    figure: Figure,
    dataset: PoolSet | None = None,
    wholes: Mapping[str, WholePools] | None = None,
) -> None:
    """Draw the figure against the number of support examples, by method.

    With a set of pools that has published figures, also the learner's against theirs, by pool; with
    two classes, also a calibration diagram of each method.
    """
    from jaxmeta import plots

    rows = made.results["comparison"]
    learned = {
        test: (row[figure.metric], row[f"{figure.metric}_ci95"])
        for test, row in made.results.get("tests", {next(iter(rows)): made.results}).items()
    }
    curves: dict[str, dict[str, tuple[float, float]]] = {made.recipe.name: learned}
    faint = set()
    for test, row in rows.items():
        for kind in ("baselines", "published"):
            for method, own in row.get(kind, {}).items():
                label = method if kind == "baselines" else f"{method} (published)"
                if kind == "published":
                    faint.add(label)
                of_test = (own[figure.metric], own[f"{figure.metric}_ci95"])
                curves.setdefault(label, {})[test] = of_test
    label = figure.label or figure.metric.replace("_", " ")
    path = made.folder / "support-size.png"
    plots.figures_by_test(path, curves, label, title=made.title, faint=faint)
    if dataset is None or not wholes:
        return
    test, whole = list(wholes.items())[len(wholes) // 2]
    if published := dataset.published(whole.size):
        names = [dataset.test.names[pool] for pool in whole.pools.tolist()]
        plots.scatter_by_pool(
            made.folder / "by-pool.png",
            dict(zip(names, made.values[test][figure.metric])),
            published,
            label,
            name=made.recipe.name,
            title=f"{made.title} · {test}",
        )
    if sums := rows[test].get("reliability"):
        diagrams = {method: {test: tuple(np.array(own))} for method, own in sums.items()}
        path = made.folder / "calibration.png"
        plots.reliability_diagrams(path, diagrams, title=made.title, ylabel="frequency of class 1")
