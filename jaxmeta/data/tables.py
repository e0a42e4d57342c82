"""Tables of numbers, as users give them."""

import csv
from pathlib import Path

import numpy as np


def read_numbers(path: str | Path, columns: int | None = None) -> np.ndarray:
    """A CSV file without a header, float32 `[rows, columns]`.

    Args:
      path: the file.
      columns: how many there must be. Defaults to as many as the first row has.

    Raises:
      OSError: the file can't be read.
      ValueError: a cell that is no number, rows of another length, no row at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = path.write_text("0,1\\n2,3\\n")
    >>> read_numbers(path).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    try:
        with open(path, newline="") as file:
            rows = [[float(cell) for cell in row] for row in csv.reader(file) if row]
    except ValueError as error:
        raise ValueError(f"{path} is not a table of numbers ({error}).") from error
    wanted = columns or (len(rows[0]) if rows else 1)
    if not rows or {len(row) for row in rows} != {wanted}:
        raise ValueError(f"{path}: give rows of {wanted} numbers, separated by commas.")
    return np.array(rows, np.float32)
