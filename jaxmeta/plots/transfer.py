"""Results on other data: a matrix of runs and sets, reliability, and abstention."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import BLACK, BLUE, GREY, VERMILION, new_figure, percent, style, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4  # reliability diagrams in a row


def transfer_matrix(
    path: str | Path,
    rows: Sequence[str],
    columns: Sequence[str],
    means: np.ndarray,
    ci95: np.ndarray,
    own: np.ndarray,
    *,
    title: str,
    label: str = "accuracy",
) -> "Figure":
    """Draws the accuracy of every run on every set as a matrix of colours and numbers.

    Each column has colours of its own scale, from its lowest to its highest value, since sets
    differ in difficulty. The cells of runs on their own set have a frame.

    Args:
      path: the PNG to write.
      rows, columns: the names of the runs and of the sets.
      means, ci95: fractions and half-widths of their 95 % intervals, `[rows, columns]`; NaN where
        there is no value.
      own: bool `[rows, columns]`, whether the run was trained on the set.
      title: the title.
      label: what the fractions are.

    Raises:
      ValueError: arrays of other shapes.

    >>> import tempfile
    >>> figure = transfer_matrix(
    ...     tempfile.mkdtemp() + "/transfer.png", ["maml"], ["glyphs", "grocery"],
    ...     np.array([[0.9, 0.5]]), np.array([[0.01, 0.02]]), np.array([[True, False]]),
    ...     title="5-way 1-shot")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['90.0 ± 1.0', '50.0 ± 2.0']
    """
    shape = (len(rows), len(columns))
    if not means.shape == ci95.shape == own.shape == shape:
        raise ValueError(
            f"transfer_matrix: {shape[0]} rows and {shape[1]} columns, but arrays of shapes "
            f"{means.shape}, {ci95.shape} and {own.shape}."
        )
    figure = new_figure(3.0 + 1.25 * shape[1], 1.3 + 0.36 * shape[0], title)
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    filled = np.where(np.isfinite(means).any(axis=0), means, 0)
    low, high = np.nanmin(filled, axis=0), np.nanmax(filled, axis=0)
    scaled = (means - low) / np.where(high > low, high - low, 1)
    axes.imshow(scaled, cmap="Blues", vmin=-0.15, vmax=1.5, aspect="auto")
    for row, column in np.ndindex(*shape):
        if np.isfinite(means[row, column]):
            text = f"{100 * means[row, column]:.1f} ± {100 * ci95[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=BLACK)
        if own[row, column]:
            corner = (column - 0.47, row - 0.45)
            axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, color=VERMILION, linewidth=1.4))
    axes.set_xticks(range(shape[1]), columns, fontsize=9, parse_math=False)
    axes.set_yticks(range(shape[0]), rows, fontsize=9, parse_math=False)
    axes.set_xlabel(f"{label} (%), a frame marks the run's own set", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return write(figure, path)


def reliability_diagrams(
    path: str | Path,
    diagrams: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    *,
    title: str,
    ylabel: str = "accuracy",
) -> "Figure":
    """Draws the accuracy over the predicted probability, a panel for each run.

    The diagonal is perfect calibration. Bins with less than 0.5 % of the predictions are left out.

    Args:
      path: the PNG to write.
      diagrams: by run, and then by the name of a curve: counts, and the sums of probabilities and
        of right predictions in each bin, `[bins]` each; see `jaxmeta.calibration.reliability`.
      title: the title.
      ylabel: what the probabilities are of, such as the frequency of one class.

    >>> import tempfile
    >>> sums = np.array([4.0, 6.0]), np.array([1.0, 5.0]), np.array([1.0, 4.0])
    >>> path = tempfile.mkdtemp() + "/reliability.png"
    >>> figure = reliability_diagrams(path, {"maml": {"T = 1": sums}}, title="glyphs")
    >>> figure.axes[0].get_title()
    'maml'
    """
    columns = min(_COLUMNS, len(diagrams))
    rows = -(-len(diagrams) // columns)
    figure = new_figure(max(3.4, 2.6 * columns), 0.7 + 2.5 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(diagrams) :]:
        axes.set_visible(False)
    for number, (name, curves) in enumerate(diagrams.items()):
        axes = panels.flat[number]
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for colour, (label, (counts, probabilities, correct)) in zip(
            (VERMILION, BLUE), curves.items()
        ):
            kept = counts >= max(1, 0.005 * counts.sum())
            x, y = probabilities[kept] / counts[kept], correct[kept] / counts[kept]
            axes.plot(x, y, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=label)
        is_left, is_low = number % columns == 0, number + columns >= len(diagrams)
        style(axes, "probability" if is_low else "", ylabel if is_left else "")
        axes.set_title(name, fontsize=8.5, parse_math=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.tick_params(labelbottom=is_low)
        axes.legend(frameon=False, fontsize=7, loc="upper left")
    return write(figure, path)


def risk_over_coverage(
    path: str | Path,
    thresholds: np.ndarray,
    coverage: np.ndarray,
    risk: np.ndarray,
    *,
    title: str,
) -> "Figure":
    """Draws the error of the answered queries over the fraction that is answered.

    Args:
      path: the PNG to write.
      thresholds: the probabilities below which the run abstains, `[thresholds]`.
      coverage, risk: fractions, `[thresholds]` each.
      title: the title.

    >>> import tempfile
    >>> figure = risk_over_coverage(
    ...     tempfile.mkdtemp() + "/risk.png", np.array([0.0, 0.9]), np.array([1.0, 0.5]),
    ...     np.array([0.2, 0.1]), title="maml")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0', '0.9']
    """
    figure = new_figure(5.6, 3.8, title)
    axes = figure.subplots()
    answered = coverage > 0
    axes.plot(coverage[answered], risk[answered], color=BLUE, marker="o", markersize=4)
    free = np.inf  # coverage of the last written threshold
    for threshold, x, y in zip(thresholds, coverage, risk, strict=True):
        if x > 0 and free - x > 0.04:
            axes.annotate(
                f"{threshold:g}", (x, y), xytext=(0, 6), textcoords="offset points", fontsize=8
            )
            free = x
    style(axes, "coverage: queries that are answered", "risk: error of these")
    axes.xaxis.set_major_formatter(percent)
    axes.yaxis.set_major_formatter(percent)
    axes.margins(y=0.12)
    return write(figure, path)
