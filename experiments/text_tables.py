"""Tables of the documentation on texts, written from the result files."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.cells import linked, runs_of
from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"
# Prototypical networks with BERT-base and ProtAugment at 5-way 1- and 5-shot, as Dopierre et al.
# 2021 and Chen et al. 2022 report them; quoted from memory.
_PUBLISHED = {
    "banking77": {"1": ("86.3", "89.6"), "5": ("93.9", "94.7")},
    "hwu64": {"1": ("77.1", "84.3"), "5": ("89.0", "92.6")},
    "clinc150": {"1": ("96.1", "96.5"), "5": ("98.6", "98.7")},
}


def entities_table(folder: Path = RESULTS) -> str:
    """Span F1 on unseen types of entities, beside prototypes of frozen words."""
    rows: list[list[str]] = []
    for path, own in runs_of("entities", folder):
        ((_, frozen),) = own["frozen"]["test"].items()
        figures = (own["f1"], own["f1_ci95"]), (frozen["f1"], frozen["f1_ci95"])
        difference = frozen["learned_minus_this"], frozen["learned_minus_this_ci95"]
        cells = [f"{100 * mean:.1f} ± {100 * half:.1f}" for mean, half in figures]
        lead = f"{100 * difference[0]:+.1f} ± {100 * difference[1]:.1f}"
        task = f"{own['dataset']}, {own['ways']} types, {own['shots']}-shot"
        rows.append([task, linked(own["learner"], path), *cells, lead])
    return grid(["tasks", "learner", "span F1 (%)", "frozen words (%)", "difference"], rows)


def texts_table(folder: Path = RESULTS) -> str:
    """Accuracies of sentences, means over the class splits of a set, and paired differences."""
    rows: list[list[str]] = []
    for (name, dataset), found in _families(folder).items():
        for test in ("test", *(next(iter(found)).get("tests", {}).keys() - {"test"})):
            shots = str(found[0]["shots"]) if test == "test" else test.removesuffix("-shot")
            own = [results["tests"][test] if "tests" in results else results for results in found]
            frozen = [results["frozen"][test] for results in found]
            cells = [dataset, shots, name, _mean(own, "accuracy")]
            for baseline in frozen[0]:
                each = [row[baseline] for row in frozen]
                cells += [_mean(each, "accuracy"), _mean(each, "learned_minus_this", sign="+")]
            published = _PUBLISHED.get(dataset, {}).get(shots, ("–", "–"))
            rows.append([*cells, *published])
    columns = ["set", "shots", "learner", "accuracy (%)", "frozen prototypes (%)", "difference"]
    columns += ["logistic regression (%)", "difference", "ProtoNet, BERT", "ProtAugment"]
    return grid(columns, sorted(rows))


def _families(folder: Path) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The results of each learner on each set, one per class split: folders `NAME-SET-SPLIT`."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*/results.json")):
        results = files.read_json(path)
        if results.get("experiment") == "text":
            name = re.sub(r"-[1-5]$", "", path.parent.name)
            dataset = results["dataset"]
            learner = name.replace(f"-{dataset}", "").replace("-", " ")
            found.setdefault((learner, dataset), []).append(results)
    return {(f"{learner}{_splits(own)}", dataset): own for (learner, dataset), own in found.items()}


def _splits(found: list[Mapping[str, Any]]) -> str:
    return "" if len(found) == 5 else f" ({len(found)} of 5 splits)"


def _mean(rows: Iterable[Mapping[str, Any]], name: str, sign: str = "") -> str:
    """The mean over splits with its interval over tasks, in percent.

    >>> _mean([{"x": 0.5, "x_ci95": 0.03}, {"x": 0.7, "x_ci95": 0.04}], "x")
    '60.0 ± 2.5'
    """
    rows = list(rows)
    mean = sum(row[name] for row in rows) / len(rows)
    ci95 = math.sqrt(sum(row[f"{name}_ci95"] ** 2 for row in rows)) / len(rows)
    digits = 2 if sign else 1
    return f"{100 * mean:{sign}.{digits}f} ± {100 * ci95:.{digits}f}"
