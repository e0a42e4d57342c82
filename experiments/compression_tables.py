"""Tables of the documentation on compressed learners, written from the result files."""

from pathlib import Path
from typing import Any

from experiments.cells import interval, linked
from experiments.markdown import Row, grid
from jaxmeta import files

ORDER = ("uncompressed", "bfloat16", "int8", "prune", "gradual", "distil")
RESULTS = Path(__file__).parent / "results"


def compression_tables(folder: Path = RESULTS) -> str:
    """Accuracy, difference and size of every version of a learner, a table for each learner."""
    runs: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.glob("compression/*.json")):
        found = files.read_json(path)
        runs.setdefault(found["run"], []).append((path, found))
    parts = []
    for run, results in runs.items():
        rows: dict[tuple[str, int], Row] = {}
        for path, found in results:
            for version in found["rows"]:
                name = version["name"]
                further = name.startswith(("gradual", "distil"))
                steps = found["settings"]["steps"] if further else 0
                if (name, steps) in rows and name != "uncompressed":
                    raise ValueError(f"{path}: a second result of {run}, {name}; delete one.")
                rows[name, steps] = _cells(version, path, steps)
        columns = ["version", "accuracy (%)", "difference (points)", "kB", "further steps"]
        _, first = results[0]
        tasks = f"{first['ways']}-way {first['shots']}-shot, {first['num_tasks']} tasks"
        ordered = [rows[name] for name in sorted(rows, key=_place)]
        parts.append(f"#### {run}, {tasks}\n\n{grid(columns, ordered)}")
    return "\n".join(parts)


def _place(key: tuple[str, int]) -> tuple[int, str, int]:
    """The methods in the order of `ORDER`, each by sparsity and steps."""
    name, steps = key
    return ORDER.index(name.split()[0]), name, steps


def _cells(version: dict[str, Any], path: Path, steps: int) -> Row:
    name = version["name"]
    is_first = name == "uncompressed"
    difference = "–" if is_first else interval(version, "difference", "+.2f", 100)
    return [
        name if is_first else linked(name, path),
        interval(version, "accuracy", ".1f", 100),
        difference,
        f"{version['bytes'] / 1000:.0f}",
        f"{steps:,}" if steps else "–",
    ]
