"""The cells that architecture searches find."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmeta.architecture import CELL_EDGES
from jaxmeta.plots.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    new_figure,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cell(path: str | Path, operations: Sequence[str], *, title: str) -> "Figure":
    """The operations on the edges of a cell with four nodes; edges of `none` are left out.

    Args:
      path: the PNG to write.
      operations: six names, in the order of `jaxmeta.architecture.CELL_EDGES`.
      title: one line above the plot.

    Raises:
      ValueError: not six names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "cell.png"
    >>> len(cell(path, ["skip_connect"] * 6, title="a cell").axes)
    1
    """
    if len(operations) != len(CELL_EDGES):
        raise ValueError(f"cell: {len(operations)} operations; give {len(CELL_EDGES)}.")
    figure = new_figure(7.6, 4.2, title)
    axes = figure.subplots()
    names = sorted({*operations} - {"none"})
    colours = dict(zip(names, (BLUE, GREEN, ORANGE, PURPLE)))
    # Edges between neighbours are straight; longer ones bend above or below.
    bends = {(2, 0): -0.35, (3, 1): 0.35, (3, 0): -0.55}
    for (to, start), name in zip(CELL_EDGES, operations):
        if name == "none":
            continue
        bend = bends.get((to, start), 0.0)
        axes.annotate(
            "",
            (to, 0),
            (start, 0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": colours.get(name, GREY),
                "connectionstyle": f"arc3,rad={bend}",
                "shrinkA": 14,
                "shrinkB": 14,
                "linewidth": 1.6,
            },
        )
        height = -bend * (to - start) / 2
        axes.annotate(
            name,
            ((to + start) / 2, height),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=colours.get(name, GREY),
        )
    for node, label in enumerate(("input", "1", "2", "output")):
        axes.plot(node, 0, "o", color="white", markeredgecolor="black", markersize=26)
        axes.annotate(label, (node, 0), ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.4, 3.4), ylim=(-0.75, 1.1))
    axes.set_axis_off()
    return write(figure, path)
