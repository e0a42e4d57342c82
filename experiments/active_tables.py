"""Tables of the documentation on active learning, written from the result files."""

from pathlib import Path
from typing import Any

from experiments.cells import interval, linked
from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"


def active_tables(folder: Path = RESULTS) -> str:
    """Accuracy over labels, area and difference to random of every rule, a table per result."""
    parts = []
    for path in sorted(folder.glob("active/*.json")):
        found = files.read_json(path)
        labels, last = found["labels"], len(found["labels"]) - 1
        points = sorted({last // 4, last // 2, last})
        rows = []
        for row in found["rows"]:
            is_first = row is found["rows"][0]
            difference = "–" if is_first else interval(row, "difference", "+.2f", 100)
            rows.append(
                [
                    linked(row["name"], path),
                    *(_at(row, point) for point in points),
                    interval(row, "area", ".1f", 100),
                    difference.replace("± +", "± "),
                ]
            )
        columns = ["rule", *(f"{labels[point]} labels (%)" for point in points)]
        tasks = f"{found['ways']}-way, pools of {found['ways'] * found['shots']}"
        start = found["settings"]["start"]
        begun = "no label at the start" if not start else f"{start} label per class at the start"
        heading = f"#### {found['run']}, {tasks}, {begun}, {found['num_tasks']} tasks"
        parts.append(f"{heading}\n\n{grid([*columns, 'area (%)', 'difference (points)'], rows)}")
    return "\n".join(parts)


def _at(row: dict[str, Any], point: int) -> str:
    mean, ci95 = row["accuracy"][point], row["accuracy_ci95"][point]
    return f"{100 * mean:.1f} ± {100 * ci95:.1f}"


def requests_table(folder: Path = RESULTS) -> str:
    """Accuracy of predictions and requests of learners that ask for labels in a stream."""
    rows = []
    for path in sorted(folder.glob("*/results.json")):
        own = files.read_json(path)
        if own.get("experiment") != "sequence" or "requests" not in own:
            continue
        protocol = own["protocol"]
        rows.append(
            [
                linked(own["learner"], path),
                f"{protocol['ways']}",
                f"{protocol['inner']['wrong_reward']:g}",
                f"{own['best_step']:,}",
                *(interval(own, name, ".1f", 100) for name in ("accuracy", "requests")),
                *(f"{100 * own[f'requests_{number}']:.0f}" for number in _INSTANCES),
            ]
        )
    if not rows:
        return "No run is committed yet.\n"
    columns = ["learner", "classes", "reward of an error", "best step", "accuracy (%)"]
    columns += ["labels asked for (%)", *(f"at instance {number} (%)" for number in _INSTANCES)]
    return grid(columns, rows)


_INSTANCES = (1, 2, 10)
