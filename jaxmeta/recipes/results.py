"""Results of a run: figures, the values of every task, and their provenance."""

import io
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta import files
from jaxmeta.extras import extra
from jaxmeta.recipes.folders import IDENTITY, RESULTS
from jaxmeta.recipes.outputs import MADE_FROM
from jaxmeta.recipes.tasks import Figure, Tasks
from jaxmeta.training.estimates import Estimate
from jaxmeta.training.parallel import size_of
from jaxmeta.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

# Other entries of results.json and of the per-task values, which no metric may be named after.
RESERVED = ("experiment", "learner", "protocol", "seed", "steps", "best_step", "wall_seconds")
RESERVED += ("tasks_per_second", "command", "commit", "device", "versions", "parameters_sha256")
RESERVED += ("evaluated_parameters_sha256", "resumed_from_step", "num_tasks", "tasks", "tests")
RESERVED += ("after_inner_steps", "figure", IDENTITY, MADE_FROM, "run")


def plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """The estimates as `{"accuracy": ..., "accuracy_ci95": ...}`, of numbers or lists."""
    flat = {}
    for name, estimate in estimates.items():
        flat[name] = estimate.mean.tolist()
        flat[f"{name}_ci95"] = estimate.ci95.tolist()
    return flat


def provenance(mesh: Mesh | None = None) -> dict[str, Any]:
    """The command, source commit, device and package versions that a result depends on."""
    device = jax.devices()[0]
    name = f"{device.device_kind} × {size_of(mesh)}"
    if device.platform == "cpu":
        name += f" ({os.cpu_count()} cores)"
    if jax.process_count() > 1:
        name += f", {jax.process_count()} processes"
    return {
        "command": _command(),
        "commit": _commit(),
        "device": name,
        "versions": {
            "jaxmeta": __version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
    }


def _command() -> str:
    """The command that started the process, without the machine's own paths."""
    called = Path(sys.orig_argv[1]) if len(sys.orig_argv) > 1 else Path()
    if called.name == "jaxmeta":  # the console script
        return shlex.join(["jaxmeta", *sys.orig_argv[2:]])
    return shlex.join(["python", *sys.orig_argv[1:]])


def _commit() -> str | None:
    """The commit of the package's source, with `-dirty` if files have changed since; None if the
    package is not in a checkout of its own."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        git += ["--abbrev=40", "--exclude=*"]
        found = subprocess.run(git, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


# --- the values of every task -------------------------------------------------------------


class PerTask(NamedTuple):
    """The metrics of every task of a test.

    Attributes:
      tasks: a digest that identifies the tasks and their key.
      values: by metric, `[tasks]`.
    """

    tasks: str
    values: Mapping[str, np.ndarray]


def tasks_digest(drawn: Mapping[str, Any], key: jax.Array, count: int) -> str:
    """A SHA-256 of the tasks drawn with this key: equal digests mean equal tasks."""
    of_key = np.asarray(jax.random.key_data(key)).tolist()
    return files.sha256([files.plain(dict(drawn)), of_key, count])


def write_per_task(path: Path, tests: Mapping[str, PerTask], identity: str | None = None) -> None:
    """Write the values of every task as a compressed array file with entries `TEST/METRIC`.

    `identity` is the run's identity.
    """
    arrays: dict[str, Any] = {} if identity is None else {IDENTITY: np.array(identity)}
    for test, of_test in tests.items():
        arrays[f"{test}/tasks"] = np.array(of_test.tasks)
        for metric, values in of_test.values.items():
            if values.ndim == 1:
                arrays[f"{test}/{metric}"] = values.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue())


def read_per_task(path: Path, identity: str | None = None) -> dict[str, PerTask]:
    """Read the values that `write_per_task` wrote, for the run with this identity if given.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it can't be read, or belongs to another run.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: this run has no per-task values; evaluate it again or, if its "
            "checkpoints are gone, train it again with the command in its results.json."
        )
    try:
        arrays: dict[str, Any] = files.read_arrays(path)
        owner = _text(arrays.pop(IDENTITY)) if IDENTITY in arrays else None
        found: dict[str, dict[str, Any]] = {}
        for name, array in arrays.items():
            test, _, metric = name.rpartition("/")
            found.setdefault(test, {})[metric] = array
        tests = {test: PerTask(_text(own.pop("tasks")), own) for test, own in found.items()}
        for test, own in tests.items():
            kinds = {(values.dtype, values.ndim, values.size) for values in own.values.values()}
            if {kind[:2] for kind in kinds} != {(np.dtype(np.float32), 1)} or len(kinds) > 1:
                raise ValueError(f"it does not hold one number per task of {test!r}")
    except Exception as error:  # a damaged archive raises many kinds of errors
        raise ValueError(f"{path} can't be read ({error}); evaluate the run again.") from error
    if None not in (identity, owner) and owner != identity:
        raise ValueError(
            f"{path} holds the values of run {owner}, but run {identity} is expected (digests of "
            "settings and data); evaluate the run again."
        )
    return tests


def _text(array: np.ndarray) -> str:
    if array.ndim or array.dtype.kind != "U" or not str(array).isprintable():
        raise ValueError("it does not hold a digest where one is expected")
    return str(array)


# --- closing lines ------------------------------------------------------------------------


def headline(tasks: Tasks, results: Mapping[str, Any]) -> Figure:
    """The main figure of these results."""
    return next((figure for figure in tasks.figures if figure.metric in results), tasks.selection)


def check_finite(tasks: Tasks, results: Mapping[str, Any], path: Path) -> None:
    """Check that the figures are finite.

    Raises:
      ArithmeticError: a figure that is not, and its test; `path` holds all figures.
    """
    for name, row in results.get("tests", {"": results}).items():
        for metric in (headline(tasks, row).metric, "loss"):
            half = row.get(f"{metric}_ci95", 0.0) if row["num_tasks"] > 1 else 0.0
            if not np.isfinite([row.get(metric, 0.0), half]).all():
                where = f" of {name}" if name else ""
                raise ArithmeticError(
                    f"the {metric.replace('_', ' ')}{where} is NaN or infinite on some of "
                    f"{row['num_tasks']} held-out tasks: adaptation diverges. Try a smaller inner "
                    f"rate or fewer inner steps. The other figures are in {path}."
                )


def closing_lines(tasks: Tasks, results: Mapping[str, Any]) -> list[str]:
    """One line per test, as `maml · glyphs · 5-way 1-shot · 93.1 ± 0.6 % on 1000 held-out tasks`,
    then the domain's own lines."""
    lines = figure_lines(tasks, results)
    return lines + (tasks.extra_lines(results) if tasks.extra_lines else [])


def figure_lines(tasks: Tasks, results: Mapping[str, Any]) -> list[str]:
    """The main figure of every test, one line each."""
    lines = []
    several = results.get("tests", {})
    for name, row in several.items() or [("", results)]:
        figure = headline(tasks, row)
        shown = figure.show(row[figure.metric], row[f"{figure.metric}_ci95"])
        test = f" · {name}" if len(several) > 1 else ""
        title = files.shown(f"{results['learner']} · {tasks.title}")
        lines.append(f"{title}{test} · {shown} on {row['num_tasks']} held-out tasks")
    return lines


# The entries that the runs of all seeds have in common.
_OF_ALL = ("experiment", "learner", "figure", "steps", "num_tasks", "command")
_OF_ALL += ("commit", "device", "versions")


def summarise_seeds(folder: Path, tasks: Tasks, runs: Sequence[dict[str, Any]]) -> list[str]:
    """Write the mean over n seeds and its interval, t s / √n, for every test; the closing lines."""
    first = runs[0]
    figure = headline(tasks, first).metric
    summary = {
        **{name: first[name] for name in (*_OF_ALL, *tasks.summary) if name in first},
        "protocol": _common([results["protocol"] for results in runs]),
        **_over_seeds(runs, figure),
        "seeds": [results["seed"] for results in runs],
        "runs": list(runs),
    }
    if "tests" in first:
        summary["tests"] = {
            name: {
                **_over_seeds([results["tests"][name] for results in runs], figure),
                "num_tasks": row["num_tasks"],
            }
            for name, row in first["tests"].items()
        }
    if jax.process_index() == 0:
        files.write_json(folder / RESULTS, summary)
    return [f"{line}, over {len(runs)} seeds" for line in figure_lines(tasks, summary)]


def _common(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The protocol of all runs; an entry that differs, such as a random split's, is a list.

    >>> _common([{"shots": 1, "split_seed": 0}, {"shots": 1, "split_seed": 1}])
    {'shots': 1, 'split_seed': [0, 1]}
    """
    found = {}
    for name, value in protocols[0].items():
        values = [own.get(name) for own in protocols]
        found[name] = value if all(own == value for own in values) else values
    return found


def ci95_over_seeds(std: Any, count: int) -> Any:
    """Half-width of the 95 % interval of a mean over `count` seeds: t s / √n."""
    with extra("train"):
        from scipy.special import stdtrit

    return stdtrit(count - 1, 0.975) * std / math.sqrt(count)


def _over_seeds(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    values = [row[metric] for row in rows]
    std = statistics.stdev(values)
    return {
        metric: statistics.fmean(values),
        f"{metric}_ci95": float(ci95_over_seeds(std, len(values))),
        f"{metric}_std_between_seeds": std,
    }
