"""Tabulated architectures: the accuracies of every network of a search space."""

import csv
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmeta.architecture import CELL_OPERATIONS, SearchSpace, cell_text
from jaxmeta.core import Array, Key, PyTree
from jaxmeta.data.cache import data_folder
from jaxmeta.data.reading import regular
from jaxmeta.files import shown

BLOCKS = ("identity", "mb3_k3", "mb6_k5")
DATASETS = ("cifar10", "cifar100", "imagenet16")
"""The data sets that the networks of NAS-Bench-201 were trained on."""


class Tabulated(NamedTuple):
    """The accuracies of every architecture of a space.

    An architecture is `decisions` indices of `options`; the accuracy of architecture a is in the
    row Σ_i a_i · optionsᴰ⁻¹⁻ⁱ, D the number of decisions.

    Attributes:
      decisions: D, the number of decisions.
      options: the names of the options.
      searched: accuracies that a search may look at, float32 `[optionsᴰ]`, in [0, 1].
      tests: by name, accuracies by which it is judged, likewise.
      text: `text(architecture)`, its name in the table.
    """

    decisions: int
    options: tuple[str, ...]
    searched: np.ndarray
    tests: Mapping[str, np.ndarray]
    text: Callable[[np.ndarray], str]


def nasbench_201(dataset: str = "cifar10", *, data_dir: str | Path | None = None) -> Tabulated:
    """The 15,625 cells of NAS-Bench-201: one of five operations on each of six edges.

    A search sees the validation accuracy after 12 epochs; the tests are the test accuracies after
    200 epochs, in the mean over several trainings.

    Args:
      dataset: `cifar10`, `cifar100` or `imagenet16`, the images of the accuracies that a search
        sees.
      data_dir: the folder of `nasbench201.csv.xz`. Defaults to `nasbench` in `JAXMETA_DATA_DIR`, or
        in the cache folder.

    Raises:
      FileNotFoundError: the file is missing; the message says what it is.
      ValueError: an unknown data set, or a damaged file.

    Source: Dong, Yang 2020, "NAS-Bench-201: extending the scope of reproducible neural architecture
    search".

    >>> nasbench_201(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/nasbench201.csv.xz does not exist; ...
    """
    if dataset not in DATASETS:
        raise ValueError(f"nasbench_201 has {', '.join(DATASETS)}, not {dataset!r}")
    columns = [f"{dataset}_val_12", *(f"{name}_test_200" for name in DATASETS)]
    path = data_folder("nasbench", data_dir) / "nasbench201.csv.xz"
    found = _read(path, columns, _cell, (len(CELL_OPERATIONS), 6))
    searched, *tests = found
    return Tabulated(6, CELL_OPERATIONS, searched, dict(zip(DATASETS, tests)), cell_text)


def nasbench_macro(*, data_dir: str | Path | None = None) -> Tabulated:
    """The 6,561 networks of NAS-Bench-Macro: one of three blocks for each of eight layers.

    The accuracy is that on CIFAR-10, in the mean over three trainings; searches see it, and are
    judged by it.

    Args and errors as in `nasbench_201`; the file is `nasbench_macro_cifar10.csv.xz`.

    Source: Su et al. 2021, "Prioritized architecture sampling with Monte-Carlo tree search".

    >>> nasbench_macro(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/nasbench_macro_cifar10.csv.xz does not exist; ...
    """
    path = data_folder("nasbench", data_dir) / "nasbench_macro_cifar10.csv.xz"
    sizes = (len(BLOCKS), 8)
    (found,) = _read(path, ["mean_acc"], lambda text: [int(digit) for digit in text], sizes)
    text = lambda architecture: "".join(map(str, architecture))  # noqa: E731
    return Tabulated(8, BLOCKS, found, {"cifar10": found}, text)


def table_space(table: Tabulated) -> SearchSpace:
    """The space of a table, with the accuracies that a search may look at; all choices are allowed.

    >>> table = Tabulated(1, ("a", "b"), np.array([0.25, 0.5]), {}, str)
    >>> float(table_space(table).accuracy(None, jnp.array([1]), ()))
    0.5
    """
    options = len(table.options)

    def accuracy(key: Key, architecture: Array, task: PyTree) -> Array:
        return jnp.asarray(table.searched)[row_of(architecture, options)]

    every = np.ones((options + 1, options), bool)
    return SearchSpace(table.decisions, table.options, every, accuracy)


def row_of(architecture: Any, options: int) -> Any:
    """The row of an architecture, `[..., decisions]`, in a table; also of traced arrays.

    >>> int(row_of(np.array([1, 0, 2]), 5))
    27
    """
    decisions = architecture.shape[-1]
    return (architecture * options ** np.arange(decisions - 1, -1, -1)).sum(axis=-1)


def _read(
    path: Path, columns: list[str], parse: Callable[[str], list[int]], sizes: tuple[int, int]
) -> list[np.ndarray]:
    """The columns in the order of the rows of a table, as fractions."""
    if not path.exists():
        raise FileNotFoundError(
            f"{shown(path)} does not exist; it holds a table of trained networks, with the columns "
            f"arch, {', '.join(columns)}: set JAXMETA_DATA_DIR to the folder above "
            f"{path.parent.name}."
        )
    regular(path)
    options, decisions = sizes
    values = np.full((len(columns), options**decisions), np.nan, np.float32)
    try:
        with lzma.open(path, "rt", newline="") as file:
            for entry in csv.DictReader(file):
                architecture = np.array(parse(entry["arch"]))
                if architecture.shape != (decisions,) or not (architecture < options).all():
                    raise ValueError(f"the architecture {entry['arch']}")
                row = row_of(architecture, options)
                values[:, row] = [float(entry[name]) / 100 for name in columns]
    except (ValueError, KeyError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)} is not a table of networks ({error}).") from error
    if missing := int(np.isnan(values).any(axis=0).sum()):
        raise ValueError(f"{shown(path)} lacks {missing} of {options**decisions} networks.")
    return list(values)


def _cell(text: str) -> list[int]:
    names = [
        edge.split("~")[0] for row in text.split("+") for edge in row.strip("|").split("|") if edge
    ]
    return [CELL_OPERATIONS.index(name) for name in names]
