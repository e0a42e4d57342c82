"""Cells that tables of the documentation share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta import files
from jaxmeta.recipes import find_learner
from jaxmeta.training.estimates import estimate


def results_of(path: Path) -> Path:
    """The folder of all results, above the run of a result file or the run of one of its seeds."""
    return path.parents[2] if path.parent.name.startswith("seed_") else path.parents[1]


def runs_of(experiment: str, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The result files of an experiment and their contents, in the order of their names."""
    for path in sorted(folder.glob("*/results.json")):
        own = files.read_json(path)
        if own.get("experiment") == experiment:
            yield path, own


def linked(text: str, path: Path) -> str:
    """A link from a page of the documentation to a result file."""
    return f"[{text}](../../experiments/results/{path.relative_to(results_of(path)).as_posix()})"


def interval(row: Mapping[str, Any], name: str, form: str, scale: float = 1) -> str:
    """A figure with its 95 % interval, such as `0.25 ± 0.01`; a sign only for the figure."""
    half = scale * row[f"{name}_ci95"]
    return f"{scale * row[name]:{form}} ± {half:{form.removeprefix('+')}}"


def mean_of(values: np.ndarray | Sequence[float], form: str, scale: float = 1) -> str:
    """The mean of values with its 95 % interval.

    >>> mean_of([0.25, 0.75], "+.1f", 100)
    '+50.0 ± 49.0'
    """
    found = estimate(np.asarray(values))
    return f"{scale * found.mean:{form}} ± {scale * found.ci95:{form.removeprefix('+')}}"


def joined(parts: Sequence[str]) -> str:
    """Tables one below the other; a sentence in place of none."""
    return "\n".join(parts) if parts else "No result is committed yet.\n"


def percent(row: Mapping[str, Any], name: str = "accuracy") -> str:
    return interval(row, name, ".1f", 100)


def published_result(learner: str, preset: str) -> str | Mapping[int, str] | None:
    """The published result for the tasks of a preset, or None."""
    found = (own.published.get(preset) for own in find_learner(learner).presets)
    return next((figures for figures in found if figures is not None), None)
