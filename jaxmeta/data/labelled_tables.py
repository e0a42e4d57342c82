"""Tables for classification, each a data set of its own: known ones, and yours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.table import numbers, read_columns
from jaxmeta.data.pools import Pools, pools_by
from jaxmeta.data.reading import listed
from jaxmeta.extras import extra
from jaxmeta.files import read_arrays, shown

CLASSICAL = "classical"
_ADBENCH = "adbench_classical"
_SOURCE = "https://github.com/Minqi824/ADBench"


class Table(NamedTuple):
    """A table for classification.

    Attributes:
      inputs: float32 `[rows, columns]`; NaN is a missing value.
      targets: int32 `[rows]`, classes from 0.
    """

    inputs: np.ndarray
    targets: np.ndarray


def load_tables(name: str | Path = CLASSICAL, *, target_column: str = "target") -> dict[str, Table]:
    """Loads tables by name.

    Args:
      name: `classical`: iris, wine and breast cancer of scikit-learn, and the data sets of ADBench
        in the folder `adbench_classical` of `JAXMETA_DATA_DIR`, or in the cache folder, as files
        `NAME.npz` with X and y (1 is an anomaly); or the path of such a file, of a CSV or parquet
        file with a header, or of a folder of them.
      target_column: the column of a CSV or parquet file with the classes, numbers or words; all
        others are features, numbers, where an empty cell is a missing value.

    Raises:
      OSError: a file is missing.
      ValueError: a damaged file, or one of another form.

    Source: https://github.com/Minqi824/ADBench (Han et al. 2022).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
    >>> _ = path.write_text("weight,target\\n3,pear\\n,apple\\n")
    >>> load_tables(path)["fruit"].targets.tolist()
    [1, 0]
    """
    if name == CLASSICAL:
        place = data_folder(_ADBENCH)
        if not place.is_dir():
            raise FileNotFoundError(
                f"{shown(place)} is missing; put the .npz files of {_SOURCE} "
                "(adbench/datasets/Classical) there."
            )
        return {**_of_scikit_learn(), **_of_folder(place, target_column)}
    path = Path(name).expanduser()
    found = _of_folder(path, target_column) if path.is_dir() else _of_file(path, target_column)
    if not found:
        raise ValueError(f"{shown(path)} has no .npz, .csv or .parquet file.")
    return found


def _of_scikit_learn() -> dict[str, Table]:
    with extra("tables"):
        from sklearn import datasets
    sets = {
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
    }
    found = {}
    for name, load in sets.items():
        inputs, targets = load(return_X_y=True)
        found[name] = Table(np.asarray(inputs, np.float32), np.asarray(targets, np.int32))
    return found


def _of_folder(folder: Path, target_column: str) -> dict[str, Table]:
    found = {}
    for entry in sorted(listed(folder)):
        if Path(entry).suffix in (".npz", ".csv", ".parquet"):
            found |= _of_file(folder / entry, target_column)
    return found


def _of_file(path: Path, target_column: str) -> dict[str, Table]:
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        inputs, targets = arrays.get("X"), arrays.get("y")
        if inputs is None or targets is None or len(inputs) != len(targets):
            raise ValueError(f"{shown(path)} has no arrays X and y of one length.")
        classes = targets.reshape(len(inputs), -1)[:, 0]
        return {path.stem: _table(path, np.asarray(inputs, np.float64), classes)}
    columns = read_columns(path)
    if target_column not in columns:
        raise ValueError(
            f"{shown(path)} has no column {target_column!r}; its columns are {', '.join(columns)}; "
            "give the one with the classes as target_column."
        )
    classes = classes_of_cells(path, columns.pop(target_column))
    return {path.stem: _table(path, numbers(path, columns), classes)}


def classes_of_cells(path: Path, cells: Sequence[str]) -> np.ndarray:
    """The class of each row: its number where all are numbers, otherwise its text.

    Raises:
      ValueError: a cell is empty.

    >>> classes_of_cells(Path("fruit.csv"), ["1", "1.0", "2"]).tolist()
    [1.0, 1.0, 2.0]
    """
    texts = [cell.strip() for cell in cells]
    if "" in texts:
        raise ValueError(
            f"{shown(path)}: the class in row {texts.index('') + 1} after the header is missing; "
            "leave the row out."
        )
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts)


def _table(path: Path, inputs: np.ndarray, classes: np.ndarray) -> Table:
    if inputs.ndim != 2 or not inputs.size:
        raise ValueError(f"{shown(path)}: features {inputs.shape}; give rows and columns.")
    _, targets = np.unique(classes, return_inverse=True)
    inputs = np.where(np.isfinite(inputs), inputs, np.nan).astype(np.float32)
    return Table(inputs, targets.astype(np.int32))


def tables_as_pools(
    tables: Mapping[str, Table], *, columns: int, classes: int, rows: int, seed: int = 0
) -> tuple[Pools, dict[str, str]]:
    """Tables as pools of rows `[columns]`, the missing columns NaN; and why others are left out.

    Args:
      tables: the tables by name.
      columns, classes: largest numbers; tables with more are left out, as are those of one class.
      rows: largest number of rows; of larger tables as many are drawn, in the proportions of the
        classes.
      seed: of these draws, which depend on the table's name, too.

    Raises:
      ValueError: no table is left.

    >>> table = Table(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1], np.int32))
    >>> pools, left_out = tables_as_pools({"a": table}, columns=3, classes=5, rows=100)
    >>> pools.inputs.shape, pools.names, left_out
    ((4, 3), ('a',), {})
    """
    left_out, inputs, targets, owners = {}, [], [], []
    for name, table in tables.items():
        width, ways = table.inputs.shape[1], int(table.targets.max()) + 1
        if width > columns or not 2 <= ways <= classes:
            left_out[name] = f"{width} columns, {ways} classes"
            continue
        random = np.random.default_rng([seed, *name.encode()])
        chosen = rows_in_proportion(table.targets, rows, random, least=2)
        padded = np.full((len(chosen), columns), np.nan, np.float32)
        padded[:, :width] = table.inputs[chosen]
        inputs.append(padded)
        targets.append(table.targets[chosen])
        owners += [name] * len(chosen)
    if not inputs:
        raise ValueError(
            f"no table has at most {columns} columns and 2 to {classes} classes; found {left_out}."
        )
    pools = pools_by(np.concatenate(inputs), np.concatenate(targets), np.array(owners))
    return pools, left_out


def rows_in_proportion(targets: np.ndarray, rows: int, random: Any, *, least: int) -> np.ndarray:
    """Indices of about `rows` rows at most, in the proportions of the classes.

    Args:
      targets: int `[rows]`, classes from 0.
      rows: their number; all are returned of a table with no more.
      random: a NumPy generator, or a `RandomState` as scikit-learn has them.
      least: smallest number of rows of each class.

    >>> chosen = rows_in_proportion(np.arange(40) % 4 // 3, 8, np.random.default_rng(0), least=1)
    >>> np.bincount((np.arange(40) % 4 // 3)[chosen]).tolist()
    [6, 2]
    """
    if len(targets) <= rows:
        return np.arange(len(targets))
    chosen = []
    for own in range(int(targets.max()) + 1):
        members = random.permutation(np.flatnonzero(targets == own))
        chosen.append(members[: max(least, round(rows * len(members) / len(targets)))])
    return np.sort(np.concatenate(chosen))
