"""Figures on whole pools: against the number of support examples, and pool by pool."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    new_figure,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OTHERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")


def figures_by_test(
    path: str | Path,
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
    ylabel: str,
    *,
    title: str,
    faint: Collection[str] = (),
    xlabel: str = "support set",
    intervals: bool = False,
) -> "Figure":
    """One line for each method over the tests, with 95 % intervals of the first method.

    Args:
      path: the PNG to write.
      curves: a mean and the half-width of its interval by method and test; the first method is
        the learner. A method may lack a test.
      ylabel: of the figure.
      title: one line above the plot.
      faint: methods in grey, behind the others.
      xlabel: what the tests differ in.
      intervals: draw those of all methods that are not faint.

    Raises:
      ValueError: there are no methods.

    >>> import tempfile
    >>> curves = {"maml": {"16": (0.1, 0.01), "32": (0.2, 0.01)}, "forest": {"16": (0.1, 0.02)}}
    >>> path = Path(tempfile.mkdtemp()) / "sizes.png"
    >>> figure = figures_by_test(path, curves, "gain", title="assays")
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['forest', 'maml']
    """
    if not curves:
        raise ValueError("figures_by_test requires at least one method.")
    figure = new_figure(7.5, 4.6, title)
    axes = figure.subplots()
    first, *others = curves
    tests = list(curves[first])
    ends: list[tuple[float, float, str, str]] = []
    shown = [method for method in others if method not in faint]
    shades = (VERMILION, GREEN, PURPLE, ORANGE, BROWN, BLACK)
    colours = dict.fromkeys(others, "#BBBBBB") | dict(zip(shown, shades))
    for number, (method, colour) in enumerate(colours.items()):
        places = [place for place, test in enumerate(tests) if test in curves[method]]
        values = [curves[method][tests[place]][0] for place in places]
        marker = _OTHERS[number % len(_OTHERS)] if method in shown else ""
        own = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1}
        halves = [curves[method][tests[place]][1] for place in places]
        bars = halves if intervals and method in shown else None
        axes.errorbar(places, values, bars, capsize=2, **own)
        ends.append((places[-1], values[-1], method, colour if method in shown else GREY))
    means, halves = zip(*(curves[first][test] for test in tests))
    axes.errorbar(
        range(len(tests)), means, halves, color=BLUE, marker="o", linewidth=2, capsize=3, zorder=3
    )
    ends.append((len(tests) - 1, means[-1], first, BLUE))
    axes.set_xticks(range(len(tests)), tests)
    style(axes, xlabel, ylabel)
    _label_ends(axes, ends)
    write(figure, path)
    return figure


def _label_ends(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """A name to the right of the axes for each line, in the order of their ends."""
    from matplotlib.transforms import blended_transform_factory

    beside = blended_transform_factory(axes.transAxes, axes.transData)
    low, high = axes.get_ylim()
    step = (high - low) / 24
    heights = _apart([end[1] for end in ends], step)
    for (x, y, name, colour), height in zip(ends, heights):
        axes.annotate(
            name,
            (x, y),
            (1.01, height),
            textcoords=beside,
            fontsize=7,
            color=colour,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.4,
                "relpos": (0, 0.5),  # to the middle of the name's left edge
                "shrinkA": 0,
            },
        )
    axes.set_ylim(min(low, *heights), max(high, *heights))


def _apart(values: list[float], step: float) -> list[float]:
    """Values moved as little as need be, so that they lie a step apart in the same order."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, np.float64)[order] - step * np.arange(len(values))
    # The nearest values that do not fall: the means of the runs that would.
    runs: list[list[float]] = []
    for value in placed:
        runs.append([value])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            runs[-2:] = [runs[-2] + runs[-1]]
    level = np.concatenate([[np.mean(run)] * len(run) for run in runs])
    heights = np.empty(len(values))
    heights[order] = level + step * np.arange(len(values))
    return heights.tolist()


def scatter_by_pool(
    path: str | Path,
    own: Mapping[str, float],
    others: Mapping[str, Mapping[str, float]],
    label: str,
    *,
    name: str,
    title: str,
) -> "Figure":
    """One panel for each other method: its figure of each pool, and the learner's.

    Points above the diagonal are pools on which the learner is better.

    Args:
      path: the PNG to write.
      own: the learner's figure by pool.
      others: the figures of other methods by pool; pools that the learner lacks are left out.
      label: of the figure.
      name: of the learner.
      title: one line above the plot.

    Raises:
      ValueError: there is no other method.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pools.png"
    >>> own, forest = {"a": 0.1, "b": 0.3}, {"a": 0.2, "b": 0.2}
    >>> figure = scatter_by_pool(path, own, {"forest": forest}, "gain", name="maml", title="assays")
    >>> figure.axes[0].get_title()
    'forest\\nbetter on 50 %'
    """
    if not others:
        raise ValueError("scatter_by_pool requires at least one other method.")
    wide = min(4, len(others))
    tall = -(-len(others) // wide)
    figure = new_figure(0.6 + 2 * wide, 0.8 + 2.1 * tall, title)
    panels = figure.subplots(tall, wide, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (other, theirs) in zip(panels, others.items()):
        pools = [pool for pool in own if pool in theirs]
        x, y = (np.array([values[pool] for pool in pools]) for values in (theirs, own))
        axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8)
        axes.scatter(x, y, s=6, color=BLUE, alpha=0.6, linewidths=0)
        style(axes, "", "")
        share = round(100 * np.mean(y > x)) if pools else 0
        axes.set_title(f"{other}\nbetter on {share} %", fontsize=7, parse_math=False)
        axes.tick_params(labelsize=7, labelbottom=True)
    for axes in panels[len(others) :]:
        axes.set_visible(False)
    figure.supxlabel(f"{label} of the other method", fontsize=9)
    figure.supylabel(f"{label} of {name}", fontsize=9)
    write(figure, path)
    return figure
