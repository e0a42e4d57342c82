"""The table of the documentation on streams of classes, written from the result files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cells import linked, percent, published_result, runs_of
from experiments.markdown import Row, grid
from jaxmeta import files
from jaxmeta.recipes.sessions import session_names

RESULTS = Path(__file__).parent / "results"
_PUBLISHED = "omniglot-published"


def class_streams_table(folder: Path = RESULTS) -> str:
    """The accuracy of each learner and of the rivals on its features, by length of the stream."""
    found = list(runs_of("class-streams", folder))
    lengths = sorted({length for _, own in found for length in own["lengths"]})
    rows: list[Row] = []
    for path, own in found:
        name, rivals = path.parent.name, own.get("rivals", {})
        tests = own.get("tests") or {f"{own['lengths'][0]} classes": own}
        rows.append([linked(name, path), *_cells(tests, lengths)])
        methods = dict.fromkeys(method for found in rivals.values() for method in found)
        for method in methods:
            of_method = {test: own[method] for test, own in rivals.items() if method in own}
            rows.append([f"{method}, on the features of {name}", *_cells(of_method, lengths)])
        published = published_result(own["learner"], _PUBLISHED)
        if isinstance(published, Mapping) and not _from_scratch(own):
            figures = [published.get(length, "–") for length in lengths]
            rows.append([f"{own['learner']}, published, larger network", *figures])
    return grid(["learner", *(f"{length} classes" for length in lengths)], rows)


def _cells(found: Mapping[str, Mapping[str, Any]], lengths: list[int]) -> list[str]:
    tests = {length: found.get(f"{length} classes") for length in lengths}
    return ["–" if row is None else percent(row) for row in tests.values()]


def _from_scratch(own: Mapping[str, Any]) -> bool:
    return own["protocol"]["inner"].get("from_scratch", False)


def sessions_table(folder: Path = RESULTS) -> str:
    """The accuracy on all classes so far after each session, of few-shot learners."""
    rows: list[Row] = []
    head: list[str] = []
    for path in sorted(folder.glob("sessions/*.json")):
        own = files.read_json(path)
        figures = [percent(own, name) for name in session_names(own)]
        shown = sorted({0, len(figures) // 5, len(figures) // 2, len(figures) - 1})
        classes = [(own["ways"] * (place + 1)) // len(figures) for place in shown]
        head = ["learner", *(f"{number} classes" for number in classes)]
        rows.append([linked(path.stem, path), *(figures[place] for place in shown)])
    return grid(head, rows)
