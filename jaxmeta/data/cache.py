"""A cache of arrays that are slow to compute: decoded images, rendered letters."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from jaxmeta.data.reading import regular
from jaxmeta.files import read_arrays
from jaxmeta.places import cache_folder as cache_folder  # also part of this module
from jaxmeta.places import data_folder as data_folder
from jaxmeta.places import in_home as in_home

_DIGEST = "sha256"  # the entry of a cache file with the checksum of the others
_NAME = "cache name"  # the entry with the name, since a file may have been copied or renamed


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The sha256 of named arrays in hexadecimal, over names, dtypes, shapes and values.

    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(2)})
    True
    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros((2, 1))})
    False
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def fingerprint(files: Iterable[Path], *settings: object) -> str:
    """A digest of files (their paths, sizes and modification times) and settings: 16 hex digits.

    Raises:
      ValueError, OSError: a path is not a regular file, or is missing.

    >>> fingerprint([], 28) == fingerprint([], 28), fingerprint([], 28) == fingerprint([], 84)
    (True, False)
    """
    total = hashlib.sha256(repr(settings).encode())
    for file in files:
        status = regular(file)
        total.update(os.fsencode(f"{file.absolute()} {status.st_size} {status.st_mtime_ns}\n"))
    return total.hexdigest()[:16]


def cached_arrays(
    name: str, build: Callable[[], dict[str, np.ndarray]], *, folder: str | Path | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays of a cache file, or calls `build` and writes its arrays to that file.

    A file that doesn't match its checksum is rebuilt, with a warning. If the cache can't be
    written, the arrays are returned with a warning.

    Args:
      name: the file name without suffix; it must contain everything that the values depend on.
      build: returns the arrays, of numbers or text, not objects.
      folder: the folder of the file. Defaults to `cache_folder()`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = cached_arrays("squares", lambda: {"x": np.arange(3) ** 2}, folder=Path(folder))
    ...     again = cached_arrays("squares", lambda: {}, folder=Path(folder))
    >>> again["x"].tolist()
    [0, 1, 4]
    """
    try:
        path = Path(folder or cache_folder()) / f"{name}.npz"
    except OSError as error:
        warnings.warn(f"no cache is written: {error}", stacklevel=2)
        return build()
    if os.path.exists(path):  # also False without permission
        try:
            return _read(path)
        except Exception as error:  # a damaged zip raises exceptions of many types
            warnings.warn(f"the cache {path} is damaged ({error}) and is rebuilt", stacklevel=2)
    arrays = build()
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"can't write the cache {path} ({error}); set JAXMETA_CACHE_DIR to a folder that can "
            "be written",
            stacklevel=2,
        )
    return arrays


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, memory())
    expected = str(arrays.pop(_DIGEST))
    if digest(arrays) != expected:
        raise ValueError("its checksum differs")
    if str(arrays.pop(_NAME, path.stem)) != path.stem:
        raise ValueError("it was written under another name")
    return arrays


def memory() -> int:
    """The physical memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    arrays = {**arrays, _NAME: np.array(path.stem)}
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays, **{_DIGEST: np.array(digest(arrays))})  # pyright: ignore
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
