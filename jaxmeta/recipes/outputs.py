"""Files of results: each says what it was made from, and none takes the place of another's."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.recipes.folders import CONFIG

MADE_FROM = "made_from"
_LONGEST = 120  # of a file's name, which file systems cut off or refuse at 255


def digest_of(*parts: Any) -> str:
    """16 hexadecimal digits of all that a result is made from, fit for JSON."""
    return files.sha256(files.plain(parts))[:16]


def result_path(
    folder: Path, stem: str, changes: Mapping[str, Any], made_from: str, beside: str = ""
) -> Path:
    """Such as `evaluation-ways-20-shots-5.json`, named after what was changed.

    With the digest behind it where another result has that name, or the name says too little.
    """
    parts = [stem]
    for name, value in changes.items():
        words = value if isinstance(value, tuple) else (value,)
        parts += [name.replace("_", "-"), *(Path(str(word)).name for word in words)]
    name = "-".join(parts)
    plain = re.sub(r"[^\w.+-]", "_", name)[:_LONGEST]
    path = folder / f"{plain}.json"
    if plain == name and _is_free(path, of(made_from), beside):
        return path
    return folder / f"{plain}-{made_from}.json"


def of(made_from: str) -> Callable[[Any], bool]:
    """Whether a result is the one that was made from this."""
    return lambda found: isinstance(found, dict) and found.get(MADE_FROM) == made_from


def _is_free(path: Path, own: Callable[[Any], bool], beside: str) -> bool:
    """Whether nothing is there, or what is `own`."""
    if not path.exists():
        return not (beside and path.with_suffix(beside).exists())
    try:
        return own(files.read_json(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def result_file(path: Path, own: Callable[[Any], bool], beside: str = "") -> Iterator[None]:
    """Before the work: the file can be written, and holds no other result than `own`.

    In a run folder, with its lock until the end.

    Args:
      path: takes the result, as JSON.
      own: whether what a file holds is this very result, made before.
      beside: the suffix of a second file that is written beside it, where there is one.

    Raises:
      ValueError: it holds something else, or has the suffix of the second file.
      BlockingIOError: another process writes to that run folder.
      OSError: it can't be written.
    """
    files.check_writable(path)
    if beside and path.suffix == beside:
        raise ValueError(f"{path} is to hold JSON; what stands beside it has the suffix {beside}.")
    in_run = (path.parent / CONFIG).is_file()
    with files.locked(path.parent) if in_run else contextlib.nullcontext():
        if not _is_free(path, own, beside):
            taken = path if path.exists() else path.with_suffix(beside)
            raise ValueError(f"{taken} holds another result; name another file, or move that one.")
        yield
