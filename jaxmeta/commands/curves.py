"""Draw a metric along the training of several runs: `curves RUN [RUN …] --out PICTURE`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxmeta import files
from jaxmeta.commands.guard import read_arguments
from jaxmeta.files import shown
from jaxmeta.training.logs import read_metrics


@dataclass(frozen=True)
class Curves:
    """A metric along the training of several runs, in one picture."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """One or more run folders; of a run with --seeds, the mean over its seeds is drawn."""
    out: Path
    """PNG file for the picture."""
    metric: str = "validation_loss"
    """The metric, as in metrics.jsonl: validation_accuracy, validation_return, train_loss, ..."""
    title: str = ""
    """One line above the picture. Defaults to the metric."""


def command(arguments: list[str], prog: str) -> None:
    """Draw the picture, and print the last value of every run."""
    options = read_arguments(Curves, prog, arguments)
    files.check_writable(options.out)
    from jaxmeta import plots

    label = options.metric.replace("_", " ")
    found = {shown(path.name): curve_of(path, options.metric) for path in options.runs}
    if len(found) < len(options.runs):
        raise ValueError("curves: two runs have the same folder name; rename one.")
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

    folders = sorted(run.glob("seed_*")) or [run]
    series: list[dict[int, float]] = []
    for folder in folders:
        rows = read_metrics(folder)
        if not rows:
            raise FileNotFoundError(
                f"{shown(folder)} has no metrics.jsonl; give the folder of a run."
            )
        values = {int(row["step"]): float(row[metric]) for row in rows if metric in row}
        if not values:
            known = sorted({name for row in rows for name in row if "_" in name})
            raise ValueError(f"--metric {metric}: {shown(folder)} has {', '.join(known)}.")
        series.append(values)
    steps = sorted(set.intersection(*map(set, series)))
    if not steps:
        raise ValueError(f"the seeds of {shown(run)} have no step in common.")
    return RunCurve(np.array(steps), np.array([[own[step] for step in steps] for own in series]))
