"""Pictures of generated images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import write
from jaxmeta.plots.images import _board, _pictures, _place

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(
    path: str | Path, rows: Sequence[np.ndarray], *, title: str, apart: int = 0
) -> "Figure":
    """Draw rows of images; the first `apart` images of a row stand apart from the others.

    Args:
      path: the PNG to write.
      rows: images `[N, H, W, C]` with values in [0, 1], as many in each row.
      title: the title.
      apart: number of images before the gap.

    Raises:
      ValueError: there are no rows, or they have different lengths.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     figure = image_grid(Path(folder, "grid.png"), [np.zeros((3, 8, 8, 1))] * 2, title="two")
    >>> len(figure.axes[0].images)
    6
    """
    if len({len(row) for row in rows}) != 1:
        raise ValueError("image_grid: give at least one row, and rows with as many images.")
    columns = len(rows[0])
    gap = 0.4 if apart else 0.0
    figure, axes = _board(columns + gap, len(rows), 0.6, title)
    for top, row in enumerate(_pictures(*rows)):
        for column, image in enumerate(row):
            _place(axes, image, column + (gap if column >= apart else 0), top)
    return write(figure, path)
