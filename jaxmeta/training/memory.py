"""Whether a program can fit the machine: an estimate from shapes, before anything is allocated."""

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
      shape: of its largest array.
    """

    def __init__(self, message: str, shape: tuple[int, ...]):
        super().__init__(message)
        self.shape = shape


class _Array(NamedTuple):
    bytes: int
    name: str
    shape: tuple[int, ...]


def machine_memory() -> int:
    """Bytes that arrays may take: of the accelerator, else of the machine or of its control group.

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
        except (OSError, ValueError):  # not this kind of system; "max", which is no limit
            continue
    return min(limits)


def check_fits(what: str, *trees: PyTree) -> None:
    """Refuse arrays that together are larger than the machine's memory.

    Args:
      what: they are, for the message.
      trees: of arrays or `jax.ShapeDtypeStruct`, which all exist at one time.

    Raises:
      TooLarge: with what they take, what there is, and the largest of them.

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
    """Trace a function and refuse it where a single array in it is larger than the memory.

    Returns:
      the shapes of its results.

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
            f"{what} take at least {_words(needed)}, and there are {_words(there)} of memory; the "
            f"largest array is {largest.name}, of the shape {largest.shape}.",
            largest.shape,
        )


def _words(count: float) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(int(math.log2(max(count, 1)) // 10), len(units) - 1)
    return f"{count / 1024**power:,.3g} {units[power]}"
