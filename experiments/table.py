"""The README's table of results, written from the result files.

python -m experiments.table          # writes it into README.md
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
_START, _END = "<!-- results: start -->\n", "<!-- results: end -->\n"

# What the papers report, as tabulated in the sources that the learners' docstrings name.
_PUBLISHED = {
    ("maml", "omniglot", 5, 1): "98.7 ± 0.4",
    ("first-order-maml", "omniglot", 5, 1): "98.3 ± 0.5",
    ("meta-sgd", "omniglot", 5, 1): "99.53 ± 0.26",
    ("reptile", "omniglot", 5, 1): "97.68 ± 0.04",
    ("prototypical", "omniglot", 5, 1): "98.8",
    ("prototypical", "omniglot", 5, 5): "99.7",
    ("prototypical", "omniglot", 20, 1): "96.0",
    ("prototypical", "omniglot", 20, 5): "98.9",
}


_PUBLISHED_CURVES = {  # after the inner steps that the papers report
    ("maml", False): {1: "0.67", 5: "0.38", 10: "0.35"},
    ("maml", True): {1: "1.13"},
    ("meta-sgd", True): {1: "0.90"},
}


def table(folder: Path = RESULTS) -> str:
    """Markdown: one row a result file, of images and then of curves, each with its file."""
    rows = ["| learner | data | task | accuracy, % | published | steps | query statistics | file |"]
    rows += ["|---|---|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("*/*.json")):
        results = json.loads(path.read_text())
        if "accuracy" in results:
            rows.append(_row(results, path))
    rows += ["", "| learner | curves | inner steps | squared error | published | steps | file |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        if "accuracy" not in results:
            rows += _curve_rows(results, path)
    return "\n".join(rows) + "\n"


def _curve_rows(results: dict[str, Any], path: Path) -> list[str]:
    protocol, after = results["protocol"], results["after_inner_steps"]
    varying = protocol["frequency"][0] < protocol["frequency"][1]
    curves = "amplitude, phase and frequency" if varying else "amplitude and phase"
    published = _PUBLISHED_CURVES.get((results["learner"], varying), {})
    return [
        f"| {results['learner']} | {curves}, {results['shots']} shots | {step} | "
        f"{after['loss'][step]:.3f} ± {after['loss_ci95'][step]:.3f} | {figure} | "
        f"{results['steps']:,} | `{path.parent.name}/{path.name}` |"
        for step, figure in published.items()
    ]


def _row(results: dict[str, Any], path: Path) -> str:
    key = (results["learner"], results["dataset"], results["ways"], results["shots"])
    control = results["protocol"]["shuffled_labels"]
    accuracy = f"{100 * results['accuracy']:.1f} ± {100 * results['accuracy_ci95']:.1f}"
    precision = " in bfloat16" if results["protocol"]["network"].endswith("bfloat16") else ""
    cells = [
        results["learner"] + precision + (" (control: shuffled labels)" if control else ""),
        results["dataset"],
        f"{results['ways']}-way {results['shots']}-shot",
        accuracy,
        f"chance is {100 / results['ways']:.0f}" if control else _PUBLISHED.get(key, "–"),
        f"{results.get('steps', results['best_step']):,}",
        results["protocol"]["query_statistics"],
        f"`{path.parent.name}/{path.name}`",
    ]
    return f"| {' | '.join(cells)} |"


def with_table(readme: str) -> str:
    """The README with the table between its two marks brought up to date."""
    before, rest = readme.split(_START)
    _, after = rest.split(_END)
    return before + _START + table() + _END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
