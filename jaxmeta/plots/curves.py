"""Learning curves, adaptation curves, and the fits of one regression task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmeta.plots.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    count_ticks,
    logarithmic,
    mean_with_interval,
    new_figure,
    percent,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def learning_curve(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    best: int | None = None,
) -> "Figure":
    """Loss and, if logged, accuracy over the meta-updates.

    Without accuracies, a loss that spans more than a factor of 10 has a logarithmic axis.

    Args:
      path: the PNG to write.
      rows: as returned by `read_metrics`, with `step`, `train_loss`, and optionally
        `train_accuracy`, `validation_loss`, `validation_accuracy`. Not every row needs validation.
      title: one line above the plot.
      best: the step that validation chose, which is marked. Defaults to none.

    Raises:
      ValueError: no row has a finite `train_loss`.

    >>> import tempfile
    >>> rows = [{"step": step, "train_loss": 1 / step} for step in range(1, 100)]
    >>> figure = learning_curve(Path(tempfile.mkdtemp()) / "curve.png", rows, title="maml")
    >>> len(figure.axes)
    1
    """
    if not len(_series(rows, "train_loss")[0]):
        raise ValueError("learning_curve requires rows with a finite train_loss; got none.")
    names = [name for name in ("accuracy", "loss") if len(_series(rows, f"train_{name}")[0])]

    figure = new_figure(1 + 5.2 * len(names), 4.2, title)
    for name, axes in zip(names, np.ravel(figure.subplots(1, len(names), squeeze=False))):
        style(axes, "meta-update", name)
        _draw_learning(axes, rows, name, best)
        count_ticks(axes.xaxis)
        axes.set_xlim(left=0)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(percent)
        elif len(names) == 1 and _spans_a_decade(_series(rows, "train_loss")[1]):
            logarithmic(axes)
        axes.legend(frameon=False, fontsize=9)
    return write(figure, path)


class RunCurve(NamedTuple):
    """A metric along the training of one or several runs.

    Attributes:
      steps: `[points]`.
      values: `[runs, points]`.
    """

    steps: np.ndarray
    values: np.ndarray


def run_curves(
    path: str | Path,
    curves: Mapping[str, RunCurve],
    *,
    ylabel: str,
    title: str,
    best: float | None = None,
    xlabel: str = "meta-update",
    log_steps: bool = False,
    bottom: float | None = None,
) -> "Figure":
    """A metric along the training of several runs, with 95 % intervals where runs have seeds.

    Args:
      path: the PNG to write.
      curves: by the name of a run; the mean over its seeds is drawn.
      ylabel: the metric; accuracies are shown in percent.
      title: one line above the plot.
      best: the largest value that is possible, a dashed line.
      xlabel: the unit of the steps.
      log_steps: a logarithmic axis of the steps.
      bottom: the lowest value that is shown. Defaults to the lowest one.

    Raises:
      ValueError: there are no curves.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> one = RunCurve(np.arange(10), np.linspace(0.8, 0.9, 10)[None])
    >>> figure = run_curves(path, {"maml": one}, ylabel="accuracy", title="two learners")
    >>> len(figure.axes)
    1
    """
    if not curves:
        raise ValueError("run_curves requires at least one curve.")
    figure = new_figure(6.4, 4.4, title)
    axes = figure.subplots()
    colours = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)
    for number, (name, (steps, values)) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        if len(values) > 1:
            mean_with_interval(axes, steps, values, colour, name)
        else:
            axes.plot(steps, values[0], color=colour, linewidth=1.6, label=name)
    if best is not None:
        axes.axhline(best, color=GREY, linestyle="--", linewidth=1, label="best possible")
    style(axes, xlabel, ylabel)
    if log_steps:
        axes.set_xscale("log")
    else:
        count_ticks(axes.xaxis)
    axes.set_ylim(bottom=bottom)
    if "accuracy" in ylabel:
        axes.yaxis.set_major_formatter(percent)
    axes.legend(frameon=False, fontsize=9)
    return write(figure, path)


def _spans_a_decade(values: np.ndarray) -> bool:
    return bool(0 < 10 * values.min() < values.max())


def _draw_learning(
    axes: "Axes", rows: Sequence[Mapping[str, Any]], name: str, best: int | None
) -> None:
    steps, values = _series(rows, f"train_{name}")
    marker = "o" if len(steps) < 10 else ""
    axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=1)
    axes.plot(steps, _smooth(values), color=BLUE, marker=marker, markersize=4, label="training")
    steps, values = _series(rows, f"validation_{name}")
    if not len(steps):
        return
    axes.plot(steps, values, "o-", color=ORANGE, markersize=4, linewidth=1.2, label="validation")
    if best is None:
        return
    for value in values[steps == best]:
        said = percent(value) if name == "accuracy" else f"{value:.3g}"
        axes.plot(
            [best],
            [value],
            "*",
            color=VERMILION,
            markeredgecolor="white",
            markersize=15,
            linestyle="none",
            label=f"best: {said} at step {best:,}",
        )


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of the rows with a finite value; the log has null for NaN and ±inf."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = np.array(points, float).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _smooth(values: np.ndarray) -> np.ndarray:
    """The centred mean over a twentieth of the rows, with shorter windows at both ends."""
    row = np.arange(len(values))
    reach = np.minimum(len(values) // 40, np.minimum(row, row[::-1]))
    total = np.cumsum([0.0, *values])
    return (total[row + reach + 1] - total[row - reach]) / (2 * reach + 1)


def adaptation_curve(
    path: str | Path,
    means: np.ndarray,
    half_widths: np.ndarray,
    *,
    ylabel: str,
    title: str,
    trained_steps: int | None,
) -> "Figure":
    """A metric on test tasks after 0, 1, 2, ... inner steps, with its 95 % interval.

    Args:
      path: the PNG to write.
      means: `[steps + 1]`, accuracy as a fraction, or an error.
      half_widths: `[steps + 1]`, half-widths of the 95 % intervals.
      ylabel: the name of the metric. If it contains the word accuracy, the axis is in percent;
        otherwise the axis is logarithmic if the means span more than a factor of 10.
      title: one line above the plot.
      trained_steps: the number of inner steps in training, marked by a line; None for a learner
        that takes none.

    Raises:
      ValueError: `means` and `half_widths` are not vectors of the same length.

    >>> import tempfile
    >>> figure = adaptation_curve(
    ...     Path(tempfile.mkdtemp()) / "adaptation.png", np.array([0.2, 0.9]),
    ...     np.array([0.01, 0.02]), ylabel="test accuracy", title="maml", trained_steps=1)
    >>> figure.axes[0].get_ylabel()
    'test accuracy'
    """
    means, half_widths = np.asarray(means, float), np.asarray(half_widths, float)
    if means.ndim != 1 or means.shape != half_widths.shape or not len(means):
        raise ValueError(
            "adaptation_curve requires one mean and one half-width for each number of steps; got "
            f"shapes {means.shape} and {half_widths.shape}."
        )
    steps, means = np.arange(len(means)), np.where(np.isfinite(means), means, np.nan)
    figure = new_figure(6.4, 4.4, title)
    axes = figure.subplots()
    style(axes, "inner steps at test", ylabel)
    axes.fill_between(
        steps, means - half_widths, means + half_widths, color=BLUE, alpha=0.2, linewidth=0
    )
    marker = "o" if len(means) <= 30 else ""
    axes.plot(steps, means, color=BLUE, marker=marker, markersize=5, label="mean and 95 % interval")
    if trained_steps is not None:
        label = f"steps in training: {trained_steps}"
        axes.axvline(trained_steps, color=ORANGE, linestyle="--", zorder=0, label=label)
    count_ticks(axes.xaxis)
    if "accuracy" in ylabel:
        axes.yaxis.set_major_formatter(percent)
    else:
        shown = means[means > 0]
        if len(shown) and _spans_a_decade(shown):
            logarithmic(axes)
            axes.set_ylim(shown.min() / 1.6, shown.max() * 1.6)
    axes.legend(frameon=False, fontsize=9)
    return write(figure, path)


def curve_episode(
    path: str | Path,
    x: np.ndarray,
    true_y: np.ndarray,
    support_x: np.ndarray,
    support_y: np.ndarray,
    fits: Mapping[int, np.ndarray],
    *,
    title: str,
) -> "Figure":
    """One regression task: the true curve, the support, and fits before and after adaptation.

    Args:
      path: the PNG to write.
      x, true_y: `[points]`, the true curve.
      support_x, support_y: `[S]`, the support points.
      fits: `[points]` by number of inner steps; 0 is before adaptation.
      title: one line above the plot.

    Raises:
      ValueError: an array is not a vector, or lengths differ.

    >>> import tempfile
    >>> x = np.linspace(-5, 5, 50)
    >>> figure = curve_episode(
    ...     Path(tempfile.mkdtemp()) / "curve.png", x, np.sin(x), x[::10], np.sin(x[::10]),
    ...     {0: 0 * x, 1: 0.9 * np.sin(x)}, title="maml")
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()][1:]
    ['true curve', 'before adaptation', 'after 1 step']
    """
    shapes = {np.shape(values) for values in (x, true_y, *fits.values())}
    if (
        shapes != {(len(x),)}
        or np.ndim(support_x) != 1
        or np.shape(support_x) != np.shape(support_y)
    ):
        raise ValueError(
            "curve_episode requires vectors: the true curve and the fits of the length of x, and "
            f"support_x and support_y of one length; got curves {sorted(shapes)}, support "
            f"{np.shape(support_x)} and {np.shape(support_y)}."
        )
    figure = new_figure(8.6, 4.4, title)
    axes = figure.subplots()
    style(axes, "x", "y")
    axes.plot(
        support_x,
        support_y,
        "o",
        color=BLACK,
        markeredgecolor="white",
        markersize=9,
        zorder=4,
        label=f"support ({len(support_x)} points)",
    )
    axes.plot(x, true_y, color=BLACK, linewidth=2.4, alpha=0.8, label="true curve")
    after = iter((BLUE, GREEN, PURPLE, SKY))
    for steps, y in sorted(fits.items()):
        if steps == 0:
            axes.plot(x, y, "--", color=ORANGE, label="before adaptation")
        else:
            plural = "step" if steps == 1 else "steps"
            axes.plot(x, y, color=next(after, GREY), label=f"after {steps} {plural}", linewidth=1.6)
    # Clipped, so that a diverging fit doesn't flatten the curve.
    low, high = np.min(true_y), np.max(true_y)
    room = max(high - low, 1e-3) / 2
    shown = np.clip(np.concatenate([true_y, *fits.values()]), low - room, high + room)
    shown = np.concatenate([shown[np.isfinite(shown)], support_y])
    axes.set_ylim(shown.min() - room / 5, shown.max() + room / 5)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return write(figure, path)
