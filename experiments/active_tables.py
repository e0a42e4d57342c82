"""Tables of the documentation on active learning, written from the result files."""

from pathlib import Path
from typing import Any

from experiments.cells import interval, linked
from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"


def active_tables(folder: Path = RESULTS) -> str:
    """The figure over labels, area and difference to random of every rule, a table per result."""
    parts = []
    for path in sorted(folder.glob("active/*.json")):
        found = files.read_json(path)
        labels, last = found["labels"], len(found["labels"]) - 1
        points = sorted({last // 4, last // 2, last})
        # Results of accuracy may have no entry `metric`.
        metric = found.get("metric", "accuracy")
        seen = [own for own in ("class_1_found",) if own in found["rows"][0]]
        also = [own for own in ("auroc",) if f"area_{own}" in found["rows"][0]]
        rows = []
        for row in found["rows"]:
            cells = [linked(row["name"], path), *(_at(row, metric, point) for point in points)]
            for suffix in ("", *(f"_{own}" for own in also)):
                difference = interval(row, f"difference{suffix}", "+.2f", 100)
                cells.append(interval(row, f"area{suffix}", ".1f", 100))
                is_first = row is found["rows"][0]
                cells.append("–" if is_first else difference)
            cells += [_at(row, own, last) for own in seen]
            rows.append(cells)
        columns = ["rule", *(f"{labels[point]} labels (%)" for point in points)]
        columns += ["area (%)", "difference (points)"]
        for own in also:
            columns += [f"{own.upper()}, area (%)", f"{own.upper()}, difference"]
        columns += ["class 1 found (%)" for _ in seen]
        size = found.get("pool") or found["ways"] * found["shots"]
        tasks = f"{found['ways']}-way, pools of {size}"
        start = found["settings"]["start"]
        label = "labels" if start > 1 else "label"
        begun = f"{start or 'no'} {label} {'per class ' if start else ''}at the start"
        name = "" if metric == "accuracy" else f": {metric.replace('_', ' ')}"
        heading = f"#### {found['run']}, {tasks}, {begun}, {found['num_tasks']} tasks{name}"
        parts.append(f"{heading}\n\n{grid(columns, rows)}")
    return "\n".join(parts)


def _at(row: dict[str, Any], metric: str, point: int) -> str:
    mean, ci95 = row[metric][point], row[f"{metric}_ci95"][point]
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
