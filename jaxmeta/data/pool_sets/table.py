"""A table of your own as a set of pools: a CSV or parquet file with a row for each example.

One column names the pool, one is the target, the others are features. A column `split` with
`train`, `validation` and `test` divides the pools; otherwise they are divided at random.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def table_pools(
    path: str | Path,
    *,
    pool_column: str = "pool",
    target_column: str = "target",
    kind: Kind | None = None,
    seed: int = 0,
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
    targets = numbers(path, {target_column: columns[target_column]})[:, 0]
    if missing := np.flatnonzero(~np.isfinite(targets)).tolist():
        raise ValueError(
            f"{shown(path)}: the target in row {missing[0] + 1} after the header is missing; leave "
            "the row out"
        )
    found = kind or kind_of_targets(targets)
    if found == "classification":
        if kind_of_targets(targets) != "classification":
            raise ValueError(f"{shown(path)}: classes are whole numbers from 0 to at most 19")
        targets = targets.astype(np.int32)
    inputs = numbers(path, {name: columns[name] for name in names})
    owners = np.array(columns[pool_column])
    parts = _parts(path, owners, columns.get(SPLIT), seed)
    training = inputs[np.isin(owners, parts["train"])]
    with np.errstate(invalid="ignore"):
        counted = np.maximum(np.isfinite(training).sum(axis=0), 1)
        centre = np.where(np.isfinite(training), training, 0).sum(axis=0) / counted
        squares = np.where(np.isfinite(training), np.square(training - centre), 0)
    scale = np.sqrt(squares.sum(axis=0) / counted)
    scale = np.where(scale > 0, scale, 1)
    whole = pools_by(scaled_columns(inputs, centre, scale), targets, owners)
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
        columns=names,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        protocol={"split": "by the table" if SPLIT in columns else f"at random, seed {seed}"},
        source=path.name,
    )


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
        with open(path, newline="", encoding="utf-8") as file:
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


def scaled_columns(values: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(values − centre) / scale` as float32, 0 where a value is missing or infinite.

    >>> scaled_columns(np.array([[3.0], [np.nan]]), np.array([1.0]), np.array([2.0])).tolist()
    [[1.0], [0.0]]
    """
    found = (values - centre[None]) / scale[None]
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
    parts = {part: np.unique(owners[given == part]) for part in PARTS}
    for part, own in parts.items():
        if not len(own):
            raise ValueError(f"{shown(path)}: no row has {part!r} in column {SPLIT!r}")
    if sum(map(len, parts.values())) != len(names):
        raise ValueError(
            f"{shown(path)}: a pool is in two parts, or in none; give each pool one of "
            f"{', '.join(PARTS)} in column {SPLIT!r}"
        )
    return parts


def _of_part(whole: Pools, names: np.ndarray, index: Mapping[str, int]) -> Pools:
    return select_pools(whole, sorted(index[str(name)] for name in names))
