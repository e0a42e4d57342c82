"""The evaluation of a trained learner on held-out tasks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxmeta import files
from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task
from jaxmeta.objectives import check_metrics
from jaxmeta.recipes.loading import Loaded, run_keys, tasks_at_once
from jaxmeta.recipes.results import RESERVED, PerTask, headline, plain, tasks_digest
from jaxmeta.recipes.tasks import HeldOut, Problem, Report
from jaxmeta.training.estimates import after_steps, estimates, per_task
from jaxmeta.training.feed import on_all_devices
from jaxmeta.training.state import shared_of
from jaxmeta.training.update import Trained


class Evaluator(NamedTuple):
    """Evaluates a trained learner on held-out tasks."""

    loaded: Loaded
    mesh: Mesh | None

    def problem(self, test: HeldOut) -> Problem:
        """The problem that the learner is built for in this test."""
        problem = test.problem or self.loaded.of_test
        return problem._replace(constants=self.loaded.constants)

    def judged(self, test: HeldOut, count: int) -> Any:
        """`evaluate(trained, key)`: the metrics of `count` tasks, by name, `[count, ...]`."""

        def judge(
            key: Key, learner: MetaLearner, trained: Trained, task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            shared = shared_of(learner, trained)
            loss, info = learner.loss(key, trained.meta_params, task, **shared)
            return loss, info.metrics

        return self._over_tasks(test, test.number or count, test.judge or judge)

    def followed(self, test: HeldOut, count: int) -> Any:
        """As `judged`, but after each of 0, 1, 2, ... inner steps, `[count, steps + 1]`."""
        objective = self.problem(test).objective

        def judge(
            key: Key, learner: MetaLearner, trained: Trained, task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            given = (key, trained.meta_params, task)
            return after_steps(learner, objective, *given, **shared_of(learner, trained))

        return self._over_tasks(test, count, judge)

    def _over_tasks(self, test: HeldOut, count: int, judge: Callable[..., Any]) -> Any:
        recipe, problem = self.loaded.experiment.learner, self.problem(test)

        def of_task(key: Key, given: tuple[Trained, PyTree], task: Task) -> Any:
            # Built here, so that frozen weights are arguments of the program.
            trained, constants = given
            learner = recipe.build(problem._replace(constants=constants))
            loss, metrics = judge(key, learner, trained, task)
            check_metrics(metrics, *RESERVED, *tasks.summary)
            return loss, metrics

        tasks = self.loaded.tasks
        at_once = tasks_at_once(self.loaded.experiment, tasks, test)
        evaluate = per_task(of_task, count, tasks_at_once=at_once, mesh=self.mesh)
        source = None if test.prepare else on_all_devices(test.source, self.mesh)

        def of_trained(trained: Trained, key: Key) -> dict[str, np.ndarray]:
            where = source
            if test.prepare is not None:
                where, trained = test.prepare(recipe, trained)
            assert where is not None
            return evaluate((trained, self.loaded.constants), where, key)

        return of_trained


def evaluate(
    loaded: Loaded,
    trained: Trained,
    results: dict[str, Any],
    folder: Path,
    mesh: Mesh | None,
    *,
    key: Key | None = None,
    say: Callable[[str], object] = print,
) -> tuple[dict[str, Any], dict[str, PerTask], Report]:
    """Evaluate on every test: the results, the values of each task, and a report for pictures."""
    training, tasks, recipe = loaded.experiment.training, loaded.tasks, loaded.experiment.learner
    key = run_keys(training.seed)[2] if key is None else key
    evaluator = Evaluator(loaded, mesh)
    values: dict[str, PerTask] = {}
    rows: dict[str, dict[str, Any]] = {}
    tests = {
        name: own._replace(problem=evaluator.problem(own)) for name, own in tasks.tests.items()
    }
    learners = {name: recipe.build(own.problem) for name, own in tests.items()}  # pyright: ignore
    for name, test in tests.items():
        if len(tests) > 1:
            say(f"evaluating on {name}.")
        count = test.number or training.eval_tasks
        found = evaluator.judged(test, count)(trained, key)
        values[name] = PerTask(tasks_digest(test.identity, key, count), found)
        single = {metric: own for metric, own in found.items() if own.ndim == 1}
        rows[name] = {**plain(estimates(single)), "num_tasks": count}
        if learners[name].trajectory is not None and test.judge is None:
            few = count if test.trajectory_tasks is None else min(test.trajectory_tasks, count)
            curve = estimates(evaluator.followed(test, few)(trained, key))
            rows[name]["after_inner_steps"] = {**plain(curve), "num_tasks": few}
    results = {**results, **next(iter(rows.values()))}
    results["figure"] = headline(tasks, results).metric
    if len(rows) > 1:
        results["tests"] = rows
    made = Report(
        folder,
        files.shown(f"{recipe.name} · {tasks.title}"),
        recipe,
        results,
        trained,
        tests,
        learners,
        {name: own.values for name, own in values.items()},
        key,
        say,
    )
    if tasks.report is not None:
        results |= tasks.report(made)
    return results, values, made
