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
