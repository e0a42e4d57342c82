"""The classes that a run has seen, stored with its configuration and never used for testing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.data.identity import Seen, listed_names, names_seen, seen_from_json, seen_to_json
from jaxmeta.recipes.tasks import Tasks

CLASSES = "classes.json"


def write_seen(folder: Path, tasks: Tasks, *, anew: bool) -> None:
    """Write what identifies the classes of training and validation.

    A resumed run keeps the classes that it started with.
    """
    path = folder / CLASSES
    if tasks.classes is None:
        path.unlink(missing_ok=True)
    elif anew or not path.exists():
        files.write_json(path, seen_to_json(seen_of(tasks)))


def seen_of(tasks: Tasks) -> Seen:
    """The classes that a run on these tasks is trained and validated on."""
    assert tasks.classes is not None
    return Seen(_digest(tasks.data), (tasks.classes("train"), tasks.classes("validation")))


def read_seen(folder: Path, data: Mapping[str, Any]) -> Seen | None:
    """The classes that the run was trained and validated on; None if an older run has no file.

    Raises:
      ValueError: the file can't be read, or belongs to another run.
    """
    path = folder / CLASSES
    if not path.exists():
        return None
    try:
        seen = seen_from_json(files.read_json(path))
        if seen.data and seen.data != _digest(data):  # older runs have that of images only
            raise ValueError("it belongs to a run on other data")
        return seen
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} can't be read ({error}); the run can't be evaluated.") from error


def _digest(data: Mapping[str, Any]) -> str:
    """The digest of the images, sentences or pools; empty if there are none."""
    return next((str(own) for name, own in data.items() if name.endswith("_sha256")), "")


def is_same(data: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Whether the data of tasks is the data a run was trained on, according to its `config.json`.

    `trained` also has entries of the recipe, which are not compared.
    """
    now = files.plain(dict(data))
    return all(now[name] == value for name, value in trained.items() if name in now)


def refuse_seen(tasks: Tasks, seen: Seen) -> None:
    """Raise ValueError if a test on other data may contain a class that the run has seen."""
    if tasks.classes is None:
        raise ValueError(
            "this is not the data that the run was trained on, and its classes or pools are "
            "unknown; evaluate on the same data."
        )
    if found := names_seen(tasks.classes("test"), seen.classes):
        raise ValueError(
            f"the run was trained or validated on {len(found)} of these test classes "
            f"({listed_names(found)}); give data without them."
        )
