"""Accuracy over the number of labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    count_ticks,
    new_figure,
    percent,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def label_curves(
    path: str | Path,
    labels: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    ylabel: str = "accuracy",
    title: str,
) -> "Figure":
    """Draws the accuracy of several acquisition rules over the labels, with 95 % intervals.

    Args:
      path: the PNG to write.
      labels: the number of labels, `[points]`.
      curves: by the name of a rule, means and half-widths of the intervals, `[points]` each. The
        first rule is the baseline, a dashed line.
      ylabel: the metric, shown in percent.
      title: one line above the plot.

    Raises:
      ValueError: there are no curves, or they have another length than the labels.

    >>> import tempfile
    >>> rising = (np.linspace(0.2, 0.9, 5), np.full(5, 0.01))
    >>> path = Path(tempfile.mkdtemp()) / "labels.png"
    >>> figure = label_curves(path, np.arange(5), {"random": rising}, title="20-way")
    >>> len(figure.axes)
    1
    """
    lengths = {len(own) for curve in curves.values() for own in curve}
    if lengths != {len(labels)}:
        raise ValueError(
            f"label_curves requires curves of {len(labels)} points, as many as numbers of labels; "
            f"got {len(curves)} curves of {sorted(lengths)} points."
        )
    figure = new_figure(6.4, 4.4, title)
    axes = figure.subplots()
    colours = (GREY, BLUE, VERMILION, GREEN, ORANGE, PURPLE, BLACK)
    for number, (name, (means, ci95)) in enumerate(curves.items()):
        colour, line = colours[number % len(colours)], "-" if number else "--"
        axes.plot(labels, means, color=colour, linestyle=line, label=name, linewidth=1.6)
        axes.fill_between(labels, means - ci95, means + ci95, color=colour, alpha=0.2, linewidth=0)
    style(axes, "labels", ylabel)
    count_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter(percent)
    axes.legend(frameon=False, fontsize=9)
    return write(figure, path)
