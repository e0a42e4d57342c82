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
        rows: dict[str, Row] = {}
        for path, found in results:
            for version in found["rows"]:
                name = version["name"]
                if name in rows and name != "uncompressed":
                    raise ValueError(f"{path}: a second result of {run}, {name}; delete one.")
                rows[name] = _cells(version, path, found)
        columns = ["version", "accuracy (%)", "difference (points)", "kB", "further steps"]
        _, first = results[0]
        tasks = f"{first['ways']}-way {first['shots']}-shot, {first['num_tasks']} tasks"
        ordered = [rows[name] for name in sorted(rows, key=_place)]
        parts.append(f"#### {run}, {tasks}\n\n{grid(columns, ordered)}")
    return "\n".join(parts)


def _place(name: str) -> tuple[int, str]:
    """The methods in the order of `ORDER`, each by sparsity."""
    return ORDER.index(name.split()[0]), name


def _cells(version: dict[str, Any], path: Path, found: dict[str, Any]) -> Row:
    name = version["name"]
    is_first = name == "uncompressed"
    difference = "–" if is_first else interval(version, "difference", "+.2f", 100)
    trained = name.startswith(("gradual", "distil"))
    return [
        name if is_first else linked(name, path),
        interval(version, "accuracy", ".1f", 100),
        difference,
        f"{version['bytes'] / 1000:.0f}",
        str(found["settings"]["steps"]) if trained else "–",
    ]
