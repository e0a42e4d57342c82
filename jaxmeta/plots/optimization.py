"""The losses of optimizers over their steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    logarithmic,
    mean_with_interval,
    new_figure,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def optimization_curves(
    path: str | Path, panels: Mapping[str, Mapping[str, np.ndarray]], *, title: str
) -> "Figure":
    """The mean loss of each optimizer with its 95 % interval, in a panel for each set of problems.

    Args:
      path: the PNG to write.
      panels: for each panel by name, the losses of each optimizer by name, float
        `[tasks, steps + 1]`.
      title: one line above the plot.

    Raises:
      ValueError: there are no panels, or more than four optimizers in one.

    >>> import tempfile
    >>> losses = 1 / (1 + np.arange(11.0)) + np.random.default_rng(0).random((5, 1))
    >>> path = Path(tempfile.mkdtemp()) / "curves.png"
    >>> figure = optimization_curves(path, {"unseen": {"adam": losses}}, title="quadratics")
    >>> len(figure.axes)
    1
    """
    if not panels or max(map(len, panels.values())) > 4:
        raise ValueError("optimization_curves requires panels of one to four optimizers.")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(0.6 + 4.2 * columns, 0.6 + 3.4 * rows, title)
    places = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, (name, curves) in zip(places, panels.items()):
        for colour, (optimizer, losses) in zip((VERMILION, BLUE, GREEN, ORANGE), curves.items()):
            mean_with_interval(axes, np.arange(losses.shape[1]), losses, colour, optimizer)
        style(axes, "steps", "query loss")
        logarithmic(axes)
        axes.set_title(name, fontsize=10)
    places[0].legend(frameon=False, fontsize=9)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return write(figure, path)
