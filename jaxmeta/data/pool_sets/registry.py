"""Sets of pools by name, and files."""

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxmeta.data.pool_sets.dataset import Kind, PoolSet
from jaxmeta.data.reading import listed

Read = TypeVar("Read", bound=Callable[..., PoolSet])


class Description(NamedTuple):
    """What is known of a set before it is read.

    Attributes:
      kind: the kind of its tasks; None for a file, whose content decides.
      test_support: the numbers of support examples that are tested.
      train_support: the smallest and the largest number of support examples in training.
      read: reads the set; None for a table.
      suffix: of files that `read` reads too; empty if it reads none.
      folds: number of divisions into training and test pools, of which `read` is given one.
    """

    kind: Kind | None
    test_support: tuple[int, ...] = (5, 10, 20)
    train_support: tuple[int, int] = (5, 20)
    read: Callable[..., PoolSet] | None = None
    suffix: str = ""
    folds: int = 1


_SOURCES: dict[str, Description] = {}
_PACKAGE = "jaxmeta.data.pool_sets"


def pool_source(
    name: str,
    *,
    kind: Kind,
    test_support: tuple[int, ...] = (5, 10, 20),
    train_support: tuple[int, int] = (5, 20),
    suffix: str = "",
    folds: int = 1,
) -> Callable[[Read], Read]:
    """Registers a function without arguments that reads a set of pools, for `load_pools`.

    A built-in set is in `jaxmeta/data/pool_sets`, in the file of its name or of the first words of
    it (`movielens_new_films` is in `movielens.py`), which `load_pools(NAME)` imports. A function
    elsewhere is registered when its module is imported.

    Args:
      name: lower-case letters, digits and `_`, beginning with a letter.
      kind: classification or regression.
      test_support: the numbers of support examples that are tested.
      train_support: the smallest and the largest number of support examples in training.
      suffix: of files that the function reads too, such as `.npz`: its first argument is then the
        path of such a file, or of a folder with some.
      folds: number of divisions of the pools; the function is given one, from 0, as `fold`.

    Raises:
      ValueError: the name has another form, or belongs to another function.

    >>> import numpy as np
    >>> from jaxmeta.data.pools import pools_by
    >>> from jaxmeta.data.pool_sets import number_metrics
    >>> @pool_source("slopes", kind="regression")
    ... def slopes() -> PoolSet:
    ...     inputs = np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    ...     part = pools_by(inputs, inputs[:, 0], np.repeat(["a", "b", "c"], 10))
    ...     return PoolSet("slopes", "regression", part, part, part, number_metrics, "mae")
    >>> describe_pools("slopes").kind, load_pools("slopes").protocol["pools"]["test"]
    ('regression', 3)
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"pool_source: {name!r} can't be the name of a set; use lower-case letters, digits "
            "and _, and begin with a letter"
        )

    def register(read: Read) -> Read:
        other = _find(name)
        if other is not None and _identity(other) != _identity(read):
            raise ValueError(
                f"pool_source: {name!r} is already the name of {'.'.join(_identity(other))}; "
                "choose another"
            )
        _SOURCES[name] = Description(kind, test_support, train_support, read, suffix, folds)
        return read

    return register


def describe_pools(name: str) -> Description:
    """What is known of a set, or of a file, before it is read.

    Raises:
      ValueError: neither a known set nor a file; the message lists the sets.

    >>> describe_pools("fsmol").test_support
    (16, 32, 64, 128, 256)
    """
    if (found := _described(name)) is not None:
        return found
    known, path = known_pools(), Path(name).expanduser()
    names = listed(path) if path.is_dir() else [path.name]
    for own in map(_SOURCES.__getitem__, known):
        if own.suffix and path.exists() and any(entry.endswith(own.suffix) for entry in names):
            return own
    if not path.is_file():
        raise ValueError(f"unknown dataset {name!r}: neither a file nor one of {', '.join(known)}")
    return Description(None)


def load_pools(name: str, **options: Any) -> PoolSet:
    """Loads a set of pools by its name, or from a table, see `pool_sets.table.table_pools`.

    Args:
      name: fsmol, ratings, movielens, ratings_new_films, movielens_new_films, metahin_user_cold,
        metahin_item_cold, metahin_user_item_cold, anomaly, volatility, or another name registered
        with `pool_source`; or the path of a file, or of a folder of `.npz` files.
      options: arguments of `table_pools` for a table; `fold` for a set with several folds.

    Raises:
      ValueError, OSError: the name is unknown; files are missing or damaged.
    """
    read = describe_pools(name).read
    if read is not None:
        places = () if _described(name) else (name,)
        return read(*places, **options)._replace(name=name).with_protocol()
    from jaxmeta.data.pool_sets.table import table_pools

    return table_pools(name, **options).with_protocol()


def known_pools() -> list[str]:
    """The names of all registered sets, including all sets of this package.

    >>> "fsmol" in known_pools()
    True
    """
    for module in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        importlib.import_module(f"{_PACKAGE}.{module.name}")
    return sorted(_SOURCES)


def _described(name: str) -> Description | None:
    """The set registered under a name, after importing the file that may hold it."""
    words = name.split("_") if re.fullmatch("[a-z][a-z0-9_]*", name) else []
    while name not in _SOURCES and words:
        module = f"{_PACKAGE}.{'_'.join(words)}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
        words.pop()
    return _SOURCES.get(name)


def _find(name: str) -> Callable[..., PoolSet] | None:
    found = _described(name)
    return None if found is None else found.read


def _identity(read: Callable[..., Any]) -> tuple[str, str]:
    return read.__module__, read.__qualname__
