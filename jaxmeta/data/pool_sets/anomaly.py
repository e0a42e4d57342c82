"""Rare anomalies in tables: the sets of ADBench (Han et al. 2022).

A pool is a data set with columns of its own; its examples are rows, anomalies (1) or normal (0).
The support has 1, 5 or 10 known anomalies and up to 128 unlabelled rows, at most half of the set.
Unlabelled rows are drawn from all others: they count as normal, although some are anomalies. The
query is the rest.

The sets are divided into four folds. With the fold f, those of f are tested, those of f + 1 are for
validation, and the others for training: four runs test every set once. Sets that share rows are in
one fold.

The public form is https://github.com/Minqi824/ADBench: the `.npz` files of
`adbench/datasets/Classical`, in the folder `adbench_classical` of `JAXMETA_DATA_DIR`.
"""

from pathlib import Path

import numpy as np

from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.anomaly_scores import anomaly_scores
from jaxmeta.data.pool_sets.baselines import (
    isolation_forest,
    linear,
    local_outlier_factor,
    neighbour_distance,
    random_forest,
    standardising,
)
from jaxmeta.data.pool_sets.dataset import PoolSet, class_metrics
from jaxmeta.data.pool_sets.known import KNOWN, LEAST_LEFT, UNLABELLED
from jaxmeta.data.pool_sets.registry import pool_source
from jaxmeta.data.pools import pools_by, select_pools
from jaxmeta.data.reading import listed, regular
from jaxmeta.files import read_arrays, shown

FOLDS = 4
MOST_ROWS = 3000
MOST_COLUMNS = 128
RELATED = (
    ("2_annthyroid", "38_thyroid"),
    ("19_landsat", "30_satellite", "31_satimage-2"),
    ("4_breastw", "42_WBC"),
    ("43_WDBC", "46_WPBC"),
    ("6_cardio", "7_Cardiotocography"),
    ("16_http", "34_smtp"),
)


@pool_source(
    "anomaly",
    kind="classification",
    test_support=(1, 5, 10),
    train_support=(1, 10),
    suffix=".npz",
    folds=FOLDS,
)
def anomaly(folder: str | Path | None = None, fold: int = 0) -> PoolSet:
    """Reads the sets of ADBench from `folder`; see the module.

    Args:
      folder: has the `.npz` files; or one such file, which can only be tested.
      fold: of the sets that are tested, from 0 to 3.

    Raises:
      OSError, ValueError: files are missing or damaged; the fold is out of range.
    """
    if not 0 <= fold < FOLDS:
        raise ValueError(f"anomaly: fold {fold}; give a number from 0 to {FOLDS - 1}")
    place = data_folder("adbench_classical", folder)
    if place.is_dir():
        paths = [place / name for name in listed(place) if name.endswith(".npz")]
    else:
        paths = [place] if place.is_file() else []
    if not paths:
        raise FileNotFoundError(
            f"{shown(place)} holds no sets of ADBench; put the .npz files of "
            "https://github.com/Minqi824/ADBench, adbench/datasets/Classical, there, or set "
            "JAXMETA_DATA_DIR to the folder that has adbench_classical"
        )
    names = [path.stem for path in paths]
    sets = [read_set(path) for path in paths]
    inputs, targets = (np.concatenate(own) for own in zip(*sets))
    owners = np.repeat(names, [len(own) for _, own in sets])
    whole = pools_by(inputs, targets, owners)
    folds = folds_of(whole.names)
    of_part = {
        "test": folds == fold,
        "validation": folds == (fold + 1) % FOLDS,
        "train": (folds != fold) & (folds != (fold + 1) % FOLDS),
    }
    parts = {part: select_pools(whole, np.flatnonzero(own)) for part, own in of_part.items()}
    return PoolSet(
        "anomaly",
        "classification",
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        metrics=class_metrics,
        figure="average_precision",
        drawing=KNOWN,
        prepare=anomaly_scores,
        whole=whole,
        related=RELATED,
        ways=2,
        baselines={
            "isolation forest": isolation_forest(),
            "nearest neighbours": neighbour_distance(),
            "local outlier factor": local_outlier_factor(),
            "logistic regression": standardising(linear(2, balanced=True)),
            "random forest": random_forest(2, balanced=True),
        },
        protocol={
            "split": f"by set, fold {fold} of {FOLDS}",
            "support": f"k known anomalies and at most {UNLABELLED} unlabelled rows as class 0",
            "least_anomalies_in_query": LEAST_LEFT,
            "most_rows": MOST_ROWS,
            "most_columns": MOST_COLUMNS,
            "sets": {part: list(own.names) for part, own in parts.items()},
        },
        licence="of each set, see UCI and ODDS; the collection is BSD-2-Clause",
        source="https://github.com/Minqi824/ADBench",
    )


def read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a set, float32 `[rows, 128]`, and int `[rows]`, 1 for an anomaly.

    Of a set with more than 3000 rows, as many are drawn at random with a fixed seed. Of one with
    more than 128 columns, those with the largest variance after scaling to [0, 1] are kept; missing
    columns are 0. Columns are divided by their standard deviation, which changes no score and
    keeps float32 exact.

    Raises:
      OSError, ValueError: the file is missing, or no set of ADBench.
    """
    regular(path)
    arrays = read_arrays(path)
    try:
        rows, labels = np.asarray(arrays["X"], float), np.asarray(arrays["y"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{shown(path)} is no set of ADBench: it needs numbers X and labels y"
        ) from error
    if rows.ndim != 2 or 0 in rows.shape or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{shown(path)}: X of shape {rows.shape} and y of shape {labels.shape}; give rows of "
            "columns, and a label for each row"
        )
    if not np.isfinite(rows).all() or not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{shown(path)}: a value of X is NaN or infinite, or one of y is neither 0 nor 1; fill "
            "it in, or leave the row out"
        )
    chosen = np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS]
    rows, labels = rows[chosen], labels[chosen].astype(np.int32)
    span = np.ptp(rows, axis=0)
    spread = (rows / np.where(span > 0, span, 1)).var(axis=0)
    kept = np.sort(np.argsort(-spread, kind="stable")[:MOST_COLUMNS])
    rows, std = rows[:, kept], rows[:, kept].std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(std > 0, std, 1)
    return np.pad(rows, ((0, 0), (0, MOST_COLUMNS - len(kept)))).astype(np.float32), labels


def folds_of(names: tuple[str, ...]) -> np.ndarray:
    """The fold of each set, int `[sets]`: families in random order, each to the smallest fold.

    >>> folds_of(("19_landsat", "5_campaign", "31_satimage-2", "2_annthyroid", "33_skin"))
    array([1, 3, 1, 2, 0])
    """
    families: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        group = next((group for group in RELATED if name in group), (name,))
        families.setdefault(group[0], []).append(row)
    keys = sorted(families)
    found, sizes = np.zeros(len(names), np.int64), np.zeros(FOLDS, np.int64)
    for own in np.random.default_rng(0).permutation(len(keys)):
        smallest = int(sizes.argmin())
        found[families[keys[own]]] = smallest
        sizes[smallest] += len(families[keys[own]])
    return found
