"""Tables of the documentation on pools, written from the result files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cells import interval, linked
from experiments.markdown import Row, grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"


def pools_tables(folder: Path = RESULTS) -> str:
    """The figure of each method by test, and how much better or worse the learner is.

    A table for each run: the learner first, then the others with the learner's figure minus theirs.
    """
    parts = []
    for path in sorted(folder.glob("*/results.json")):
        own = files.read_json(path)
        if own.get("experiment") != "pools":
            continue
        figure, comparison = own["figure"], own["comparison"]
        tests = own.get("tests", {next(iter(comparison)): own})
        learned = [interval(tests[test], figure, ".3f") for test in comparison]
        rows: list[Row] = [[own["learner"], *learned]]
        for kind, addition in (("baselines", ""), ("published", ", published")):
            named = {name: None for row in comparison.values() for name in row.get(kind, {})}
            for name in named:
                found = [row.get(kind, {}).get(name) for row in comparison.values()]
                rows.append([name + addition, *(_cell(row, figure) for row in found)])
        title = f"#### {own['dataset']}, {linked(own['learner'], path)}: {figure.replace('_', ' ')}"
        parts.append(f"{title}\n\n{grid(['method', *comparison], rows)}")
    return "\n".join(parts)


def _cell(row: Mapping[str, Any] | None, figure: str) -> str:
    if row is None:
        return "–"
    lead = f"{row['learned_minus_this']:+.3f} ± {row['learned_minus_this_ci95']:.3f}"
    return f"{row[figure]:.3f} ({lead})"


def in_context_tables(folder: Path = RESULTS) -> str:
    """Of each run on tables: AUROC, mean rank and seconds of each method, and AUROC by table."""
    parts = []
    for path in sorted(folder.glob("*/results.json")):
        own = files.read_json(path)
        if own.get("experiment") != "tables":
            continue
        for test, row in own["comparison"].items():
            learner, result = own["learner"], own.get("tests", {test: own})[test]
            rows: list[Row] = [[linked(learner, path), interval(result, "auroc", ".4f"), "–"]]
            for name, found in row["baselines"].items():
                lead, half = found["learned_minus_this"], found["learned_minus_this_ci95"]
                cells = [interval(found, "auroc", ".4f"), f"{lead:+.4f} ± {half:.4f}"]
                rows.append([name, *cells])
            ranks, seconds = own["mean_rank"][test], own["seconds"][test]
            for cells, name in zip(rows, ranks):
                cells += [f"{ranks[name]:.2f}", f"{seconds[name]:.3f}"]
            head = ["method", "AUROC", "learned minus this", "mean rank", "seconds per table"]
            parts.append(f"#### {test}\n\n{grid(head, rows)}")
            each = own["by_table"][test]
            rows = [
                [name, *(f"{values[method]:.3f}" for method in ranks)]
                for name, values in each.items()
            ]
            parts.append(grid(["table", *ranks], rows))
    return "\n".join(parts)
