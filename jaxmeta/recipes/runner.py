"""One runner for all domains: load, check, train, evaluate, report, write `results.json`."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta import files, plots
from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task
from jaxmeta.recipes import settings
from jaxmeta.recipes.base import Engine, Experiment, Recipe, to_json
from jaxmeta.recipes.folders import CONFIG, FINISHED, RESULTS, prepare_folder
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import (
    PerTask,
    plain,
    provenance,
    tasks_digest,
    write_per_task,
)
from jaxmeta.recipes.tasks import HeldOut, Problem, Report, Tasks
from jaxmeta.training import checkpoints
from jaxmeta.training.estimates import Estimate, estimates, per_task, trajectory_evaluation
from jaxmeta.training.feed import on_all_devices
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.loop import train_with_checkpoints
from jaxmeta.training.parallel import (
    check_same,
    mesh_for,
    on_first_process,
    raise_on_all_processes,
)
from jaxmeta.training.update import MetaUpdate, Supplied, Trained, with_constants

PER_TASK = "per_task.npz"


def run(
    experiment: Experiment,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    devices: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Tasks]:
    """Train, evaluate the best checkpoint on test tasks, draw, write `results.json`.

    Args:
      experiment: what the run is made from.
      folder: takes everything that the run writes.
      resume: go on from the newest checkpoint there.
      overwrite: delete the run that lies there.
      devices: that share the tasks of a batch. Defaults to as many of all as make it shorter.
      progress: shows the training.

    Returns:
      The results, as in `results.json`, and the tasks.

    Raises:
      ValueError, OSError: in one plain line, before anything is compiled where that is possible.
    """
    folder, progress = Path(folder), progress or Progress(quiet=True)
    settings.check(experiment)
    experiment = experiment.resolved()
    training, recipe = experiment.training, experiment.learner
    tasks = raise_on_all_processes(lambda: experiment.domain.tasks(training, recipe.needs))
    mesh = mesh_for(
        training.task_batch, devices, tasks_at_once=training.tasks_at_once, evenly=tasks.evenly
    )
    for problem in (tasks.problem, *(test.problem for test in tasks.tests.values())):
        _try_shapes(recipe, problem)
    update = _meta_update(recipe, Engine(training, tasks, mesh))
    check_same(_digest(experiment, tasks), "give all the same options and the same data.")
    data = dict(tasks.data)
    on_first_process(
        lambda: prepare_folder(folder, experiment, data, resume=resume, overwrite=overwrite)
    )
    raise_on_all_processes(lambda: _check_visible(folder))

    train_key, validation_key, _ = run_keys(training.seed)
    # Evaluation has tasks for all devices, also where a training batch has not.
    everywhere = mesh_for(jax.device_count(), devices)
    evaluator = Evaluator(recipe, tasks, everywhere)
    validate = evaluator.of(tasks.validation, training.validation_tasks)
    select = tasks.selection
    with progress.training(recipe.name, training.steps) as report:
        outcome = train_with_checkpoints(
            folder,
            update,
            Supplied(tasks.train, tasks.constants) if _has(tasks.constants) else tasks.train,
            train_key,
            steps=training.steps,
            task_batch=training.task_batch,
            validate=lambda trained: estimates(validate(trained, validation_key)),
            score=lambda found: _sign(select.higher) * float(found[select.metric].mean),
            checkpoint_every=training.checkpoint_every,
            chunk=training.chunk,
            mesh=mesh,
            resume=resume,
            report=report,
            say=progress.say,
        )
    trained = _finished(folder, recipe, tasks, outcome.best, outcome.best_step, training.seed)

    progress.say(f"evaluating the best checkpoint (step {outcome.best_step}) on held-out tasks.")
    results = {
        **describe(experiment, tasks),
        "seed": training.seed,
        "steps": training.steps,
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        "tasks_per_second": round(outcome.tasks_per_second, 1),
        **provenance(mesh),
        "parameters_sha256": checkpoints.parameters_sha256(outcome.state.meta_params),
        "evaluated_parameters_sha256": checkpoints.parameters_sha256(trained.meta_params),
        "resumed_from_step": outcome.resumed_from_step,
    }
    results, values, made = evaluate(
        experiment, tasks, trained, results, folder, everywhere, say=progress.say
    )

    def keep() -> None:
        write_per_task(folder / PER_TASK, values)
        files.write_json(folder / RESULTS, results)
        _draw(recipe, tasks, made)

    on_first_process(keep)
    return results, tasks


class Evaluator(NamedTuple):
    """Judges what was trained on the tasks of a test; see `of`."""

    recipe: Recipe
    tasks: Tasks
    mesh: Mesh | None

    def learner(self, test: HeldOut) -> MetaLearner:
        """The learner as it is judged there."""
        return self.recipe.build(test.problem._replace(constants=self.tasks.constants))

    def at_once(self, test: HeldOut) -> int:
        """As many tasks at once as in training, where that is not all of them."""
        return test.at_once or min(self.tasks.at_once or 100, 100)

    def of(self, test: HeldOut, count: int) -> Any:
        """`evaluate(trained, key)`: the metrics of every task, by name, `[tasks, ...]`."""

        def judge(
            key: Key, given: tuple[Trained, PyTree], task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            trained, constants = given
            learner = self.recipe.build(test.problem._replace(constants=constants))
            if test.judge is not None:
                return test.judge(key, learner, trained, task)
            shared = {} if learner.shared is None else {"shared": trained.shared}
            loss, info = learner.loss(key, trained.meta_params, task, **shared)
            return loss, info.metrics

        number = test.number or count
        evaluate = per_task(judge, number, tasks_at_once=self.at_once(test), mesh=self.mesh)
        source = on_all_devices(test.source, self.mesh)

        def of_trained(trained: Trained, key: Key) -> dict[str, np.ndarray]:
            drawn_from = source
            if test.prepare is not None:
                drawn_from, trained = test.prepare(self.learner(test), trained)
            return evaluate((trained, self.tasks.constants), drawn_from, key)

        return of_trained


def evaluate(
    experiment: Experiment,
    tasks: Tasks,
    trained: Trained,
    results: dict[str, Any],
    folder: Path,
    mesh: Mesh | None,
    *,
    key: Key | None = None,
    say: Any = print,
) -> tuple[dict[str, Any], dict[str, PerTask], Report]:
    """The results with the figures of every test, the values of its tasks, and what to draw."""
    training = experiment.training
    key = run_keys(training.seed)[2] if key is None else key
    evaluator = Evaluator(experiment.learner, tasks, mesh)
    values: dict[str, PerTask] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, test in tasks.tests.items():
        if len(tasks.tests) > 1:
            say(f"evaluating on {name}.")
        count = test.number or training.eval_tasks
        found = evaluator.of(test, count)(trained, key)
        values[name] = PerTask(tasks_digest(test.drawn, key, count), found)
        single = {metric: own for metric, own in found.items() if own.ndim == 1}
        rows[name] = {**plain(estimates(single)), "num_tasks": count}
        followed = min(test.followed, count)
        learner = evaluator.learner(test)
        if followed and learner.trajectory is not None:
            follow = trajectory_evaluation(
                learner,
                test.problem.objective,
                followed,
                tasks_at_once=evaluator.at_once(test),
                mesh=mesh,
            )
            curve: dict[str, Estimate] = follow(
                trained.meta_params, on_all_devices(test.source, mesh), key
            )
            rows[name]["after_inner_steps"] = {**plain(curve), "num_tasks": followed}
    results = {**results, **next(iter(rows.values()))}
    if len(rows) > 1:
        results["tests"] = rows
    made = Report(
        folder,
        f"{experiment.learner.name} · {tasks.title}",
        experiment.learner,
        results,
        trained,
        tasks.tests,
        {name: evaluator.learner(test) for name, test in tasks.tests.items()},
        {name: own.values for name, own in values.items()},
        key,
        say,
    )
    if tasks.report is not None:
        results |= tasks.report(made)
    return results, values, made


def describe(experiment: Experiment, tasks: Tasks) -> dict[str, Any]:
    """What was learned from what, and the protocol that makes the number comparable."""
    training, select = experiment.training, tasks.selection
    fields = to_json(experiment)["learner"]
    return {
        "experiment": experiment.domain.name,
        "learner": experiment.learner.name,
        **tasks.described,
        "protocol": {
            "inner": {name: value for name, value in fields.items() if name != "name"},
            "selected_on": f"validation {select.metric.replace('_', ' ')}, "
            f"{training.validation_tasks} tasks every {training.checkpoint_every} steps",
            **tasks.protocol,
        },
    }


def run_keys(seed: int) -> Key:
    """Three keys of a run: of training, of validation tasks, of test tasks."""
    return jax.random.split(jax.random.key(seed), 3)


def _meta_update(recipe: Recipe, engine: Engine) -> MetaUpdate:
    problem = engine.tasks.problem
    if not _has(engine.tasks.constants):
        return recipe.update(recipe.build(problem), engine)
    # Built within the compiled program, so that big weights are its argument and not in its text.
    return with_constants(
        lambda constants: recipe.update(recipe.build(problem._replace(constants=constants)), engine)
    )


def _has(constants: PyTree) -> bool:
    return bool(jax.tree.leaves(constants))


def _sign(higher: bool) -> int:
    return 1 if higher else -1


def _finished(
    folder: Path, recipe: Recipe, tasks: Tasks, best: Trained, step: int, seed: int
) -> Trained:
    """What the recipe makes of the best checkpoint, if it does; kept beside the checkpoints."""
    key = jax.random.fold_in(run_keys(seed)[0], 1)
    finished = recipe.finish(key, best, tasks.problem, tasks.calibration)
    if finished is None:
        return best
    checkpoints.save_best(folder / FINISHED, step, finished, metadata={})
    return finished


def _try_shapes(recipe: Recipe, problem: Problem) -> None:
    """Raises, before a folder is made or a program compiled, what the learner has against them."""
    learner, task = recipe.build(problem), problem.example

    def adapt(key: Key) -> Any:
        meta_params = learner.init(key, task)
        shared = {}
        if learner.shared is not None:
            shared["shared"] = learner.shared(key, meta_params, task)
        return learner.adapt(key, meta_params, task.support, **shared)

    jax.eval_shape(adapt, jax.random.key(0))


def _digest(experiment: Experiment, tasks: Tasks) -> int:
    """31 bits of what all processes of a run must have in common."""
    text = json.dumps(files.plain([to_json(experiment), dict(tasks.data)]), sort_keys=True)
    return zlib.crc32(text.encode()) >> 1


def _check_visible(folder: Path) -> None:
    if not (folder / CONFIG).exists():
        raise ValueError(
            f"process 0 made {folder}, which is not seen here: share it between hosts."
        )


def _draw(recipe: Recipe, tasks: Tasks, made: Report) -> None:
    """The pictures that every run has, and those of its domain."""
    path, results = made.folder / "learning_curve.png", made.results
    title = made.title
    if sizes := results["protocol"].get("train_episode"):
        shown = (f"{' to '.join(map(str, _listed(size)))} {name}" for name, size in sizes.items())
        title += f"\ntrained on {', '.join(shown)}"
    plots.learning_curve(path, read_metrics(made.folder), title=title)
    if (curve := results.get("after_inner_steps")) is not None:
        figure = next(own for own in (*tasks.figures, tasks.selection) if own.metric in curve)
        plots.adaptation_curve(
            made.folder / "adaptation.png",
            np.asarray(curve[figure.metric]),
            np.asarray(curve[f"{figure.metric}_ci95"]),
            ylabel=f"test {figure.metric}" if figure.percent else figure.label,
            title=made.title,
            trained_steps=getattr(recipe, "inner_steps", len(curve[figure.metric]) - 1),
        )
    if tasks.draw is not None:
        tasks.draw(made)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
