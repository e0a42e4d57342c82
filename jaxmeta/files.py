"""Atomic writes of files, reading of JSON and arrays, and a lock for folders."""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import platform
import shutil
import tempfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LOCK = ".lock"


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add the name `path` to an `OSError` raised inside that names no file, such as a full disk.

    >>> with naming("results.json"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    OSError: [Errno 28] No space left on device: 'results.json'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # otherwise it already names a file
            error.filename = str(path)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file at `path` by `data` atomically: a reader sees the old or the new content.

    Raises:
      OSError: the folder is missing, full, or not writable.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_bytes(path, b"kept")
    >>> path.read_text()
    'kept'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: str | Path, value: Any) -> None:
    """Replace the file at `path` by `value` as indented JSON, atomically (see `plain`).

    Raises:
      OSError: the folder is missing, full, or not writable.
      TypeError: `value` holds something that JSON cannot represent.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results.json"
    >>> write_json(path, {"accuracy": 0.5, "loss": float("nan")})
    >>> json.loads(path.read_text())
    {'accuracy': 0.5, 'loss': None}
    """
    write_bytes(path, (json.dumps(plain(value), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; a duplicate name is an error.

    Raises:
      OSError: the file is missing or can't be read.
      ValueError: the file is truncated or damaged; the message names it.

    >>> path = Path(tempfile.mkdtemp()) / "results.json"
    >>> write_bytes(path, b'{"loss": 1, "loss": 2}')
    >>> read_json(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: .../results.json can't be read: 'loss' appears twice.
    """
    data = Path(path).read_bytes()
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {str(error).removesuffix('.')}.") from error


def parse_json(data: bytes) -> Any:
    """Like `read_json`, for bytes; errors do not name a file."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(data, object_pairs_hook=_once, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 from byte {error.start} on") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"it is not JSON, or truncated ({error.msg}: {where})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} appears twice")
    return found


def _integer(digits: str) -> int | float:
    """An integer; one of more than 400 digits becomes infinite, like JSON's 1e999."""
    return int(digits) if len(digits) <= 400 else float(digits)


def plain(value: Any) -> Any:
    """`value` in JSON's types: NumPy and JAX scalars as Python's, NaN and ±inf as null.

    >>> import numpy as np
    >>> plain({"steps": np.int32(3), "interval": (0.1, float("inf"))})
    {'steps': 3, 'interval': [0.1, None]}
    """
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if getattr(value, "shape", None) == ():
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sha256(value: Any) -> str:
    """The SHA-256 digest of a JSON value (see `plain`), independent of the order of names.

    >>> sha256({"ways": 5, "shots": 1}) == sha256({"shots": 1, "ways": 5})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shown(name: object) -> str:
    """A name, such as a path, as one line of valid text for messages and tables.

    Line breaks, control characters and bytes that are not UTF-8 are escaped.

    >>> print(shown("two\\nlines"), shown(os.fsdecode(b"caf\\xe9")), shown("[bold]"))
    two\\nlines caf\\xe9 [bold]
    """
    return "".join(map(_shown, str(name)))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def read_arrays(source: Path | bytes, most: int = 2**32) -> "dict[str, np.ndarray]":
    """The arrays of an `.npz` file, or of its bytes; pickled objects are not loaded.

    Args:
      source: the file's path or its content.
      most: upper bound on the size of all arrays, in bytes. Defaults to 4 GiB.

    Raises:
      Exception: of many types, if the file is damaged or not an `.npz` file.
      ValueError: the arrays are larger than `most`; they are not unpacked.
    """
    import numpy as np

    if isinstance(source, Path) and not source.is_file():
        raise ValueError("it is not a regular file")

    def opened() -> Any:
        return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")

    with opened() as file, zipfile.ZipFile(file) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > most:
        raise ValueError(f"it holds {total:,} bytes of arrays, {most:,} are the most")
    with opened() as file, np.load(file, allow_pickle=False) as entries:
        return dict(entries)


def sync(path: str | Path) -> None:
    """Wait until the file or folder at `path` is written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` unless an error is raised.

    If the process is killed at any moment, `standing(folder)` has the old or the new content.

    Raises:
      OSError: the folder above is missing, full, or not writable.

    >>> folder = Path(tempfile.mkdtemp()) / "results"
    >>> with replacing(folder) as new:
    ...     write_bytes(new / "note.txt", b"kept")
    >>> os.listdir(folder)
    ['note.txt']
    """
    new, old = (folder.with_name(f".{folder.name}.{part}") for part in ("new", "old"))
    remove(new)  # of a killed process, as is the old one
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    remove(old)
    new.mkdir()
    try:
        yield new
        for path in [*new.rglob("*"), new]:
            sync(path)
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        sync(folder.parent)
    finally:
        remove(new)
    remove(old)


def standing(folder: Path) -> Path:
    """Where the content of a folder is that `replacing` writes: there, or under its old name."""
    old = folder.with_name(f".{folder.name}.old")
    return old if old.exists() and not folder.exists() else folder


def check_writable(path: str | Path) -> None:
    """Raise an error if a file can't be written, before computing the result it is to hold.

    Raises:
      OSError: its folder is missing or can't be written, or the path is a folder.

    >>> check_writable("absent/results.json")
    Traceback (most recent call last):
    ...
    FileNotFoundError: absent/results.json: there is no folder absent; make it first.
    """
    path = Path(path)
    if not path.parent.exists():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first.")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"{path}: {path.parent} is a file; name a folder.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise type(error)(f"{path} can't be written: {error.strerror}.") from error


# --- one writer per folder ----------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: str | Path, *, say: Callable[[str], object] = warnings.warn) -> Iterator[int]:
    """Hold the lock of a folder, so that one process at a time writes to it.

    The lock is an `flock` on the file `.lock`, which the operating system releases when the process
    ends for any reason. If the file system does not support locks, as some network file systems,
    `say` is called with a warning and the folder is used without a lock.

    The context is the descriptor of that file. A process that inherits it holds the lock, too,
    until it ends.

    Raises:
      BlockingIOError: another process holds the lock; the message gives its number.
      OSError: the folder can't be written.

    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder):
    ...     os.listdir(folder)
    ['.lock']
    >>> os.listdir(folder)
    []
    """
    path = Path(folder) / LOCK
    descriptor = _take(path, say)
    try:
        yield descriptor
    finally:
        # Removed before it is released: a process that has opened it notices that the file is gone.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_holder(folder: str | Path) -> tuple[int, str] | None:
    """The number and the machine of the process that took the lock; None if it is not known.

    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder):
    ...     lock_holder(folder) == (os.getpid(), platform.node())
    True
    >>> lock_holder(folder)
    """
    try:
        words = (Path(folder) / LOCK).read_bytes()[:200].decode(errors="replace").split()
    except FileNotFoundError:
        return None
    return (int(words[0]), words[1]) if len(words) == 2 and words[0].isdecimal() else None


def _take(path: Path, say: Callable[[str], object]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                say(
                    f"{path.parent}: this file system has no locks; make sure that no other "
                    "process writes there."
                )
            elif not _is(path, descriptor):  # removed by its holder between open and lock
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
            return descriptor
        except BlockingIOError:
            os.close(descriptor)
            holder = lock_holder(path.parent)
            who = "process {} on {}".format(*holder) if holder else "another process"
            raise BlockingIOError(
                f"{who} is writing to {path.parent}; wait until it has finished, or choose "
                "another folder."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise


def _lock(descriptor: int) -> bool:
    """Take the lock and return True, or return False if the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
