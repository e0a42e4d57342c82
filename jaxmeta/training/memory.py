"""Estimates from shapes whether a program fits into memory, before anything is allocated."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmeta.core import PyTree
from jaxmeta.data.cache import memory
from jaxmeta.ops.derivatives import equations


class TooLarge(ValueError):
    """A program requires more memory than the machine has.

    Attributes:
      shape: the shape of its largest array.
    """

    def __init__(self, message: str, shape: tuple[int, ...]):
        super().__init__(message)
        self.shape = shape


class _Array(NamedTuple):
    bytes: int
    name: str
    shape: tuple[int, ...]


def machine_memory() -> int:
    """Available bytes: of the accelerator, or on a CPU of the machine or its control group.

    >>> machine_memory() > 2**20
    True
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit")
        if limit:
            return int(limit)
    limits = [memory()]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such file; "max", which means no limit
            continue
    return min(limits)


def check_fits(what: str, *trees: PyTree) -> None:
    """Raises `TooLarge` if arrays together are larger than the machine's memory.

    Args:
      what: the name of the arrays, for the message.
      trees: PyTrees of arrays or `jax.ShapeDtypeStruct`, which exist at the same time.

    Raises:
      TooLarge: with the required memory, the available memory, and the largest array.

    >>> check_fits("parameters", {"kernel": jax.ShapeDtypeStruct((10**9, 10**6), "float32")})
    Traceback (most recent call last):
    ...
    jaxmeta.training.memory.TooLarge: parameters take at least 3.55 PiB...
    """
    arrays = [
        _array(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for tree in trees
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    _check(what, sum(array.bytes for array in arrays), arrays)


def check_program_fits(what: str, function: Callable[..., Any], *arguments: PyTree) -> PyTree:
    """Traces a function, and raises `TooLarge` if a single array in it exceeds the memory.

    Returns:
      the shapes of the function's results.

    Raises:
      TooLarge: as `check_fits`.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found = [
        _array(f"a result of {equation.primitive.name}", variable.aval)
        for equation in equations(program.jaxpr)
        for variable in equation.outvars
    ]
    _check(what, max((array.bytes for array in found), default=0), found)
    return shapes


def _array(name: str, leaf: Any) -> _Array:
    shape = tuple(getattr(leaf, "shape", ()))
    size = getattr(getattr(leaf, "dtype", None), "itemsize", 8)
    return _Array(math.prod(shape) * size, name, shape)


def _check(what: str, needed: int, arrays: list[_Array]) -> None:
    there = machine_memory()
    if needed > there:
        largest = max(arrays)
        raise TooLarge(
            f"{what} take at least {_words(needed)}, but only {_words(there)} of memory are "
            f"available; the largest array is {largest.name}, of the shape {largest.shape}.",
            largest.shape,
        )


def _words(count: float) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(int(math.log2(max(count, 1)) // 10), len(units) - 1)
    return f"{count / 1024**power:,.3g} {units[power]}"
