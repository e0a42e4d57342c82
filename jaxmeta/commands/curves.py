"""Draw a metric of several runs, along their training or over their tests: `curves RUN [RUN …]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmeta import files
from jaxmeta.commands.guard import RunPaths, read_arguments, unknown_metric
from jaxmeta.files import shown
from jaxmeta.recipes.sessions import session_names
from jaxmeta.training.logs import read_metrics


@dataclass(frozen=True)
class Curves:
    """A metric of several runs in one picture, along their training or over their tests."""

    runs: RunPaths
    """One or more run folders; of a run with --seeds, the mean over its seeds is drawn. Over tests
    or sessions also result files, such as those of evaluations."""
    out: Path
    """PNG file for the picture."""
    over: Literal["training", "tests", "sessions"] = "training"
    """The horizontal axis: meta-updates; the tests of the runs, such as lengths of a stream, with
    other methods in the result files of the runs; or the sessions of evaluations."""
    metric: str | None = None
    """The metric. Along the training as in metrics.jsonl: validation_accuracy, train_loss, ...
    (default validation_loss). Otherwise as in results.json; defaults to the run's main figure."""
    xlabel: str | None = None
    """What the tests differ in. Defaults to test, or to session."""
    title: str = ""
    """One line above the picture. Defaults to the metric."""


def command(arguments: list[str], prog: str) -> None:
    """Draw the picture, and print the last value of every run."""
    options = read_arguments(Curves, prog, arguments)
    files.check_writable(options.out)
    if len({path.name for path in options.runs}) < len(options.runs):
        raise ValueError("curves: two runs have the same folder name; rename one.")
    from jaxmeta import plots

    if options.over != "training":
        of_sessions = options.over == "sessions"
        label, curves = curves_of_tests(options.runs, options.metric, of_sessions=of_sessions)
        xlabel = options.xlabel or ("session" if of_sessions else "test")
        title = options.title or label
        plots.figures_by_test(
            options.out, curves, label, title=title, xlabel=xlabel, intervals=True
        )
        return
    metric = options.metric or "validation_loss"
    label = metric.replace("_", " ")
    found = {shown(path.name): curve_of(path, metric) for path in options.runs}
    plots.run_curves(options.out, found, ylabel=label, title=options.title or label)
    for name, curve in found.items():
        last = curve.values[:, -1]
        seeds = f", mean of {len(last)} seeds" if len(last) > 1 else ""
        print(f"{name}: {label} {last.mean():.4g} at step {curve.steps[-1]}{seeds}")


def curve_of(run: Path, metric: str):
    """The metric of a run, or of all its seeds, at the steps that they have in common.

    Raises:
      FileNotFoundError: the folder holds no run.
      ValueError: the run has no such metric, with those that it has.
    """
    from jaxmeta.plots import RunCurve

    folders = sorted(path.parent for path in run.glob("seed_*/metrics.jsonl")) or [run]
    series: list[dict[int, float]] = []
    for folder in folders:
        rows = read_metrics(folder)
        if not rows:
            raise FileNotFoundError(
                f"{shown(folder)} has no metrics.jsonl; give the folder of a run."
            )
        values = {  # the log has null for what is not finite
            int(row["step"]): np.nan if row[metric] is None else float(row[metric])
            for row in rows
            if metric in row
        }
        if not values:
            known = {name for row in rows for name in row if "_" in name}
            raise unknown_metric(metric, shown(folder), known)
        series.append(values)
    steps = sorted(set.intersection(*map(set, series)))
    if not steps:
        raise ValueError(f"the seeds of {shown(run)} have no step in common.")
    return RunCurve(np.array(steps), np.array([[own[step] for step in steps] for own in series]))


def curves_of_tests(
    runs: tuple[Path, ...], metric: str | None, *, of_sessions: bool = False
) -> tuple[str, dict[str, dict[str, tuple[float, float]]]]:
    """A label of the metric; its mean and interval by method and test. Accuracies are in percent.

    Raises:
      FileNotFoundError: a folder has no results.
      ValueError: a run has no such metric, or no sessions; runs have different tests.
    """
    curves: dict[str, dict[str, tuple[float, float]]] = {}
    for run in runs:
        path = run if run.suffix == ".json" else run / "results.json"
        if not path.is_file():
            raise FileNotFoundError(f"{shown(path)} is missing; give the folder of a run.")
        results = files.read_json(path)
        metric = metric or str(results["figure"])
        if of_sessions:
            methods = {run.stem: _sessions(results, metric, run)}
        else:
            methods = {run.stem: results.get("tests", {"test": results})}
            for test, rivals in results.get("rivals", {}).items():
                for rival, row in rivals.items():
                    methods.setdefault(f"{rival}, features of {run.name}", {})[test] = row
        tests = [*methods[run.stem]]
        for method, rows in methods.items():
            curves[method] = {test: _figure(row, metric, run) for test, row in rows.items()}
        expected = list(next(iter(curves.values())))
        if tests != expected:
            raise ValueError(
                f"{shown(run.name)} has {', '.join(tests)}, but {shown(runs[0].name)} has "
                f"{', '.join(expected)}; give runs with the same tests."
            )
    label = str(metric).replace("_", " ")
    return f"{label} (%)" if metric == "accuracy" else label, curves


def _sessions(results: Mapping[str, Any], metric: str, run: Path) -> dict[str, dict[str, float]]:
    """The metric after each session, by the session's number."""
    names = session_names(results, metric)
    if not names:
        raise ValueError(f"{shown(run.name)} has no {metric} by session; evaluate --sessions N.")
    return {
        str(number): {metric: results[name], f"{metric}_ci95": results[f"{name}_ci95"]}
        for number, name in enumerate(names, 1)
    }


def _figure(row: Mapping[str, Any], metric: str, run: Path) -> tuple[float, float]:
    if f"{metric}_ci95" not in row:
        known = (name.removesuffix("_ci95") for name in row if name.endswith("_ci95"))
        raise unknown_metric(metric, shown(run.name), known)
    scale = 100 if metric == "accuracy" else 1
    return scale * row[metric], scale * row[f"{metric}_ci95"]
