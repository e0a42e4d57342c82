"""Tables of the documentation on texts, written from the result files."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import interval, linked, mean_of, runs_of
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
_AGGREGATIONS = ("mean", "clipped", "median", "pcgrad", "balanced")
# Mean accuracies on the 12 test tasks of ARSC; quoted from memory.
_PUBLISHED_SENTIMENT = {
    "matching networks": "65.7",
    "prototypical networks": "68.2",
    "relation networks": "83.1",
    "induction networks": "85.6",
}


def sentiment_table(folder: Path = RESULTS) -> str:
    """Accuracies on the test tasks of ARSC, beside classifiers of frozen embeddings.

    Learners with an inner loop also have the accuracy before it, since labels are not permuted.
    """
    rows: list[list[str]] = []
    for path, own in runs_of("sentiment", folder):
        *frozen, majority = own["frozen"]["test"].values()
        cells = [linked(own["learner"], path), own["protocol"]["adapts"].partition(",")[0]]
        steps = own.get("after_inner_steps")
        before = steps and {name: steps[name][0] for name in ("accuracy", "accuracy_ci95")}
        cells += [_mean([before], "accuracy") if before else "–", _mean([own], "accuracy")]
        for row in frozen:
            cells += [_mean([row], "accuracy"), _mean([row], "learned_minus_this", sign="+")]
        rows.append([*cells, _mean([majority], "accuracy")])
    for name, accuracy in _PUBLISHED_SENTIMENT.items():
        rows.append([f"{name}, published", "–", "–", accuracy, *["–"] * 5])
    columns = ["learner", "learned", "before adaptation (%)", "accuracy (%)"]
    columns += ["frozen prototypes (%)", "difference", "logistic regression (%)", "difference"]
    columns.append("more frequent label (%)")
    return grid(columns, rows)


def entities_table(folder: Path = RESULTS) -> str:
    """Span F1 on unseen types of entities, beside prototypes of frozen words."""
    rows: list[list[str]] = []
    for path, own in runs_of("entities", folder):
        ((_, frozen),) = own["frozen"]["test"].items()
        cells = [interval(row, "f1", ".1f", 100) for row in (own, frozen)]
        lead = interval(frozen, "learned_minus_this", "+.1f", 100)
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
    """The results of each learner on each set, one per class split, without aggregations.

    Their folders are `LEARNER-SET-SPLIT`, or `LEARNER-SET-SPLIT-VARIANT`.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path, own in runs_of("text", folder):
        learner, _, variant = _parts(path, own)
        if variant not in _AGGREGATIONS:
            name = ", ".join(part.replace("-", " ") for part in (learner, variant) if part)
            found.setdefault((name, own["dataset"]), []).append(own)
    return {(f"{learner}{_splits(own)}", dataset): own for (learner, dataset), own in found.items()}


def _parts(path: Path, results: Mapping[str, Any]) -> tuple[str, str, str]:
    """Learner, class split and variant in the name of a run folder."""
    form = rf"(.+)-{re.escape(results['dataset'])}-([1-5])(?:-(.+))?"
    found = re.fullmatch(form, path.parent.name)
    if found is None:
        raise ValueError(f"{path.parent.name}: name the folder LEARNER-SET-SPLIT[-VARIANT]")
    learner, split, variant = found.groups(default="")
    return learner, split, variant


def aggregations_table(folder: Path = RESULTS) -> str:
    """Accuracies under each aggregation of the tasks' gradients, and differences to their mean.

    Differences are paired by task, over the tasks of all class splits.
    """
    values: dict[tuple[str, str, str], dict[str, Mapping[str, np.ndarray]]] = {}
    for path, own in runs_of("text", folder):
        learner, split, variant = _parts(path, own)
        if variant in _AGGREGATIONS:
            arrays = files.read_arrays(path.with_name("per_task.npz"))
            values.setdefault((own["dataset"], learner, variant), {})[split] = arrays
    rows: list[list[str]] = []
    for (dataset, learner, variant), splits in sorted(values.items(), key=_mean_first):
        cells = [dataset, learner, f"{variant}{_splits([*splits.values()])}"]
        base = values[dataset, learner, _AGGREGATIONS[0]]
        for test in ("test", "5-shot"):
            name = f"{test}/accuracy"
            own_values = np.concatenate([own[name] for own in splits.values()])
            cells.append(mean_of(own_values, ".1f", 100))
            lead = [own[name] - base[split][name] for split, own in splits.items() if split in base]
            is_base = variant == _AGGREGATIONS[0]
            cells.append("–" if is_base else mean_of(np.concatenate(lead), "+.2f", 100))
        rows.append(cells)
    columns = ["set", "learner", "aggregation", "1-shot (%)", "difference", "5-shot (%)"]
    return grid([*columns, "difference"], rows)


def _mean_first(item: tuple[tuple[str, str, str], Any]) -> tuple[str, str, int]:
    dataset, learner, variant = item[0]
    return dataset, learner, _AGGREGATIONS.index(variant)


def _splits(found: list[Any]) -> str:
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


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/pages/text.md": {
        "texts": texts_table,
        "aggregations": aggregations_table,
        "sentiment": sentiment_table,
        "entities": entities_table,
    },
}
