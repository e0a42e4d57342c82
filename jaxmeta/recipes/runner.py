"""One runner for all domains: load, check, train, evaluate, report, write `results.json`."""

import contextlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmeta import files
from jaxmeta.core import Key, PyTree
from jaxmeta.recipes import folders, settings
from jaxmeta.recipes.base import Engine, Recipe
from jaxmeta.recipes.evaluation import Evaluator, evaluate
from jaxmeta.recipes.experiment import Experiment, to_json
from jaxmeta.recipes.fitting import check_training, naming_settings
from jaxmeta.recipes.loading import Loaded, describe, load, run_keys
from jaxmeta.recipes.pictures import draw_run
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import (
    check_finite,
    provenance,
    write_per_task,
)
from jaxmeta.recipes.seen import write_seen
from jaxmeta.recipes.tasks import Figure, Problem, Tasks
from jaxmeta.training import checkpoints
from jaxmeta.training.estimates import Estimate, estimates
from jaxmeta.training.loop import Outcome, train_with_checkpoints
from jaxmeta.training.memory import check_program_fits
from jaxmeta.training.parallel import (
    check_same,
    mesh_for,
    on_first_process,
    raise_on_all_processes,
)
from jaxmeta.training.state import shared_of, untrained
from jaxmeta.training.update import MetaUpdate, Supplied, Trained, with_constants


def run(
    experiment: Experiment,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    devices: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Tasks]:
    """Train, evaluate the best checkpoint on test tasks, and write `results.json` and pictures.

        run(start(find_domain("regression"), find_learner("maml")), "runs/sinusoids")

    Args:
      experiment: the domain, the learner and the training settings.
      folder: the folder for everything that the run writes.
      resume: continue from the newest checkpoint in the folder.
      overwrite: replace the run in the folder.
      devices: number of devices that share a task batch. Defaults to as many as speed it up.
      progress: shows the progress. Defaults to showing nothing.

    Returns:
      The results, as in `results.json`, and the tasks.

    Raises:
      ValueError, OSError: with a message of one line, before compilation where possible.
      ArithmeticError: the run has diverged.
    """
    folder, progress = Path(folder), progress or Progress(quiet=True)
    settings.check(experiment)
    with contextlib.ExitStack() as held:  # by process 0, for all processes of the run
        take = folders.locked_run_folder(
            folder, resume=resume, overwrite=overwrite, say=progress.say
        )
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
    check_same(_digest(loaded), "give all processes the same options and the same data.")
    on_first_process(
        lambda: folders.prepare_folder(
            folder, loaded.experiment, loaded.data, resume=resume, overwrite=overwrite
        )
    )
    identity = raise_on_all_processes(lambda: _identity_of(folder))
    on_first_process(lambda: write_seen(folder, tasks, anew=not resume))

    train_key, validation_key, _ = run_keys(training.seed)
    # An evaluation has enough tasks for all devices, even if a training batch does not.
    everywhere = mesh_for(jax.device_count(), devices)
    validate = Evaluator(loaded, everywhere).judged(validation, training.validation_tasks)
    finish = _finish(loaded)
    with progress.training(recipe.name, training.steps) as report:
        outcome = train_with_checkpoints(
            folder,
            update,
            Supplied(source, loaded.constants) if jax.tree.leaves(loaded.constants) else source,
            train_key,
            steps=training.steps,
            task_batch=training.task_batch,
            validate=lambda own: estimates(validate(finish(own) or own, validation_key)),
            score=None if tasks.keeps_last else _score(tasks.selection),
            checkpoint_every=training.checkpoint_every,
            chunk=training.chunk,
            mesh=mesh,
            resume=resume,
            identity=identity,
            report=report,
            say=progress.say,
        )
    trained = outcome.best
    if (finished := finish(trained)) is not None:
        trained, known = finished, {folders.IDENTITY: identity}
        checkpoints.save_best(folder / folders.FINISHED, outcome.best_step, trained, metadata=known)

    which = "last" if tasks.keeps_last else "best"
    progress.say(f"evaluating the {which} checkpoint (step {outcome.best_step}) on held-out tasks.")
    results = {
        **describe(loaded),
        folders.IDENTITY: identity,
        "seed": training.seed,
        "steps": training.steps,
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        "tasks_per_second": round(outcome.tasks_per_second, 1),
        "parameters_sha256": _digest_of(outcome.state.trained),
        "evaluated_parameters_sha256": _digest_of(trained),
        **_origin(folder, identity, mesh, outcome),
    }
    results, values, made = evaluate(loaded, trained, results, folder, everywhere, say=progress.say)

    def keep() -> None:
        write_per_task(folder / folders.PER_TASK, values, identity)
        files.write_json(folder / folders.RESULTS, results)
        draw_run(recipe, tasks, made)

    on_first_process(keep)
    check_finite(tasks, results, folder / folders.RESULTS)
    return results, tasks


def _origin(folder: Path, identity: str, mesh: Mesh | None, outcome: Outcome) -> dict[str, Any]:
    """What trained the parameters; it stays if a complete run is resumed, which trains nothing."""
    own = {**provenance(mesh), "resumed_from_step": outcome.resumed_from_step}
    before = folders.results_in(folder)
    is_complete = outcome.resumed_from_step == int(outcome.state.step)
    if is_complete and before.get(folders.IDENTITY) == identity and own.keys() <= before.keys():
        return {name: before[name] for name in own}
    return own


def _score(select: Figure) -> Callable[[Mapping[str, Estimate]], float]:
    return lambda found: (1 if select.higher else -1) * float(found[select.metric].mean)


def _meta_update(recipe: Recipe, engine: Engine, loaded: Loaded) -> MetaUpdate:
    problem = loaded.of_training
    if not jax.tree.leaves(loaded.constants):
        return recipe.update(recipe.build(problem), engine)
    # Built within the compiled program, so that large weights are arguments, not constants of it.
    return with_constants(
        lambda constants: recipe.update(recipe.build(problem._replace(constants=constants)), engine)
    )


def _finish(loaded: Loaded) -> Callable[[Trained], Trained | None]:
    """`Recipe.finish`, compiled; the calibration is an argument, not a constant of the program."""
    key = jax.random.fold_in(run_keys(loaded.experiment.training.seed)[0], 1)
    recipe, problem = loaded.experiment.learner, loaded.of_training

    @jax.jit
    def finish(trained: Trained, calibration: PyTree) -> Trained | None:
        return recipe.finish(key, trained, problem, calibration)

    calibration = loaded.tasks.calibration()
    return lambda trained: finish(trained, calibration)


def _try_shapes(recipe: Recipe, problem: Problem) -> Trained:
    """Trace the learner on these shapes, to raise its errors before anything is compiled.

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


def _digest_of(trained: Trained) -> str:
    """The digest of the meta-parameters, with shared values where there are some."""
    whole = trained if jax.tree.leaves(trained.shared) else trained.meta_params
    return checkpoints.parameters_sha256(whole)


def _digest(loaded: Loaded) -> int:
    """A 31-bit digest of the settings and data, which must be equal in all processes of a run."""
    text = json.dumps(files.plain([to_json(loaded.experiment), loaded.data]), sort_keys=True)
    return zlib.crc32(text.encode()) >> 1


def _identity_of(folder: Path) -> str:
    """The identity of the run, as process 0 wrote it."""
    if not (folder / folders.CONFIG).exists():
        raise ValueError(
            f"process 0 made {folder}, but this process can't see it; share it between hosts."
        )
    return folders.read_identity(folder)
