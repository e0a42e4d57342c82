"""Files that are wholly there or not at all, even after a kill or a power cut."""

import contextlib
import io
import json
import math
import os
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


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
        if error.filename is None:
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
