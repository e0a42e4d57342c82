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


def table(folder: Path = RESULTS) -> str:
    """Markdown: one row a result file of images, best known first, each with its file."""
    rows = ["| learner | data | task | accuracy, % | published | steps | query statistics | file |"]
    rows += ["|---|---|---|---|---|---|---|---|"]
    for path in sorted(folder.glob("*/*.json")):
        results = json.loads(path.read_text())
        if "accuracy" in results:
            rows.append(_row(results, path))
    return "\n".join(rows) + "\n"


def _row(results: dict[str, Any], path: Path) -> str:
    key = (results["learner"], results["dataset"], results["ways"], results["shots"])
    control = results["protocol"]["shuffled_labels"]
    accuracy = f"{100 * results['accuracy']:.1f} ± {100 * results['accuracy_ci95']:.1f}"
    cells = [
        results["learner"] + (" (control: shuffled labels)" if control else ""),
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
