"""Result files: each stores what it was made from, and none overwrites a different result."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.files import shown
from jaxmeta.recipes.folders import CONFIG

MADE_FROM = "made_from"
_LONGEST = 120  # characters of a file's name; file systems truncate or refuse 255


def digest_of(*parts: Any) -> str:
    """A digest (16 hexadecimal digits) of everything that a result is made from."""
    return files.sha256(files.plain(parts))[:16]


def result_path(
    folder: Path, stem: str, changes: Mapping[str, Any], made_from: str, beside: str = ""
) -> Path:
    """A path such as `evaluation-ways-20-shots-5.json`, named after the changed settings.

    The digest is appended if another result has that name, or if the name had to be shortened.
    """
    parts = [stem]
    for name, value in changes.items():
        words = value if isinstance(value, tuple) else (value,)
        parts += [name.replace("_", "-"), *(Path(str(word)).name for word in words)]
    name = "-".join(parts)
    plain = re.sub(r"[^\w.+-]", "_", name)[:_LONGEST]
    path = folder / f"{plain}.json"
    if plain == name and _is_free(path, is_made_from(made_from), beside):
        return path
    return folder / f"{plain}-{made_from}.json"


def is_made_from(made_from: str) -> Callable[[Any], bool]:
    """A predicate: was a result made from this digest?"""
    return lambda found: isinstance(found, dict) and found.get(MADE_FROM) == made_from


def _is_free(path: Path, own: Callable[[Any], bool], beside: str) -> bool:
    """Whether the path is free, or holds a result that satisfies `own`."""
    if not path.exists():
        return not (beside and path.with_suffix(beside).exists())
    try:
        return own(files.read_json(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def result_file(path: Path, own: Callable[[Any], bool], beside: str = "") -> Iterator[None]:
    """Check before the work that the result can be written without overwriting another one.

    In a run folder, the folder's lock is held until the end.

    Args:
      path: the JSON file for the result.
      own: whether the content of a file is an earlier version of this result.
      beside: the suffix of a second file written next to it, if any.

    Raises:
      ValueError: the file holds something else, or is not named `.json`, so that files written
        beside it could replace it.
      BlockingIOError: another process is writing to the run folder.
      OSError: it can't be written.
    """
    files.check_writable(path)
    in_run = (path.parent / CONFIG).is_file()
    with files.locked(path.parent) if in_run else contextlib.nullcontext():
        if not _is_free(path, own, beside):
            taken = path if path.exists() else path.with_suffix(beside)
            raise ValueError(f"{taken} holds another result; give another file, or move this one.")
        if path.suffix != ".json":
            raise ValueError(f"{path}: name a JSON file, such as {path.with_suffix('.json').name}.")
        yield


def check_free(path: Path, inputs: Iterable[Path] = (), *, overwrite: bool) -> None:
    """Check that no other result and no input is overwritten.

    Raises:
      ValueError, FileExistsError: one would be.
    """
    if path.exists() and any(path.samefile(own) for own in inputs if own.exists()):
        raise ValueError(f"{shown(path)} is an input and would be overwritten; give another --out.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{shown(path)} exists; give another --out, or --overwrite to replace it."
        )
