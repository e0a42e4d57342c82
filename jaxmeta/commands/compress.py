"""Compress the weights of a run, and measure what it costs: `compress RUN --method METHOD`.

Every version is evaluated on the test tasks of the run, with the same keys, so that differences to
the uncompressed learner are taken task by task. The times are those of one task alone.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from jaxmeta import files, plots
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import RunPath, read_arguments, recipes_named
from jaxmeta.files import shown
from jaxmeta.recipes import registry
from jaxmeta.recipes.compressing import (
    Compression,
    Cost,
    Further,
    check_gradual,
    costs,
    distilled_narrower,
    narrowed,
    pruned_at_once,
    pruned_gradually,
    with_eight_bits,
    with_sixteen_bits,
)
from jaxmeta.recipes.folders import IDENTITY, read_config, read_identity
from jaxmeta.recipes.loading import Loaded, describe, load, run_keys
from jaxmeta.recipes.outputs import MADE_FROM, digest_of, is_made_from, result_file, result_path
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.recipes.results import PerTask, headline, provenance, tasks_digest, write_per_task
from jaxmeta.recipes.seen import is_same
from jaxmeta.recipes.settings import AtLeastTwo, Bound, Count, Positive
from jaxmeta.recipes.shipped import find_run
from jaxmeta.recipes.tasks import Figure
from jaxmeta.training.estimates import estimate
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.update import Trained

Sparsity = Annotated[float, Bound(lambda value: 0 <= value < 1, "at least 0 and below 1")]


@dataclass(frozen=True)
class Compress:
    """Compress the weights of a trained run; measure bytes, accuracy and time."""

    run_dir: RunPath
    """The run folder, or the name of a trained learner that ships with the package."""
    method: Literal["prune", "gradual", "int8", "bfloat16", "distil", "all"] = "prune"
    """prune: set the smallest weights to zero;
    gradual: the same, step by step during further training;
    int8: eight bits for each weight, with a scale per output channel;
    bfloat16: sixteen bits for each weight;
    distil: train a narrower network to match the predictions (classification);
    all: each of these."""
    sparsity: tuple[Sparsity, ...] = (0.6, 0.8, 0.9, 0.95)
    """Fractions of zeros, with prune and gradual."""
    steps: Count = 500
    """Meta-updates of further training, with gradual and distil."""
    outer_rate: Positive | None = None
    """Learning rate of further training. Defaults to that of the run with distil, to a tenth of it
    with gradual."""
    width: Count | None = None
    """Width of the narrower network, with distil. Defaults to half of the run's."""
    temperature: Positive = 2.0
    """Temperature of the class probabilities that are matched, with distil."""
    eval_tasks: AtLeastTwo | None = None
    """Number of test tasks. Defaults to the run's own number."""
    out: Path | None = None
    """JSON file for the result. Defaults to compression-METHOD.json in the run folder; for a
    learner that ships with the package, NAME-compression-METHOD.json in the working folder."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


class Row(NamedTuple):
    """One version of the run in the table."""

    name: str
    cost: Cost


def command(arguments: list[str], prog: str) -> None:
    """Compress, measure, write the result, print a table."""
    registry.load(recipes_named(arguments))
    compress_run(read_arguments(Compress, prog, arguments))


def compress_run(options: Compress) -> dict[str, Any]:
    """As `command`, with parsed options; the result.

    Raises:
      ValueError, OSError: a run that can't be compressed, or a file that holds another result.
      ArithmeticError: further training diverged.
    """
    run = find_run(options.run_dir)
    experiment, data = read_config(run)
    identity = read_identity(run)
    if options.out is not None:
        files.check_writable(options.out)
    restored = restore_as(run, experiment, data)
    loaded = load(experiment)
    if not is_same(loaded.data, data):
        raise ValueError(f"{shown(run)} was trained on other data; provide the same data.")
    if options.method == "gradual":
        check_gradual(loaded, restored.trained, options.steps)
    if options.method == "distil":
        narrowed(loaded, options.width)
    mesh = mesh_for(jax.device_count())
    test_name, test = next(iter(loaded.tasks.tests.items()))
    count = test.number or options.eval_tasks or experiment.training.eval_tasks
    settings = dataclasses.asdict(options)
    settings = {name: settings[name] for name in settings.keys() - {"run_dir", "out", "recipes"}}
    made_from = digest_of(identity, settings, loaded.data)
    own_run = run == options.run_dir
    beside = own_run and options.out is None  # in the run folder, whose name says which run
    stem = "compression" if beside else f"{run.name}-compression"
    where = run if own_run else Path()
    path = options.out or result_path(where, f"{stem}-{options.method}", {}, made_from, ".npz")
    results = {
        **describe(loaded),
        "run": run.name,
        IDENTITY: identity,
        MADE_FROM: made_from,
        "seed": experiment.training.seed,
        "best_step": restored.step,
        "settings": settings,
        **provenance(mesh),
        "num_tasks": count,
    }
    digest = tasks_digest(test.identity, run_keys(experiment.training.seed)[2], count)
    with result_file(path, is_made_from(made_from), ".npz"):
        cost = costs(loaded, count, mesh)
        rows = [Row("uncompressed", cost(restored.trained))]
        figure = headline(loaded.tasks, rows[0].cost.values)
        title = shown(f"{experiment.learner.name} · {loaded.tasks.title}")
        print(f"{title} · on {count} held-out tasks")
        print(_header(figure))
        print(_line(rows[0], rows[0], figure))
        for compression in _compressions(options, loaded, restored.trained):
            own = cost if compression.loaded is loaded else costs(compression.loaded, count, mesh)
            rows.append(Row(compression.name, own(compression.trained)))
            print(_line(rows[-1], rows[0], figure), flush=True)
            results |= {"figure": figure.metric, "rows": [_entry(r, rows[0], figure) for r in rows]}
            files.write_json(path, results)  # after every row: later ones may take long
        several = len(rows) > 2
        tests = {
            (row.name if several else test_name): PerTask(digest, row.cost.values)
            for row in rows[1:]
        }
        write_per_task(path.with_suffix(".npz"), tests, identity)
        _draw(path.parent / f"{stem}.png", _found(path.parent, results), figure, title)
    print(f"result: {path}")
    return results


def _compressions(options: Compress, loaded: Loaded, trained: Trained) -> Iterator[Compression]:
    """The versions that were asked for, each made when its turn comes.

    With `--method all`, methods that the run does not support are left out, with a note.
    """
    given, rate = (loaded, trained), loaded.experiment.training.outer_rate
    as_before = Further(options.steps, options.outer_rate or rate)
    slower = Further(options.steps, options.outer_rate or rate / 10)
    match, progress = (options.width, options.temperature), Progress()
    versions: Mapping[str, list[Callable[[], Compression]]] = {
        "prune": [partial(pruned_at_once, *given, own) for own in options.sparsity],
        "gradual": [
            partial(pruned_gradually, *given, own, slower, progress) for own in options.sparsity
        ],
        "int8": [partial(with_eight_bits, *given)],
        "bfloat16": [partial(with_sixteen_bits, *given)],
        "distil": [partial(distilled_narrower, *given, *match, as_before, progress)],
    }
    for method, makers in versions.items():
        if options.method not in (method, "all"):
            continue
        try:
            for make in makers:
                yield make()
        except ValueError as error:
            if options.method != "all":
                raise
            print(f"note: {error}", file=sys.stderr)


def _difference(row: Row, first: Row, metric: str) -> tuple[float, float]:
    """The paired difference to the uncompressed learner, with its interval."""
    own, before = (np.asarray(r.cost.values[metric], np.float64) for r in (row, first))
    mean, ci95 = estimate(own - before)
    return float(mean), float(ci95)


def _entry(row: Row, first: Row, figure: Figure) -> dict[str, Any]:
    mean, ci95 = estimate(row.cost.values[figure.metric])
    difference, difference_ci95 = _difference(row, first, figure.metric)
    return {
        "name": row.name,
        "bytes": row.cost.bytes,
        figure.metric: float(mean),
        f"{figure.metric}_ci95": float(ci95),
        "difference": difference,
        "difference_ci95": difference_ci95,
        "milliseconds": row.cost.milliseconds,
    }


def _header(figure: Figure) -> str:
    label = figure.label or figure.metric.replace("_", " ")
    return f"{'':20} {'bytes':>10}  {label:24} {'difference':18} {'ms a task':>9}"


def _line(row: Row, first: Row, figure: Figure) -> str:
    """A line of the table, such as `int8  1,234  95.9 ± 0.1 %  -0.13 ± 0.02  3.1`."""
    mean, ci95 = map(float, estimate(row.cost.values[figure.metric]))
    scale = 100 if figure.percent else 1
    difference = "–"
    if row is not first:
        change, change_ci95 = _difference(row, first, figure.metric)
        difference = f"{scale * change:+.3g} ± {scale * change_ci95:.2g}"
    result = figure._replace(label="").show(mean, ci95)
    result = result.removeprefix(f"{figure.metric.replace('_', ' ')} ")
    return (
        f"{row.name:20} {row.cost.bytes:10,}  {result:24} {difference:18} "
        f"{row.cost.milliseconds:9.2f}"
    )


def _found(folder: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The versions in all results of the run in the folder, on as many tasks, the largest first."""
    rows = {row["name"]: row for row in results["rows"]}
    for path in sorted(folder.glob("*compression-*.json")):
        other = files.read_json(path)
        if all(other.get(name) == results[name] for name in (IDENTITY, "figure", "num_tasks")):
            rows = {row["name"]: row for row in other["rows"]} | rows
    first = rows.pop("uncompressed")
    return [first, *sorted(rows.values(), key=lambda row: -row["bytes"])]


def _draw(path: Path, rows: list[dict[str, Any]], figure: Figure, title: str) -> None:
    """The results of all versions over their bytes."""
    plots.size_and_result(
        path,
        [row["name"] for row in rows],
        np.array([row["bytes"] for row in rows]),
        np.array([row[figure.metric] for row in rows]),
        np.array([row[f"{figure.metric}_ci95"] for row in rows]),
        ylabel=f"test {figure.metric}" if figure.percent else figure.label or figure.metric,
        percent=figure.percent,
        title=title,
    )
