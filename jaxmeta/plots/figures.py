"""Shared by all plots: the palette, the style of axes, writing files."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta import files
from jaxmeta.extras import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

DPI = 130
# Okabe and Ito's palette, which is safe for colour-blind readers.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BROWN, BLACK = "#E69F00", "#56B4E9", "#7A5C2E", "#222222"
MISTAKE = "#C81E1E"
GREY = "#777777"


def new_figure(
    width: float, height: float, title: str | None = None, layout: Any = "constrained"
) -> "Figure":
    """An empty figure of this size in inches, with a title above all axes."""
    with extra("train"):
        from matplotlib.figure import Figure  # not pyplot, which has global state and windows

    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    if title is not None:
        figure.suptitle(title, fontsize=12, parse_math=False)  # names may contain a $
    return figure


def style(axes: "Axes", xlabel: str, ylabel: str) -> None:
    """Sets the labels, a light grid, and no frame."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def mean_with_interval(
    axes: "Axes", x: np.ndarray, samples: np.ndarray, colour: str, label: str
) -> None:
    """Draws the mean of samples `[n, points]` over x, with its 95 % interval as a band."""
    mean = samples.mean(axis=0)
    spread = 1.96 * samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    axes.plot(x, mean, color=colour, label=label, linewidth=1.6)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def count_ticks(axis: "XAxis") -> None:
    """Sets ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=7))
    axis.set_major_formatter("{x:,.0f}")


def logarithmic(axes: "Axes") -> None:
    """Sets a logarithmic y axis with plain decimal numbers."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def percent(fraction: float, position: float = 0) -> str:
    """Formats 0.931 as `93.1 %`; the position is an unused argument of tick formatters."""
    return f"{round(100 * float(fraction), 1):g} %"


def check_labels(
    name: str,
    support: np.ndarray,
    support_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
) -> None:
    """Raises `ValueError` unless there is one label for each example."""
    for part, examples, labels in (
        ("support", support, support_labels),
        ("query", query, query_labels),
    ):
        if labels.shape != examples.shape[:1] or not len(labels):
            raise ValueError(
                f"{name} requires one label for each {part} example; got {len(examples)} examples "
                f"and labels of shape {labels.shape}."
            )


def write(figure: "Figure", path: str | Path) -> "Figure":
    """Writes the figure as a PNG, replacing the file atomically."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Class names may contain letters that the font lacks, which are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    files.write_bytes(path, buffer.getvalue())
    return figure
