"""Results of compressed versions of a learner over their size."""

from collections.abc import Sequence
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
    SKY,
    VERMILION,
    new_figure,
    style,
    write,
)
from jaxmeta.plots.figures import percent as as_percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def size_and_result(
    path: str | Path,
    names: Sequence[str],
    sizes: np.ndarray,
    means: np.ndarray,
    ci95: np.ndarray,
    *,
    ylabel: str,
    percent: bool = False,
    title: str | None = None,
) -> "Figure":
    """Draws the result of each version of a learner over the size of its parameters.

    Versions whose names have the same first word, such as `prune 60 %` and `prune 90 %`, have one
    colour and are connected by a line; the rest of the name is written beside the point. The first
    version is the uncompressed one, whose result is a dashed line.

    Args:
      path: the PNG file.
      names: the names of the versions.
      sizes: in bytes, `[versions]`.
      means, ci95: results and half-widths of their 95 % intervals, float `[versions]`.
      ylabel: label of the results.
      percent: whether results are fractions to be shown in percent.
      title: the title.

    Raises:
      ValueError: no version, or arrays of another length than the names.

    >>> import tempfile
    >>> figure = size_and_result(
    ...     tempfile.mkdtemp() + "/compression.png", ["uncompressed", "int8"], np.array([400, 110]),
    ...     np.array([0.96, 0.95]), np.array([0.01, 0.01]), ylabel="accuracy", percent=True)
    >>> figure.axes[0].get_xscale()
    'log'
    """
    if not names or any(values.shape != (len(names),) for values in (sizes, means, ci95)):
        shapes = ", ".join(str(values.shape) for values in (sizes, means, ci95))
        raise ValueError(
            f"size_and_result requires one size, mean and interval for each of {len(names)} "
            f"versions, and at least one version; got arrays of shapes {shapes}."
        )
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(name.split(" ")[0], []).append(number)
    kilobytes = sizes / 1000
    figure = new_figure(7.2, 4.4, title)
    from matplotlib.ticker import LogLocator

    axes = figure.subplots()
    axes.axhline(means[0], color=GREY, linestyle="--", linewidth=1.0)
    colours = (BLACK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
    for number, (group, members) in enumerate(groups.items()):
        axes.errorbar(
            kilobytes[members],
            means[members],
            ci95[members],
            color=colours[number % len(colours)],
            marker="o",
            capsize=3,
            linewidth=1.2,
            label=group,
        )
        for member in members:
            rest = names[member].removeprefix(group).strip()
            axes.annotate(
                rest,
                (kilobytes[member], means[member]),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter("")
    if percent:
        axes.yaxis.set_major_formatter(as_percent)
    style(axes, "size (kB)", ylabel)
    axes.legend(frameon=False)
    return write(figure, path)
