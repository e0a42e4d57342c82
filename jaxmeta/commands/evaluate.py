"""Evaluate a run again, also with other ways, shots or data: `evaluate RUN [OPTIONS]`.

The options are the settings of the run's domain and learner that may change after training;
`evaluate RUN --help` lists them.
"""

import dataclasses
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxmeta import files
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import RunPath, recipes_named
from jaxmeta.data.identity import NOTHING
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.evaluation import evaluate
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.fitting import naming_settings
from jaxmeta.recipes.folders import CONFIG, IDENTITY, Stored, read_config, read_identity, results_in
from jaxmeta.recipes.loading import Loaded, describe, load, run_keys, untrained_shapes
from jaxmeta.recipes.outputs import MADE_FROM, digest_of, is_made_from, result_file, result_path
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.recipes.results import check_finite, closing_lines, provenance, write_per_task
from jaxmeta.recipes.seen import is_same, read_seen, refuse_seen, seen_of
from jaxmeta.recipes.settings import AtLeastTwo, Seed
from jaxmeta.recipes.shipped import find_run, shipped
from jaxmeta.recipes.tasks import query_inputs
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.update import Trained


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the best checkpoint of a run on held-out tasks."""

    run_dir: RunPath
    """The run folder, or the name of a trained learner that ships with the package.
    If a folder of that name exists, it is the run."""
    eval_tasks: AtLeastTwo | None = None
    """Number of held-out tasks. Defaults to the run's own number."""
    seed: Seed | None = None
    """Seed of the tasks. Defaults to the run's seed, with the same tasks as in its results."""
    out: Path | None = None
    """JSON file for the result. Defaults to evaluation-OPTIONS.json in the run folder, where
    OPTIONS are the changed settings, such as ways-20-shots-1; for a learner that ships with the
    package, NAME-evaluation-OPTIONS.json in the working folder."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


def command(arguments: list[str], prog: str) -> None:
    """Evaluate, write the result into the run folder or --out, print the closing lines."""
    registry.load(recipes_named(arguments))
    stored = _stored(arguments)
    options, changes = _parse(arguments, stored, prog)
    evaluate_run(options, changes)


def evaluate_run(options: Evaluate, changes: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a run with other settings (`changes`, by name); write and return the results.

    Raises:
      ValueError, OSError: unknown settings, data of another shape, or a file that holds another
        result.
      ArithmeticError: the run has diverged.
    """
    settings.check(options)
    run = find_run(options.run_dir)
    experiment, data = read_config(run)
    identity = read_identity(run)
    if options.out is not None:
        files.check_writable(options.out)
    training = experiment.training
    seed = training.seed if options.seed is None else options.seed
    count = training.eval_tasks if options.eval_tasks is None else options.eval_tasks
    more = {} if count == training.eval_tasks else {"eval_tasks": count}
    named = changes | more | ({} if seed == training.seed else {"seed": seed})
    changed = experiment.domain.evaluation_changes(changes)
    experiment = experiment.changed(**changed, **more)
    settings.check(experiment)
    restored = restore_as(run, experiment, data)
    loaded = _load_unseen(run, experiment, data)
    tasks = loaded.tasks
    _check_shapes(restored.example, loaded.of_training.example)
    _check_parameters(restored.trained, loaded)
    if not is_same(loaded.data, data):
        split = tasks.protocol.get("split")
        print(f"note: other data than in training, with the split {split}", file=sys.stderr)
    if tasks.streamed and seed != experiment.training.seed:
        raise ValueError(
            f"--seed {seed}: tasks that are streamed from the host have the run's own seed, "
            f"{experiment.training.seed}; leave --seed out."
        )
    mesh = mesh_for(jax.device_count())
    places = settings.places(type(experiment.domain))  # their content is in the data
    own = {name: value for name, value in changed.items() if name not in places}
    of_tests = [test.identity for test in tasks.tests.values()]
    made_from = digest_of(identity, own, more, seed, loaded.data, of_tests)
    own_run = run == options.run_dir
    where, stem = (run, "evaluation") if own_run else (Path(), f"{options.run_dir}-evaluation")
    path = options.out or result_path(where, stem, named, made_from, ".npz")
    described = describe(loaded)
    described["protocol"] |= _of_training(run)
    results = {
        **described,
        "run": run.name,
        IDENTITY: identity,
        MADE_FROM: made_from,
        "seed": seed,
        "best_step": restored.step,
        **provenance(mesh),
    }
    with result_file(path, is_made_from(made_from), ".npz"):
        results, values, _ = evaluate(
            loaded, restored.trained, results, path.parent, mesh, key=run_keys(seed)[2]
        )
        # The values last: without the result, their origin would be unknown.
        files.write_json(path, results)
        write_per_task(path.with_suffix(".npz"), values, identity)
    check_finite(tasks, results, path)
    for line in closing_lines(tasks, results):
        print(line)
    print(f"result: {path}")
    return results


def _load_unseen(folder: Path, experiment: Experiment, data: dict[str, Any]) -> Loaded:
    """Load the tasks of an evaluation, without classes that the run has seen.

    Raises:
      ValueError: the tests contain such classes, or the seen classes are unknown.
    """
    seen = read_seen(folder, data)
    loaded = load(experiment, seen or NOTHING, data)
    if is_same(loaded.data, data):
        return loaded
    if seen is None:
        # An older run stores no list of classes: they are read from its data.
        try:
            own = load(read_config(folder).experiment)
        except (ValueError, OSError):  # the data is missing or has changed
            own = None
        if own is None or own.tasks.classes is None or not is_same(own.data, data):
            raise ValueError(
                f"{folder} does not list the classes that it was trained on, and its data is "
                "missing or has changed, so the tests may contain such classes. Evaluate it on the "
                "data that it was trained on."
            )
        seen = seen_of(own.tasks)
    loaded = load(experiment, seen, data)
    refuse_seen(loaded.tasks, seen)
    return loaded


def _of_training(run: Path) -> dict[str, Any]:
    """What the protocol of the run says of its training, which other data does not change."""
    protocol = results_in(run).get("protocol", {})
    return {name: value for name, value in protocol.items() if name.startswith("train")}


def _check_shapes(trained: Any, tested: Any) -> None:
    """Check that the examples have the same shape as in training."""

    def shapes(task: Any) -> list[tuple[int, ...]]:
        return [leaf.shape[1:] for leaf in jax.tree.leaves(query_inputs(task))]

    one, other = shapes(trained), shapes(tested)
    if one != other:
        raise ValueError(
            f"these tasks have inputs of shape {other[0]}, but the run was trained on {one[0]} "
            "(for images: height, width, channels); choose another --dataset, or give --image-size "
            "or --color."
        )


def _check_parameters(trained: Trained, loaded: Loaded) -> None:
    """Check that a learner of these tasks has parameters of the same shapes.

    Raises:
      ValueError: it has not, for example because a table has more classes.
    """
    with naming_settings(loaded.experiment):
        own = untrained_shapes(loaded.experiment.learner, loaded.of_test)
    if jax.tree.structure(own) != jax.tree.structure(trained):
        return  # changed after training
    pairs = zip(jax.tree_util.tree_leaves_with_path(own), jax.tree.leaves(trained), strict=True)
    for (path, leaf), there in pairs:
        if leaf.shape != np.shape(there):
            raise ValueError(
                f"these tasks require parameters{jax.tree_util.keystr(path)} of shape "
                f"{leaf.shape}, but the run has {np.shape(there)}; evaluate it on tasks with as "
                "many classes and outputs."
            )


def _stored(arguments: list[str]) -> Stored | None:
    """The settings of the run among the arguments; None if no run is given, as with --help."""
    words = [word for word in arguments if not word.startswith("-")]
    known = shipped()
    runs = [word for word in words if (Path(word) / CONFIG).is_file() or word in known]
    folders = [*runs, *words]
    return read_config(find_run(Path(folders[0]))) if folders else None


def _parse(
    arguments: list[str], stored: Stored | None, prog: str
) -> tuple[Evaluate, dict[str, Any]]:
    parts: dict[str, Any] = {}
    if stored is not None:
        tasks, learner = map(_testable, (stored.experiment.domain, stored.experiment.learner))
        parts = {"tasks": tasks, "learner": learner}
    command = make_dataclass(
        "Command",
        [
            ("run", Evaluate),
            *((name, type(part), field(default=part)) for name, part in parts.items()),
        ],
    )
    parsed = tyro.cli(
        command,
        args=arguments,
        prog=prog,
        description="Evaluate the best checkpoint of a run on held-out tasks. Settings of the run "
        "that may change after training are options, too; give RUN and --help to list them.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    changes = {}
    for name, default in parts.items():
        now, before = map(settings.values, (getattr(parsed, name), default))
        changes |= {option: value for option, value in now.items() if value != before[option]}
    return parsed.run, changes


def _testable(part: Any) -> Any:
    """The same settings, with only those as options that may change after training."""
    free = {name for name, _ in settings.at_test(part)}
    redeclared, values = [], {}
    for own in dataclasses.fields(part):
        value = getattr(part, own.name)
        if dataclasses.is_dataclass(value):
            value = _testable(value)
            redeclared.append((own.name, type(value), field(default=value)))
        elif own.name not in free:
            hidden = tyro.conf.Suppress[tyro.conf.Fixed[own.type]]  # pyright: ignore
            redeclared.append((own.name, hidden, field(default=value)))
        values[own.name] = value
    kind = make_dataclass(type(part).__name__, redeclared, bases=(type(part),), frozen=True)
    return kind(**values)
