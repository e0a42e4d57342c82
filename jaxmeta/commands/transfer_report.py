"""The figures of `transfer`: metrics of every cell, the ceiling, ranks, the table, the pictures."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import plots
from jaxmeta.calibration import Reliability, reliability
from jaxmeta.commands.transfer_runs import Entrant
from jaxmeta.core import Array
from jaxmeta.metrics import multiclass_auroc, multiclass_sensitivity
from jaxmeta.recipes.predictions import Predictions
from jaxmeta.training.estimates import estimate

BINS = 10
RESAMPLES = 2000
METRICS = ("accuracy", "auroc", "sensitivity", "loss", "calibrated_loss")


class Cell(NamedTuple):
    """An entrant on a target.

    Attributes:
      entrant, target: their names.
      is_own: whether the entrant was trained on this set.
      values: metrics of every task, float `[tasks]` each.
      temperature: fitted on the validation classes of the entrant's own set.
      before, after: sums of every task for reliability diagrams, `[tasks, bins]`, at temperature 1
        and at the fitted one.
      gap: mean and half-width of the 95 % interval of the accuracy minus that of the ceiling, task
        by task; None without a ceiling, and for the ceiling itself.
    """

    entrant: str
    target: str
    is_own: bool
    values: Mapping[str, np.ndarray]
    temperature: float
    before: Reliability
    after: Reliability
    gap: tuple[float, float] | None = None

    def mean(self, metric: str) -> float:
        return float(estimate(self.values[metric]).mean)

    def ci95(self, metric: str) -> float:
        return float(estimate(self.values[metric]).ci95)


def cell_of(
    entrant: str, target: str, is_own: bool, found: Predictions, temperature: float
) -> Cell:
    """The metrics of an entrant on a target, from its predictions."""
    given = (jnp.asarray(found.logarithms_TQW), jnp.asarray(found.targets_TQ))
    values, before, after = _of_tasks(*given, jnp.asarray(temperature))
    before, after = jax.tree.map(np.asarray, (before, after))
    values = {name: np.asarray(own, np.float32) for name, own in values.items()}
    return Cell(entrant, target, is_own, values, temperature, before, after)


def _of_task(
    logarithms_QW: Array, targets_Q: Array, temperature: Array
) -> tuple[dict[str, Array], Reliability, Reliability]:
    calibrated_QW = jax.nn.log_softmax(logarithms_QW / temperature)
    correct_Q = logarithms_QW.argmax(axis=1) == targets_Q

    def loss(own_QW: Array) -> Array:
        return -jnp.take_along_axis(own_QW, targets_Q[:, None], axis=1).mean()

    values = (
        correct_Q.mean(),
        multiclass_auroc(logarithms_QW, targets_Q),
        multiclass_sensitivity(logarithms_QW, targets_Q),
        loss(logarithms_QW),
        loss(calibrated_QW),
    )
    before, after = (
        reliability(jnp.exp(own.max(axis=1)), correct_Q, bins=BINS)
        for own in (logarithms_QW, calibrated_QW)
    )
    return dict(zip(METRICS, values, strict=True)), before, after


_of_tasks = jax.jit(jax.vmap(_of_task, in_axes=(0, 0, None)))


def expected_calibration_error(sums: Reliability, weights: np.ndarray) -> np.ndarray:
    """The error over the predictions of all tasks, with weights `[resamples, tasks]`.

        ECE = Σ_b |correct of bin b − probability of bin b| / n,  summed over tasks

    >>> sums = Reliability(np.array([[4.0]]), np.array([[3.0]]), np.array([[2.0]]))
    >>> expected_calibration_error(sums, np.ones((1, 1))).tolist()
    [0.25]
    """
    counts, probabilities, correct = (weights @ np.asarray(own, np.float64) for own in sums)
    return np.abs(correct - probabilities).sum(axis=1) / counts.sum(axis=1)


def _calibration(sums: Reliability) -> tuple[float, list[float]]:
    """The error, and its 95 % interval by resampling the tasks."""
    tasks = len(sums.counts_B)
    error = expected_calibration_error(sums, np.ones((1, tasks)))[0]
    interval = np.quantile(expected_calibration_error(sums, _weights(tasks, 0)), [0.025, 0.975])
    return float(error), interval.tolist()


@functools.lru_cache(maxsize=16)
def _weights(tasks: int, seed: int) -> np.ndarray:
    """How often each task is drawn in each resample, `[resamples, tasks]`."""
    random = np.random.default_rng(seed)
    return random.multinomial(tasks, np.full(tasks, 1 / tasks), RESAMPLES).astype(np.float64)


def gaps(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with their difference to the ceiling: the best entrant trained on the target."""
    found = []
    for cell in cells:
        ceiling = ceiling_of(cells, cell.target)
        if ceiling is None or ceiling.entrant == cell.entrant:
            found.append(cell)
            continue
        difference = cell.values["accuracy"] - ceiling.values["accuracy"]
        mean, ci95 = estimate(difference)
        found.append(cell._replace(gap=(float(mean), float(ci95))))
    return found


def ceiling_of(cells: Sequence[Cell], target: str) -> Cell | None:
    """The most accurate entrant that was trained on the target; None if there is none."""
    own = [cell for cell in cells if cell.target == target and cell.is_own]
    return max(own, key=lambda cell: cell.mean("accuracy"), default=None)


def row_of(cell: Cell) -> dict[str, Any]:
    """The entry of a cell in the result."""
    row: dict[str, Any] = {
        "entrant": cell.entrant,
        "target": cell.target,
        "is_own": cell.is_own,
        "num_tasks": len(cell.values["accuracy"]),
    }
    for metric in METRICS:
        row |= {metric: cell.mean(metric), f"{metric}_ci95": cell.ci95(metric)}
    row["temperature"] = cell.temperature
    for name, sums in (("before", cell.before), ("after", cell.after)):
        error, interval = _calibration(sums)
        row[f"calibration_error_{name}"] = error
        row[f"calibration_error_{name}_interval"] = interval
        totals = (np.asarray(own, np.float64).sum(axis=0).tolist() for own in sums)
        row[f"reliability_{name}"] = dict(zip(("counts", "probabilities", "correct"), totals))
    if cell.gap is not None:
        row |= {"minus_ceiling": cell.gap[0], "minus_ceiling_ci95": cell.gap[1]}
    return row


def rank_changes(cells: Sequence[Cell], entrants: Sequence[Entrant]) -> list[dict[str, Any]]:
    """How the rank of each learner among those of one source changes on every other set.

    Ranks are by mean accuracy, 1 is the best. The 95 % intervals are those of the ranks when tasks
    are drawn again with replacement, the same tasks for all learners.
    """
    groups: dict[str, list[Entrant]] = {}
    for entrant in entrants:
        groups.setdefault(entrant.own.images.dataset, []).append(entrant)
    rows = []
    for members in groups.values():
        if len(members) < 2:
            continue
        names = [member.name for member in members]
        targets = dict.fromkeys(cell.target for cell in cells)
        found = {target: _ranks(cells, names, target, seed) for seed, target in enumerate(targets)}
        (source,) = {cell.target for cell in cells if cell.is_own and cell.entrant in names}
        at_home, home_samples = found[source]
        for target, (ranks, samples) in found.items():
            if target == source:
                continue
            change = samples - home_samples
            for number, name in enumerate(names):
                rows.append(
                    {
                        "entrant": name,
                        "source": source,
                        "target": target,
                        "of": len(names),
                        "rank_on_source": int(at_home[number]),
                        "rank_on_source_interval": _interval(home_samples[:, number]),
                        "rank": int(ranks[number]),
                        "rank_interval": _interval(samples[:, number]),
                        "change": int(ranks[number] - at_home[number]),
                        "change_interval": _interval(change[:, number]),
                    }
                )
    return rows


def _ranks(
    cells: Sequence[Cell], names: Sequence[str], target: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks by mean accuracy, `[entrants]`, and of resampled tasks, `[resamples, entrants]`."""
    own = {cell.entrant: cell.values["accuracy"] for cell in cells if cell.target == target}
    values = np.stack([own[name] for name in names], axis=1).astype(np.float64)
    means = _weights(len(values), seed + 1) @ values
    return ranks_of(values.sum(axis=0)[None])[0], ranks_of(means)


def ranks_of(means: np.ndarray) -> np.ndarray:
    """Ranks along the last axis: one more than the number of larger values.

    >>> ranks_of(np.array([[0.2, 0.5, 0.5, 0.9]])).tolist()
    [[4, 2, 2, 1]]
    """
    return 1 + (means[:, None, :] > means[:, :, None]).sum(axis=2)


def _interval(samples: np.ndarray) -> list[int]:
    """The smallest and largest rank, or change of it, within the middle 95 % of the resamples."""
    ordered = np.sort(samples)
    tail = int(0.025 * len(ordered))
    return [int(ordered[tail]), int(ordered[-1 - tail])]


def table(cells: Sequence[Cell]) -> list[str]:
    """The matrix of accuracies in lines of text, the ceiling last."""
    entrants, targets = _axes(cells)
    wide = max(len(name) for name in [*entrants, "ceiling"]) + 2
    found = {(cell.entrant, cell.target): cell for cell in cells}
    lines = [" " * wide + "".join(f"{target[:15]:>16}" for target in targets)]
    for entrant in entrants:
        row = [_shown(found[entrant, target]) for target in targets]
        lines.append(f"{entrant:{wide}}" + "".join(f"{text:>16}" for text in row))
    ceilings = [ceiling_of(cells, target) for target in targets]
    row = ["–" if own is None else _shown(own) for own in ceilings]
    lines.append(f"{'ceiling':{wide}}" + "".join(f"{text:>16}" for text in row))
    return [*lines, "accuracy in %; * on the run's own set, of which the best is the ceiling"]


def _shown(cell: Cell) -> str:
    star = "*" if cell.is_own else ""
    return f"{100 * cell.mean('accuracy'):.1f} ± {100 * cell.ci95('accuracy'):.1f}{star}"


def _axes(cells: Sequence[Cell]) -> tuple[list[str], list[str]]:
    entrants = dict.fromkeys(cell.entrant for cell in cells)
    return [*entrants], [*dict.fromkeys(cell.target for cell in cells)]


def draw(out: Path, cells: Sequence[Cell], tasks: str) -> None:
    """The matrix, and the reliability diagrams of every target, beside the result."""
    entrants, targets = _axes(cells)
    shape = (len(entrants), len(targets))
    own = np.array([cell.is_own for cell in cells]).reshape(shape)
    means, ci95 = (
        np.array([get(cell) for cell in cells]).reshape(shape)
        for get in (lambda cell: cell.mean("accuracy"), lambda cell: cell.ci95("accuracy"))
    )
    title = f"{tasks} classification of images"
    plots.transfer_matrix(out.with_suffix(".png"), entrants, targets, means, ci95, own, title=title)
    for target in targets:
        diagrams = {
            cell.entrant: {
                "T = 1": _sums(cell.before),
                f"T = {cell.temperature:.2f}": _sums(cell.after),
            }
            for cell in cells
            if cell.target == target
        }
        path = out.with_name(f"{out.stem}-reliability-{target}.png")
        plots.reliability_diagrams(path, diagrams, title=f"{target}, {tasks}")


def _sums(sums: Reliability) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts, probabilities, correct = (np.asarray(own).sum(axis=0) for own in sums)
    return counts, probabilities, correct
