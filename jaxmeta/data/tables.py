"""Reading and writing CSV files."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.reading import regular
from jaxmeta.files import shown, write_bytes


def read_numbers(path: str | Path, columns: int | None = None) -> np.ndarray:
    """Reads a CSV file of numbers without a header: float32 `[rows, columns]`.

    Args:
      path: the file.
      columns: the required number of columns. Defaults to that of the first row.

    Raises:
      OSError: the file can't be read.
      ValueError: it is not a regular file; a cell is not a number; rows differ in length; there
        are no rows.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = path.write_text("0,1\\n2,3\\n")
    >>> read_numbers(path).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    regular(Path(path))
    try:
        with open(path, newline="") as file:
            reader = csv.reader(file)
            rows = [[_number(cell, reader.line_num) for cell in row] for row in reader if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{shown(path)} is not a table of numbers: {error}.") from error
    wanted = columns or (len(rows[0]) if rows else 1)
    if not rows or {len(row) for row in rows} != {wanted}:
        raise ValueError(f"{shown(path)}: give rows of {wanted} numbers, separated by commas.")
    return np.array(rows, np.float32)


def _number(cell: str, line: int) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(
            f"line {line} has {cell!r}; give rows of numbers, without a header"
        ) from error


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header and rows of text and numbers to a CSV file, replacing it atomically.

    Text is quoted, so that any CSV reader returns it unchanged; a byte that is not UTF-8, as file
    names may contain, is written as its escape, such as `\\xe9`.

    Raises:
      OSError: the folder is missing, full, or not writable.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "named.csv"
    >>> write_table(path, ["image", "probability"], [['a "small" pear.png', 0.5]])
    >>> print(path.read_text(), end="")
    "image","probability"
    "a ""small"" pear.png",0.5
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerows([header, *rows])
    data = text.getvalue().encode("utf-8", "surrogateescape")
    write_bytes(path, data.decode("utf-8", "backslashreplace").encode())
