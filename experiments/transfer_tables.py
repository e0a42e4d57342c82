"""Tables of the documentation on transfer to other image sets, written from the result files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cells import interval, joined, linked, percent
from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"


def _results(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.glob("transfer/*.json")):
        yield path, files.read_json(path)


def matrix_table(folder: Path = RESULTS) -> str:
    """Accuracies of every run on every set, and the ceiling."""
    parts = []
    for path, own in _results(folder):
        targets = own["targets"]
        cells = {(row["entrant"], row["target"]): row for row in own["cells"]}
        rows = [
            [
                linked(entrant["name"], path),
                *(_starred(cells[entrant["name"], target]) for target in targets),
            ]
            for entrant in own["entrants"]
        ]
        rows.append(["ceiling", *(_ceiling(own["cells"], target) for target in targets)])
        parts.append(grid(["run", *(f"{target} (%)" for target in targets)], rows))
    return joined(parts)


def sets_table(folder: Path = RESULTS) -> str:
    """The classes that the runs are tested on, and the tasks."""
    parts = []
    for _, own in _results(folder):
        rows = [
            [
                name,
                f"{row['classes']}",
                f"{row['images']:,}",
                f"{row['ways']}-way {row['shots']}-shot, {row['queries']} queries per class",
                row["split"],
            ]
            for name, row in own["targets"].items()
        ]
        parts.append(grid(["set", "test classes", "images", "tasks", "split"], rows))
    return joined(parts)


def gaps_table(folder: Path = RESULTS) -> str:
    """Accuracy minus that of the ceiling, task by task."""
    parts = []
    for path, own in _results(folder):
        targets = [
            target
            for target in own["targets"]
            if any(row["target"] == target and row["is_own"] for row in own["cells"])
        ]
        cells = {(row["entrant"], row["target"]): row for row in own["cells"]}
        rows = [
            [
                linked(entrant["name"], path),
                *(_gap(cells[entrant["name"], target]) for target in targets),
            ]
            for entrant in own["entrants"]
        ]
        parts.append(grid(["run", *(f"{target} (points)" for target in targets)], rows))
    return joined(parts)


def ranks_table(folder: Path = RESULTS) -> str:
    """Ranks among the learners of one source, there and on every other set."""
    parts = []
    for path, own in _results(folder):
        sources: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for row in own["ranks"]:
            sources.setdefault(row["source"], {}).setdefault(row["entrant"], []).append(row)
        for source, entrants in sources.items():
            targets = [row["target"] for row in next(iter(entrants.values()))]
            rows = [
                [linked(name, path), _rank(found[0], "rank_on_source"), *map(_change, found)]
                for name, found in entrants.items()
            ]
            heading = f"#### Trained on {source}"
            parts.append(f"{heading}\n\n{grid(['run', f'rank on {source}', *targets], rows)}")
    return joined(parts)


def medical_table(folder: Path = RESULTS) -> str:
    """AUROC, sensitivity and calibration on medical sets."""
    parts = []
    for path, own in _results(folder):
        for target, about in own["targets"].items():
            if not about["medical"]:
                continue
            rows = [
                [
                    linked(row["entrant"], path),
                    percent(row),
                    interval(row, "auroc", ".3f"),
                    percent(row, "sensitivity"),
                    _error(row, "before"),
                    _error(row, "after"),
                    f"{row['temperature']:.2f}",
                ]
                for row in own["cells"]
                if row["target"] == target
            ]
            columns = ["run", "accuracy (%)", "AUROC", "sensitivity (%)", "ECE (%)"]
            columns += ["ECE, calibrated (%)", "temperature"]
            parts.append(f"#### {target}\n\n{grid(columns, rows)}")
    return joined(parts)


def commands_table(folder: Path = RESULTS) -> str:
    """How the runs were trained, and the command of the matrix."""
    parts = []
    for path, own in _results(folder):
        runs = {entrant["run"]: entrant for entrant in own["entrants"]}
        rows = [
            [
                name,
                f"{row['best_step']:,}",
                f"{row['image_size']}×{row['image_size']}×{row['channels']}",
                row["query_statistics"],
                f"`{row['training_command']}`",
            ]
            for name, row in runs.items()
        ]
        columns = ["run", "best step", "images", "query statistics", "command"]
        parts.append(f"{grid(columns, rows)}\n{linked('The matrix', path)}: `{own['command']}`\n")
    return joined(parts)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/pages/transfer.md": {
        "matrix": matrix_table,
        "sets": sets_table,
        "gaps": gaps_table,
        "ranks": ranks_table,
        "medical": medical_table,
        "commands": commands_table,
    }
}


def _starred(row: Mapping[str, Any]) -> str:
    return f"**{percent(row)}**" if row["is_own"] else percent(row)


def _ceiling(cells: Sequence[Mapping[str, Any]], target: str) -> str:
    own = [row for row in cells if row["target"] == target and row["is_own"]]
    return percent(max(own, key=lambda row: row["accuracy"])) if own else "–"


def _gap(row: Mapping[str, Any]) -> str:
    if "minus_ceiling" not in row:
        return "ceiling"
    return interval(row, "minus_ceiling", "+.1f", 100)


def _rank(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]} [{low}, {high}]"


def _change(row: Mapping[str, Any]) -> str:
    low, high = row["change_interval"]
    return f"{row['rank']} ({row['change']:+d} [{low:+d}, {high:+d}])"


def _error(row: Mapping[str, Any], when: str) -> str:
    low, high = row[f"calibration_error_{when}_interval"]
    return f"{100 * row[f'calibration_error_{when}']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
