"""Tables of the documentation on pools, written from the result files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import interval, joined, linked, mean_of, runs_of
from experiments.markdown import Row, grid

RESULTS = Path(__file__).parent / "results"
_ANOMALIES = ("known anomaly", "known anomalies")
_DIVISION = "metahin_"  # of the sets in a table of their own
_BIAS = "film mean + user bias"
_PUBLISHED = {  # quoted from memory: mean absolute error and root mean squared error
    "metahin_user_cold": {"MeLU": (0.810, 0.976), "MetaHIN": (0.787, 0.959)},
}


def pools_tables(folder: Path = RESULTS) -> str:
    """The figure of each method by test, and how much better or worse the learner is.

    A table for each run: the learner first, then the others with the learner's figure minus theirs.
    """
    parts = []
    for path, own in runs_of("pools", folder):
        if _rotates(own) or own["dataset"].startswith(_DIVISION):
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
        parts.append(f"{title}\n\n{grid(['method', *map(_counted, comparison)], rows)}")
    return "\n".join(parts)


def cold_start_tables(folder: Path = RESULTS) -> str:
    """The mean absolute error after each number of ratings, and other metrics after the most.

    In brackets the learner's error minus that of the mean with the user's bias, paired by user.
    """
    runs: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path, own in runs_of("pools", folder):
        if own["dataset"].startswith(_DIVISION):
            runs.setdefault(own["dataset"], []).append((path, own))
    parts = []
    for dataset, found in runs.items():
        tests = [*found[0][1]["comparison"]]
        rows: list[Row] = []
        for path, own in found:
            cells = []
            for test in tests:
                bias = own["comparison"][test]["baselines"][_BIAS]
                lead = interval(bias, "learned_minus_this", "+.3f")
                cells.append(f"{interval(own['tests'][test], 'mae', '.3f')} ({lead})")
            rows.append([linked(own["learner"], path), *cells, *_at_most(own["tests"][tests[-1]])])
        comparisons = [own["comparison"] for _, own in found]
        for name in comparisons[0][tests[-1]]["baselines"]:
            of_tests = [comparisons[0][test]["baselines"][name] for test in tests]
            cells = [interval(own, "mae", ".3f") for own in of_tests]
            rows.append([name, *cells, *_at_most(of_tests[-1])])
        for name, (mae, rmse) in _PUBLISHED.get(dataset, {}).items():
            absent = ["–"] * (len(tests) - 1)
            rows.append([f"{name}, published", *absent, f"{mae:.3f}", f"{rmse:.3f}", "–"])
        most = tests[-1]
        heads = ["method", *map(_counted, tests), f"RMSE, {most}", f"nDCG@5, {most}"]
        title = f"#### {dataset.removeprefix(_DIVISION).replace('_', ' ')}: mean absolute error"
        parts.append(f"{title}\n\n{grid(heads, rows)}")
    return joined(parts)


def _counted(test: str, one: str = "example", several: str = "examples") -> str:
    """The name of a test, such as `5 examples`, in words."""
    number = test.split()[0]
    return f"{number} {one if number == '1' else several}"


def _at_most(row: Mapping[str, float]) -> list[str]:
    return [interval(row, "rmse", ".3f"), interval(row, "ndcg_5", ".3f")]


def anomaly_tables(folder: Path = RESULTS) -> str:
    """Average precision over all sets of the rotations of each learner, and that of each set.

    The intervals are over sets; in brackets the learner's figure minus the method's, paired by set.
    """
    rotations: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path, own in runs_of("pools", folder):
        if _rotates(own):
            rotations.setdefault(own["learner"], []).append((path, own))
    parts = []
    for learner, runs in rotations.items():
        by_test: dict[str, dict[str, dict[str, float]]] = {}
        for _, own in runs:
            for test, row in own["comparison"].items():
                by_test.setdefault(test, {}).update(row["by_pool"])
        folds = ", ".join(linked(_fold(own), path) for path, own in runs)
        figure = runs[0][1]["figure"].replace("_", " ")
        title = f"#### anomaly, {learner} ({folds}): {figure}"
        headers = [
            f"{_counted(test, *_ANOMALIES)}, {len(row)} sets" for test, row in by_test.items()
        ]
        methods = list(next(iter(next(iter(by_test.values())).values())))
        rows: list[Row] = []
        for method in methods:
            values = [[own[method] for own in row.values()] for row in by_test.values()]
            leads = [
                [own[learner] - own[method] for own in row.values()] for row in by_test.values()
            ]
            cells = [mean_of(own, ".3f") for own in values]
            if method != learner:
                cells = [f"{cell} ({mean_of(lead, '+.3f')})" for cell, lead in zip(cells, leads)]
            rows.append([method, *cells])
        parts.append(f"{title}\n\n{grid(['method', *headers], rows)}")
        areas: list[Row] = []
        for method in methods:
            found = [_over_folds(runs, test, method, method == learner) for test in by_test]
            areas.append([method, *found])
        parts.append(f"#### anomaly, {learner}: AUROC\n\n{grid(['method', *headers], areas)}")
        middle = list(by_test)[len(by_test) // 2]
        sets = by_test[middle]
        each: list[Row] = []
        for name in sorted(sets):
            best = max(sets[name].values())
            shown = [
                f"**{value:.3f}**" if value == best else f"{value:.3f}"
                for value in sets[name].values()
            ]
            each.append([name, *shown])
        title = f"#### anomaly, {learner}, {_counted(middle, *_ANOMALIES)}, by set"
        parts.append(f"{title}\n\n{grid(['set', *methods], each)}")
    return "\n".join(parts)


def _over_folds(
    runs: Iterable[tuple[Path, Mapping[str, Any]]], test: str, method: str, learned: bool
) -> str:
    """The mean AUROC over the sets of all folds, whose files have the mean of each fold."""
    parts = []
    for _, own in runs:
        row = own["comparison"][test]
        found = own.get("tests", {test: own})[test] if learned else row["baselines"][method]
        parts.append((found["auroc"], found["auroc_ci95"], len(row["by_pool"])))
    return pooled(parts)


def pooled(parts: Iterable[tuple[float, float, int]]) -> str:
    """The mean of several samples together, from the mean, the interval and the size of each.

    The samples (0, 1, 2) and (3, 5):

    >>> pooled([(1.0, 1.96 * 1 / 3**0.5, 3), (4.0, 1.96 * 2**0.5 / 2**0.5, 2)])
    '2.200 ± 1.686'
    >>> mean_of([0, 1, 2, 3, 5], ".3f")
    '2.200 ± 1.686'
    """
    means, halves, sizes = (np.array(own) for own in zip(*parts))
    total = sizes.sum()
    variances = np.where(sizes > 1, (halves / 1.96) ** 2 * sizes, 0)  # one has no interval
    mean = (sizes * means).sum() / total
    squares = ((sizes - 1) * variances + sizes * (means - mean) ** 2).sum()
    half = 1.96 * np.sqrt(squares / (total - 1) / total)
    return f"{mean:.3f} ± {half:.3f}"


def volatility_tables(folder: Path = RESULTS) -> str:
    """Diebold and Mariano's tests, and how often the value at risk is exceeded, by learner."""
    rows: list[Row] = []
    risks: list[Row] = []
    listed: set[str] = set()
    for path, own in runs_of("pools", folder):
        for row in own["comparison"].values():
            for method, found in row.get("diebold_mariano", {}).items():
                p_value = "< 0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}"
                statistic = f"{found['statistic']:+.2f}"
                rows.append([linked(own["learner"], path), method, statistic, p_value])
            for method, found in row.get("value_at_risk", {}).items():
                if method in listed:
                    continue  # a baseline is the same in all runs
                listed.add(method)
                cells = [
                    f"{100 * one['rate']:.2f} % ({100 * one['stocks_rejected']:.0f} %)"
                    for one in found.values()
                ]
                name = linked(method, path) if method == own["learner"] else method
                risks.append([name, *cells])
    headers = ["learner", "against", "Diebold-Mariano", "p"]
    levels = ["forecast", "1 % exceeded (stocks rejected)", "5 % exceeded (stocks rejected)"]
    return f"{grid(headers, rows)}\n{grid(levels, risks)}" if rows else ""


def _rotates(own: Mapping[str, Any]) -> bool:
    return bool(_fold(own))


def _fold(own: Mapping[str, Any]) -> str:
    """The fold in the description of the split, such as `fold 0`; empty without rotations."""
    split = own.get("protocol", {}).get("split", "")
    return split.removeprefix("by set, ").split(" of ")[0] if "fold" in split else ""


def _cell(row: Mapping[str, Any] | None, figure: str) -> str:
    if row is None:
        return "–"
    return f"{row[figure]:.3f} ({interval(row, 'learned_minus_this', '+.3f')})"


def in_context_tables(folder: Path = RESULTS) -> str:
    """Of each run on tables: AUROC, mean rank and seconds of each method, and AUROC by table."""
    parts = []
    for path, own in runs_of("tables", folder):
        for test, row in own["comparison"].items():
            learner, result = own["learner"], own.get("tests", {test: own})[test]
            rows = [[linked(learner, path), interval(result, "auroc", ".4f"), "–"]]
            for name, found in row["baselines"].items():
                lead = interval(found, "learned_minus_this", "+.4f")
                cells = [interval(found, "auroc", ".4f"), lead]
                rows.append([name, *cells])
            ranks, seconds = own["mean_rank"][test], own["seconds"][test]
            for cells, name in zip(rows, ranks):
                cells += [f"{ranks[name]:.2f}", f"{seconds[name]:.3f}"]
            head = ["method", "AUROC", "learned minus this", "mean rank", "seconds per table"]
            parts.append(f"#### {test}\n\n{grid(head, rows)}")
            each = own["by_table"][test]
            by_table = [
                [name, *(f"{values[method]:.3f}" for method in ranks)]
                for name, values in each.items()
            ]
            parts.append(grid(["table", *ranks], by_table))
    return "\n".join(parts)


PAGES = {
    "docs/pages/pools.md": {
        "pools": pools_tables,
        "cold-start": cold_start_tables,
        "anomalies": anomaly_tables,
        "volatility": volatility_tables,
    },
    "docs/pages/tables.md": {"tables": in_context_tables},
}
"""The tables of each page, by their marks."""
