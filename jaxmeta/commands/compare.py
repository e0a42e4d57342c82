"""Compare runs on the same test tasks, pairwise: `compare RUN RUN [RUN …]`.

Differences are taken task by task, so their interval is much smaller than those of the two runs.
"""

import itertools
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta import files
from jaxmeta.commands.guard import RunPaths, read_arguments, unknown_metric
from jaxmeta.files import shown
from jaxmeta.recipes.folders import IDENTITY, PER_TASK, RESULTS, refuse_seeds
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import PerTask, read_per_task
from jaxmeta.training.estimates import estimate


@dataclass(frozen=True)
class Compare:
    """Differences between runs on the same test tasks, with 95 % intervals."""

    runs: RunPaths
    """Two or more run folders, or result files of `evaluate`."""
    metric: str | None = None
    """The metric to compare. Defaults to the first main metric that all runs have."""
    out: Path | None = None
    """JSON file for the differences. Defaults to printing only."""


class Side(NamedTuple):
    """One run of a comparison."""

    name: str
    figure: str
    tests: dict[str, PerTask]


class Difference(NamedTuple):
    """The second run minus the first: mean and half-width of its 95 % interval over tasks."""

    test: str
    first: str
    second: str
    mean: float
    ci95: float
    tasks: int


def command(arguments: list[str], prog: str) -> None:
    """Print a line for every pair of runs and every test."""
    options = read_arguments(Compare, prog, arguments)
    if options.out is not None:
        files.check_writable(options.out)
    metric, found = compare(options.runs, options.metric)
    scale, unit = (100, " points") if metric == "accuracy" else (1, "")
    for row in found:
        test = f"{row.test} · " if row.test != "test" else ""
        mean, ci95 = scale * row.mean, scale * row.ci95
        print(
            f"{test}{metric.replace('_', ' ')} of {row.second} minus {row.first}: "
            f"{mean:+.3g} ± {ci95:.2g}{unit} on {row.tasks} tasks (95 % interval)"
        )
    if options.out is not None:
        rows: list[dict[str, Any]] = [row._asdict() for row in found]
        result = {"metric": metric, "differences": rows}
        with result_file(options.out, lambda found: found == files.plain(result)):
            files.write_json(options.out, result)


def compare(runs: tuple[Path, ...], metric: str | None = None) -> tuple[str, list[Difference]]:
    """The paired differences of all pairs of runs, on every test that they share.

        d_i = value_i of the second − value_i of the first,  mean d ± 1.96 s_d / √n

    Raises:
      ValueError: fewer than two runs, runs on different tasks, a metric that a run does not have.
      OSError: a run without per-task values.
    """
    if len(runs) < 2:
        raise ValueError("compare: give two or more runs.")
    if len({path.resolve() for path in runs}) < len(runs):
        raise ValueError("compare: a run is given twice; give each once.")
    sides = [_side(path) for path in runs]
    if len({side.name for side in sides}) < len(sides):  # such as the same seed of two runs
        sides = [side._replace(name=shown(path)) for side, path in zip(sides, runs)]
    shared = [name for name in sides[0].tests if all(name in side.tests for side in sides)]
    if not shared:
        raise ValueError(f"compare: {runs[0]} and {runs[1]} have no test in common.")
    known = [set(side.tests[shared[0]].values) for side in sides]
    if metric is None:
        in_all = [side.figure for side in sides if all(side.figure in own for own in known)]
        metric = next(iter(in_all), sides[0].figure)
    for side, own in zip(sides, known):
        if metric not in own:
            raise unknown_metric(metric, side.name, own)
    found = []
    for test in shared:
        for one, other in itertools.combinations(sides, 2):
            if one.tests[test].tasks != other.tests[test].tasks:
                raise ValueError(
                    f"{one.name} and {other.name} were not tested on the same tasks ({test}); "
                    "evaluate both with the same data, ways, shots, queries, seed and number of "
                    "tasks."
                )
            first, second = (side.tests[test].values.get(metric) for side in (one, other))
            if first is None or second is None or len(first) != len(second):
                raise ValueError(
                    f"{one.name} and {other.name} do not both have a {metric} of every task "
                    f"({test}); evaluate both again."
                )
            first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
            with np.errstate(all="ignore"):  # reported below
                mean, ci95 = estimate(second - first)
            if not np.isfinite([mean, ci95]).all():
                raise ValueError(
                    f"the {metric} of {one.name} or {other.name} is NaN or infinite on some tasks "
                    f"({test}): adaptation diverged there."
                )
            found.append(
                Difference(test, one.name, other.name, float(mean), float(ci95), len(first))
            )
    return metric, found


def _side(path: Path) -> Side:
    results = path / RESULTS if path.is_dir() else path
    values = path / PER_TASK if path.is_dir() else path.with_suffix(".npz")
    refuse_seeds(path, RESULTS)
    if not results.is_file():
        raise FileNotFoundError(f"{results} does not exist; give a finished run.")
    found = files.read_json(results)
    if not isinstance(found, dict):
        raise ValueError(f"{results} can't be read: it does not hold the results of a run.")
    figure, identity = found.get("figure", "loss"), found.get(IDENTITY)
    for entry, value in (("figure", figure), (IDENTITY, identity)):
        if not isinstance(value, str | None):
            raise ValueError(f"{results} can't be read: its {entry} is {reprlib.repr(value)}.")
    name = shown(path.name if path.is_dir() else f"{path.parent.name}/{path.name}")
    return Side(name, figure or "loss", read_per_task(values, identity))
