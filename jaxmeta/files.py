"""Files that are wholly there or not at all, and folders that one process at a time writes to."""

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
    """An `OSError` within that names no file, such as of a full disk, names this one.

    >>> with naming("results.json"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    OSError: [Errno 28] No space left on device: 'results.json'
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # else it says what it is about
            error.filename = str(path)
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace the file at `path` by `data` in one step: a reader sees the old or the new.

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
    """Replace the file at `path` by `value` as indented JSON, in one step (see `plain`).

    Raises:
      OSError: the folder is missing, full, or not writable.
      TypeError: `value` holds something that JSON cannot say.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results.json"
    >>> write_json(path, {"accuracy": 0.5, "loss": float("nan")})
    >>> json.loads(path.read_text())
    {'accuracy': 0.5, 'loss': None}
    """
    write_bytes(path, (json.dumps(plain(value), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """What a JSON file holds, without a guess: a name that stands twice is an error.

    Raises:
      OSError: the file is missing or can't be read.
      ValueError: the file's name, and that it is cut short or damaged.

    >>> path = Path(tempfile.mkdtemp()) / "results.json"
    >>> write_bytes(path, b'{"loss": 1, "loss": 2}')
    >>> read_json(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: .../results.json can't be read: 'loss' stands there twice.
    """
    data = Path(path).read_bytes()
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {str(error).removesuffix('.')}.") from error


def parse_json(data: bytes) -> Any:
    """As `read_json`, of bytes, which an error does not name."""
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
        raise ValueError(f"it is not JSON, or cut short ({error.msg}: {where})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return found


def _integer(digits: str) -> int | float:
    """A whole number; one that no computer counts to is infinite, as JSON's 1e999 is."""
    return int(digits) if len(digits) <= 400 else float(digits)


def plain(value: Any) -> Any:
    """`value` as JSON knows it: scalars of NumPy and JAX as Python's, NaN and ±inf as null.

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
    """The digest of a value fit for JSON (see `plain`), whatever the order of names.

    >>> sha256({"ways": 5, "shots": 1}) == sha256({"shots": 1, "ways": 5})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shown(name: object) -> str:
    """A name, such as a path, as one line of valid text, for messages and tables.

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
    """The arrays of an `.npz` file, or of its bytes; never objects.

    Args:
      source: where it lies, or what it holds.
      most: bytes of all arrays together, 4 GiB.

    Raises:
      Exception: of many kinds, where it is damaged or no such file.
      ValueError: it holds more than `most`; nothing is unpacked then.
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
    """Wait until the file or folder at `path` is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that it holds; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Refuse a file that could not be written, before the work whose result it is to hold.

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


# --- one writer at a time -----------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: str | Path, *, say: Callable[[str], object] = warnings.warn) -> Iterator[None]:
    """Hold the lock of a folder: one process at a time writes there.

    It is a lock of the operating system (`flock`) on the file `.lock`, which the kernel releases
    when the process ends, whatever ends it. Where the file system has no such locks, as some
    network file systems, `say` is told so and the work goes on without one.

    Raises:
      BlockingIOError: another process holds it, with its number.
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
        yield
    finally:
        # While it is held: a process that opened it meanwhile finds another file there, or none.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, say: Callable[[str], object]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                say(
                    f"{path.parent}: this file system has no locks; take care that no other "
                    "process writes there."
                )
            elif not _is(path, descriptor):  # removed by its holder between open and lock
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
            return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").split()
            os.close(descriptor)
            who = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
            raise BlockingIOError(
                f"{who} is writing to {path.parent}; wait until it has ended, or name another "
                "folder."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise


def _lock(descriptor: int) -> bool:
    """Whether there are locks here; the lock is taken, or BlockingIOError raised, if so."""
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
