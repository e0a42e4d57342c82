"""One runner for all domains: load, check, train, evaluate, report, write `results.json`."""

import contextlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta import files
from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task, unpadded
from jaxmeta.data.identity import NOTHING, Seen
from jaxmeta.objectives import check_metrics
from jaxmeta.recipes import folders, settings
from jaxmeta.recipes.base import Engine, Experiment, Recipe, to_json
from jaxmeta.recipes.fitting import check_training, naming_settings
from jaxmeta.recipes.pictures import draw_run
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import (
    RESERVED,
    PerTask,
    check_finite,
    headline,
    plain,
    provenance,
    tasks_digest,
    write_per_task,
)
from jaxmeta.recipes.seen import write_seen
from jaxmeta.recipes.tasks import HeldOut, Problem, Report, Tasks
from jaxmeta.training import checkpoints
from jaxmeta.training.estimates import estimates, per_task
from jaxmeta.training.feed import count_tasks, on_all_devices, without_constants
from jaxmeta.training.loop import train_with_checkpoints
from jaxmeta.training.memory import check_fits, check_program_fits
from jaxmeta.training.parallel import (
    check_same,
    mesh_for,
    on_first_process,
    raise_on_all_processes,
)
from jaxmeta.training.state import shared_of, untrained
from jaxmeta.training.update import MetaUpdate, Supplied, Trained, with_constants


class Loaded(NamedTuple):
    """An experiment with its tasks.

    Attributes:
      experiment: resolved.
      tasks: of its domain.
      constants: frozen weights; `()` where there are none.
      data: `Tasks.data`, and the checksum of the constants.
      of_training, of_test: the problems of training and, by default, of tests.
    """

    experiment: Experiment
    tasks: Tasks
    constants: PyTree
    data: dict[str, Any]
    of_training: Problem
    of_test: Problem


def load(experiment: Experiment, seen: Seen = NOTHING) -> Loaded:
    """The tasks of an experiment; data is loaded here. No test has a class that was `seen`.

    Raises:
      ValueError, OSError: of the domain.
    """
    domain = experiment.domain
    tasks = domain.tasks(experiment.training, experiment.learner.needs._replace(seen=seen))
    constants = domain.constants(tasks.data)
    data = with_checksum(tasks.data, constants)
    with naming_settings(experiment):  # before they are made
        for shapes in jax.eval_shape(
            lambda: [own.example for own in problems(experiment, tasks.data, constants)]
        ):
            check_fits("the arrays of a single task", shapes)
        for test in tasks.tests.values():
            if count_tasks(test.source) is None:  # drawn, not read
                draw: Any = without_constants(test.source)
                shapes = jax.eval_shape(draw, jax.random.key(0))
                check_fits("the arrays of a single task", shapes)
    return Loaded(experiment, tasks, constants, data, *problems(experiment, tasks.data, constants))


def problems(
    experiment: Experiment, data: Mapping[str, Any], constants: PyTree
) -> tuple[Problem, Problem]:
    """What the learner is built for in training, and by default in tests."""
    of_training, of_test = (
        experiment.domain.problem(
            experiment.training, experiment.learner.needs, data, train=train
        )._replace(constants=constants)
        for train in (True, False)
    )
    return of_training, of_test


def with_checksum(data: Mapping[str, Any], constants: PyTree) -> dict[str, Any]:
    """What identifies the data, with the checksum of frozen weights where there are some."""
    if not jax.tree.leaves(constants):
        return dict(data)
    return {**data, "constants_sha256": checkpoints.parameters_sha256(constants)}


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

        run(start(find_domain("regression"), find_learner("maml")), "runs/sinusoids")

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
      ArithmeticError: the run has diverged.
    """
    folder, progress = Path(folder), progress or Progress(quiet=True)
    settings.check(experiment)
    with contextlib.ExitStack() as held:  # by process 0, for all that train together
        take = folders.taken(folder, resume=resume, overwrite=overwrite, say=progress.say)
        on_first_process(lambda: held.enter_context(take))
        return _run(experiment, folder, resume, overwrite, devices, progress)


def _run(
    experiment: Experiment,
    folder: Path,
    resume: bool,
    overwrite: bool,
    devices: int | None,
    progress: Progress,
) -> tuple[dict[str, Any], Tasks]:
    loaded = raise_on_all_processes(lambda: load(experiment.resolved()))
    training, recipe, tasks = experiment.training, experiment.learner, loaded.tasks
    of_recipe = raise_on_all_processes(recipe.data)
    loaded = loaded._replace(data={**loaded.data, **of_recipe})
    source, validation = raise_on_all_processes(lambda: (tasks.train(), tasks.validation()))
    for note in tasks.notes:
        progress.say(note)
    mesh = mesh_for(
        training.task_batch, devices, tasks_at_once=training.tasks_at_once, evenly=tasks.streamed
    )
    with naming_settings(loaded.experiment):
        trained = _try_shapes(recipe, loaded.of_training)
        _try_shapes(recipe, loaded.of_test)
        check_training(training, trained, loaded.of_training)
    update = _meta_update(recipe, Engine(training, tasks, mesh), loaded)
    check_same(_digest(loaded), "give all the same options and the same data.")
    on_first_process(
        lambda: folders.prepare_folder(
            folder, loaded.experiment, loaded.data, resume=resume, overwrite=overwrite
        )
    )
    identity = raise_on_all_processes(lambda: _identity_of(folder))
    on_first_process(lambda: write_seen(folder, tasks, anew=not resume))

    train_key, validation_key, _ = run_keys(training.seed)
    # Evaluation has tasks for all devices, also where a training batch has not.
    everywhere = mesh_for(jax.device_count(), devices)
    validate = Evaluator(loaded, everywhere).judged(validation, training.validation_tasks)
    select = tasks.selection
    with progress.training(recipe.name, training.steps) as report:
        outcome = train_with_checkpoints(
            folder,
            update,
            Supplied(source, loaded.constants) if jax.tree.leaves(loaded.constants) else source,
            train_key,
            steps=training.steps,
            task_batch=training.task_batch,
            validate=lambda trained: estimates(validate(trained, validation_key)),
            score=lambda found: (1 if select.higher else -1) * float(found[select.metric].mean),
            checkpoint_every=training.checkpoint_every,
            chunk=training.chunk,
            mesh=mesh,
            resume=resume,
            identity=identity,
            report=report,
            say=progress.say,
        )
    trained = _finished(folder, loaded, outcome.best, outcome.best_step, identity)

    progress.say(f"evaluating the best checkpoint (step {outcome.best_step}) on held-out tasks.")
    results = {
        **describe(loaded),
        folders.IDENTITY: identity,
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
    results, values, made = evaluate(loaded, trained, results, folder, everywhere, say=progress.say)

    def keep() -> None:
        write_per_task(folder / folders.PER_TASK, values, identity)
        files.write_json(folder / folders.RESULTS, results)
        draw_run(recipe, tasks, made)

    on_first_process(keep)
    check_finite(tasks, results, folder / folders.RESULTS)
    return results, tasks


class Evaluator(NamedTuple):
    """Judges what was trained on held-out tasks."""

    loaded: Loaded
    mesh: Mesh | None

    def problem(self, test: HeldOut) -> Problem:
        """What the learner is built for there."""
        problem = test.problem or self.loaded.of_test
        return problem._replace(constants=self.loaded.constants)

    def judged(self, test: HeldOut, count: int) -> Any:
        """`evaluate(trained, key)`: the metrics of `count` tasks by name, `[count, ...]`."""

        def judge(
            key: Key, learner: MetaLearner, trained: Trained, task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            shared = shared_of(learner, trained)
            loss, info = learner.loss(key, trained.meta_params, task, **shared)
            return loss, info.metrics

        return self._over_tasks(test, test.number or count, test.judge or judge)

    def followed(self, test: HeldOut, count: int) -> Any:
        """As `judged`, with the metrics after 0, 1, 2, ... inner steps, `[count, steps + 1]`."""
        objective = self.problem(test).objective

        def judge(
            key: Key, learner: MetaLearner, trained: Trained, task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            assert learner.trajectory is not None
            with unpadded(task.query) as (query,):
                given = (key, trained.meta_params, task.support, query.inputs)
                outputs = learner.trajectory(*given, **shared_of(learner, trained))
            return jax.vmap(lambda outputs: objective(outputs, query.targets, query.mask))(outputs)

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

        training, tasks = self.loaded.experiment.training, self.loaded.tasks
        at_once = test.at_once or min(training.tasks_at_once or tasks.at_once or 100, 100)
        evaluate = per_task(of_task, count, tasks_at_once=at_once, mesh=self.mesh)
        source = None if test.prepare else on_all_devices(test.source, self.mesh)

        def of_trained(trained: Trained, key: Key) -> dict[str, np.ndarray]:
            where = source
            if test.prepare is not None:
                where, trained = test.prepare(recipe.build(problem), trained)
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
    """The results with the figures of every test, the values of its tasks, and what to draw."""
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


def describe(loaded: Loaded) -> dict[str, Any]:
    """What was learned from what, and the protocol that makes the number comparable."""
    experiment, tasks = loaded.experiment, loaded.tasks
    training, select = experiment.training, tasks.selection
    fields = to_json(experiment)["learner"]
    return files.plain(
        {
            "experiment": experiment.domain.name,
            "learner": experiment.learner.name,
            **tasks.summary,
            "protocol": {
                "inner": {name: value for name, value in fields.items() if name != "name"},
                "selected_on": f"validation {select.metric.replace('_', ' ')}, "
                f"{training.validation_tasks} tasks every {training.checkpoint_every} steps",
                **tasks.protocol,
            },
        }
    )


def run_keys(seed: int) -> Key:
    """Three keys of a run: of training, of validation tasks, of test tasks."""
    return jax.random.split(jax.random.key(seed), 3)


def _meta_update(recipe: Recipe, engine: Engine, loaded: Loaded) -> MetaUpdate:
    problem = loaded.of_training
    if not jax.tree.leaves(loaded.constants):
        return recipe.update(recipe.build(problem), engine)
    # Built within the compiled program, so that big weights are its argument and not in its text.
    return with_constants(
        lambda constants: recipe.update(recipe.build(problem._replace(constants=constants)), engine)
    )


def _finished(folder: Path, loaded: Loaded, best: Trained, step: int, identity: str) -> Trained:
    """What the recipe makes of the best checkpoint, if it does; kept beside the checkpoints."""
    key = jax.random.fold_in(run_keys(loaded.experiment.training.seed)[0], 1)
    recipe, calibration = loaded.experiment.learner, loaded.tasks.calibration
    finished = recipe.finish(key, best, loaded.of_training, calibration)
    if finished is None:
        return best
    checkpoints.save_best(
        folder / folders.FINISHED, step, finished, metadata={folders.IDENTITY: identity}
    )
    return finished


def _try_shapes(recipe: Recipe, problem: Problem) -> Trained:
    """Raises, before a folder is made or a program compiled, what the learner has against them.

    Returns:
      the shapes of what is trained.
    """
    task = problem.example

    def adapt(key: Key, constants: PyTree) -> Any:
        learner = recipe.build(problem._replace(constants=constants))
        trained = untrained(learner, key, task)
        given = (key, trained.meta_params, task.support)
        return trained, learner.adapt(*given, **shared_of(learner, trained))

    trained, _ = check_program_fits(
        "adaptation and its arrays", adapt, jax.random.key(0), problem.constants
    )
    return trained


def _digest(loaded: Loaded) -> int:
    """31 bits of what all processes of a run must have in common."""
    text = json.dumps(files.plain([to_json(loaded.experiment), loaded.data]), sort_keys=True)
    return zlib.crc32(text.encode()) >> 1


def _identity_of(folder: Path) -> str:
    """The identity of the run, as process 0 wrote it."""
    if not (folder / folders.CONFIG).exists():
        raise ValueError(
            f"process 0 made {folder}, which is not seen here: share it between hosts."
        )
    return folders.read_identity(folder)
