"""A table of your own as a set of pools: a CSV or parquet file with a row for each example.

One column names the pool, one is the target, the others are features. A column `split` with
`train`, `validation` and `test` divides the pools; otherwise they are divided at random.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.classes import split_sizes
from jaxmeta.data.pool_sets.baselines import linear, nearest_neighbours, random_forest
from jaxmeta.data.pool_sets.dataset import (
    PARTS,
    Kind,
    PoolSet,
    class_metrics,
    number_metrics,
)
from jaxmeta.data.pools import Pools, pools_by, select_pools
from jaxmeta.data.reading import regular
from jaxmeta.extras import extra
from jaxmeta.files import shown

SPLIT = "split"
Columns = Mapping[str, Sequence[str]]


class Scaling(NamedTuple):
    """The columns of features, with the numbers that scale them: `(value − centre) / scale`."""

    names: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]


def table_pools(
    path: str | Path,
    *,
    pool_column: str = "pool",
    target_column: str = "target",
    kind: Kind | None = None,
    seed: int = 0,
    scaling: Scaling | None = None,
) -> PoolSet:
    """Reads a table as a set of pools.

    Features are numbers, scaled by the mean and the standard deviation over the training pools; an
    empty cell or NaN becomes 0, the mean.

    Args:
      path: a CSV file with a header, or a parquet file (`.parquet`).
      pool_column, target_column: the names of these columns; all others are features.
      kind: of the tasks. Defaults to classification if all targets are whole numbers from 0 to
        fewer than 20, otherwise regression.
      seed: of a random split of the pools, 64/16/20 %.
      scaling: of the table that a learner was trained on, whose features are then read. Defaults to
        all columns, scaled by this table.

    Raises:
      OSError: the file can't be read.
      ValueError: it is no table; a column is missing; a cell is not a number; there are too few
        pools.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "sensors.csv"
    >>> rows = [f"{pool},{row},{row % 2}" for pool in "abcdefg" for row in range(8)]
    >>> _ = path.write_text("\\n".join(["pool,temperature,target", *rows]))
    >>> found = table_pools(path)
    >>> found.kind, found.columns, len(found.train.names)
    ('classification', ('temperature',), 3)
    """
    path = Path(path).expanduser()
    columns = read_columns(path)
    for name, option in ((pool_column, "pool"), (target_column, "target")):
        if name not in columns:
            raise ValueError(
                f"{shown(path)} has no column {name!r} for the {option}; its columns are "
                f"{', '.join(columns)}; give it as {option}_column"
            )
    names = tuple(own for own in columns if own not in (pool_column, target_column, SPLIT))
    if not names:
        raise ValueError(f"{shown(path)} has no columns of features")
    if scaling is not None:
        names = scaling.names
    targets = targets_in(path, columns, target_column)
    found = kind or kind_of_targets(targets)
    if found == "classification":
        if kind_of_targets(targets) != "classification":
            raise ValueError(f"{shown(path)}: classes are whole numbers from 0 to at most 19")
        targets = targets.astype(np.int32)
    inputs = _named(path, columns, names)
    owners = np.array(columns[pool_column])
    parts = _parts(path, owners, columns.get(SPLIT), seed)
    scaling = scaling or _scaling(names, inputs[np.isin(owners, parts["train"])])
    whole = pools_by(scaled_columns(inputs, scaling), targets, owners)
    index = {name: row for row, name in enumerate(whole.names)}
    ways = int(targets.max()) + 1 if found == "classification" else 0
    return PoolSet(
        path.name,
        found,
        *(_of_part(whole, parts[part], index) for part in PARTS),
        metrics=class_metrics if ways else number_metrics,
        figure=("average_precision_gain" if ways == 2 else "accuracy") if ways else "mae",
        higher=bool(ways),
        order="stratified" if ways else "random",
        ways=ways,
        baselines={
            "linear model": linear(ways),
            "random forest": random_forest(ways),
            "nearest neighbours": nearest_neighbours(ways),
        },
        columns=scaling.names,
        centre=scaling.centre,
        scale=scaling.scale,
        protocol={"split": "by the table" if SPLIT in columns else f"at random, seed {seed}"},
        source=path.name,
    )


def scaling_of(data: Mapping[str, Any]) -> Scaling | None:
    """The scaling of a table in the data of a run; None if its inputs have no columns."""
    if not data.get("columns"):
        return None
    return Scaling(*(tuple(data[name]) for name in ("columns", "centre", "scale")))


def table_rows(path: Path, scaling: Scaling) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The scaled features of each row, float32 `[rows, columns]`, and the columns as text.

    Raises:
      OSError, ValueError: as `table_pools`.
    """
    columns = read_columns(path)
    return scaled_columns(_named(path, columns, scaling.names), scaling), columns


def targets_in(path: Path, columns: Columns, name: str) -> np.ndarray:
    """The column of targets as numbers, float64 `[rows]`.

    Raises:
      ValueError: it is missing, or a target is.
    """
    if name not in columns:
        raise ValueError(f"{shown(path)} has no column {name!r} of targets")
    targets = numbers(path, {name: columns[name]})[:, 0]
    if missing := np.flatnonzero(np.isnan(targets)).tolist():
        raise ValueError(
            f"{shown(path)}: the target in row {missing[0] + 1} after the header is missing; leave "
            "the row out"
        )
    return targets


def _scaling(names: tuple[str, ...], training: np.ndarray) -> Scaling:
    """The mean and the standard deviation of each column, without missing values."""
    known = np.isfinite(training)
    counted = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, training, 0).sum(axis=0) / counted
    squares = np.square(np.where(known, training - centre, 0))
    scale = np.sqrt(squares.sum(axis=0) / counted)
    return Scaling(names, tuple(centre.tolist()), tuple(np.where(scale > 0, scale, 1).tolist()))


def kind_of_targets(targets: np.ndarray) -> Kind:
    """Classification for whole numbers from 0 to at most 19, otherwise regression.

    >>> kind_of_targets(np.array([0.0, 1.0])), kind_of_targets(np.array([0.5]))
    ('classification', 'regression')
    """
    whole = (targets == np.round(targets)).all() and targets.min() >= 0 and targets.max() < 20
    return "classification" if whole else "regression"


def read_columns(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV file with a header, or of a parquet file, as text by name.

    Raises:
      OSError, ValueError: the file can't be read, or is no table.
    """
    regular(path)
    if path.suffix == ".parquet":
        with extra("tables"):
            import pyarrow.parquet
        try:
            table = pyarrow.parquet.read_table(path)
        except pyarrow.ArrowException as error:
            raise ValueError(f"{shown(path)} is not a parquet file ({error})") from error
        rows = [["" if cell is None else str(cell) for cell in own.to_pylist()] for own in table]
        return dict(zip(table.column_names, rows))
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *lines = [row for row in csv.reader(file) if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{shown(path)} is not a table with a header ({error})") from error
    wrong = [row for row, line in enumerate(lines, start=1) if len(line) != len(header)]
    twice = [name for name in header if header.count(name) > 1]
    if wrong or twice or not lines:
        fault = "no rows" if not lines else f"two columns {twice[0]!r}" if twice else ""
        fault = fault or (
            f"{len(lines[wrong[0] - 1])} cells in row {wrong[0]} after the header, which has "
            f"{len(header)}"
        )
        raise ValueError(f"{shown(path)} has {fault}; give a table with a header")
    return {name: list(cells) for name, cells in zip(header, zip(*lines))}


def numbers(path: Path, columns: Columns) -> np.ndarray:
    """The columns as numbers, float64 `[rows, columns]`; NaN for an empty cell.

    Raises:
      ValueError: a cell is not a finite number; the message names its column and row.
    """
    found = []
    for name, cells in columns.items():
        values = []
        for row, cell in enumerate(cells, start=1):
            try:
                value = float(cell) if cell.strip() else math.nan
            except ValueError:
                value = math.inf
            if math.isinf(value):
                raise ValueError(
                    f"{shown(path)}: {cell!r} in column {name!r}, row {row} after the header, is "
                    "not a finite number; number classes from 0, and leave cells without a value "
                    "empty"
                )
            values.append(value)
        found.append(values)
    return np.array(found, np.float64).T


def _named(path: Path, columns: Columns, names: Sequence[str]) -> np.ndarray:
    """The columns with these names as numbers."""
    if missing := [name for name in names if name not in columns]:
        raise ValueError(f"{shown(path)} has no column {missing[0]!r} of the training data")
    return numbers(path, {name: columns[name] for name in names})


def scaled_columns(values: np.ndarray, scaling: Scaling) -> np.ndarray:
    """`(values − centre) / scale` as float32, 0 where a value is missing or infinite.

    >>> scaled_columns(np.array([[3.0], [np.nan]]), Scaling(("x",), (1.0,), (2.0,))).tolist()
    [[1.0], [0.0]]
    """
    found = (values - np.array(scaling.centre)) / np.array(scaling.scale)
    return np.where(np.isfinite(found), found, 0).astype(np.float32)


def _parts(
    path: Path, owners: np.ndarray, split: Sequence[str] | None, seed: int
) -> dict[str, np.ndarray]:
    """The names of the pools of each part."""
    names = np.unique(owners)
    if split is None:
        try:
            sizes = split_sizes(None, len(names))
        except ValueError as error:
            raise ValueError(
                f"{shown(path)} has {len(names)} pools; give at least 6, or a column {SPLIT!r} "
                "with train, validation and test"
            ) from error
        order = np.random.default_rng(seed).permutation(names)
        ends = np.cumsum(sizes)
        return dict(zip(PARTS, np.split(order, ends[:2])))
    given = np.array(split)
    if wrong := sorted({*split} - {*PARTS}):
        raise ValueError(
            f"{shown(path)}: a row has {wrong[0]!r} in column {SPLIT!r}; give each one of "
            f"{', '.join(PARTS)}"
        )
    parts = {part: np.unique(owners[given == part]) for part in PARTS}
    for part, own in parts.items():
        if not len(own):
            raise ValueError(f"{shown(path)}: no row has {part!r} in column {SPLIT!r}")
    everywhere, times = np.unique(np.concatenate([*parts.values()]), return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"{shown(path)}: pool {str(everywhere[times > 1][0])!r} is in two parts; give all of "
            f"its rows the same value in column {SPLIT!r}"
        )
    return parts


def _of_part(whole: Pools, names: np.ndarray, index: Mapping[str, int]) -> Pools:
    return select_pools(whole, sorted(index[str(name)] for name in names))
