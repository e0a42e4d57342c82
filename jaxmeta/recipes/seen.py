"""The classes that a run has seen, kept beside its configuration: none of them is ever tested."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.data.identity import Seen, listed_names, names_seen, seen_from_json, seen_to_json
from jaxmeta.recipes.tasks import Tasks

CLASSES = "classes.json"


def write_seen(folder: Path, tasks: Tasks, *, anew: bool) -> None:
    """Keep what the classes of training and validation are known by.

    A run that goes on has the classes it began with.
    """
    path = folder / CLASSES
    if tasks.classes is None:
        path.unlink(missing_ok=True)
    elif anew or not path.exists():
        files.write_json(path, seen_to_json(seen_of(tasks)))


def seen_of(tasks: Tasks) -> Seen:
    """What a run on these tasks is trained and validated on."""
    assert tasks.classes is not None
    data = str(tasks.data.get("images_sha256", ""))
    return Seen(data, (tasks.classes("train"), tasks.classes("validation")))


def read_seen(folder: Path, data: Mapping[str, Any]) -> Seen | None:
    """What a run on this data has been trained and validated on; None of a run without, as of old
    ones.

    Raises:
      ValueError: the file can't be read, or is of another run.
    """
    path = folder / CLASSES
    if not path.exists():
        return None
    try:
        seen = seen_from_json(files.read_json(path))
        if seen.data != data.get("images_sha256", ""):
            raise ValueError("it is of a run on other data")
        return seen
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} can't be read ({error}); its run can't be evaluated.") from error


def is_same(data: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Whether the data of tasks is what a run was trained on, as its `config.json` has it.

    There are the entries of its recipe, too, which no tasks have.
    """
    now = files.plain(dict(data))
    return all(now[name] == value for name, value in trained.items() if name in now)


def refuse_seen(tasks: Tasks, seen: Seen) -> None:
    """Raises ValueError where a test of other data than the run's may have a class it has seen."""
    if tasks.classes is None:
        raise ValueError(
            "this is other data than the run was trained on, and it does not say which classes "
            "or pools it holds; give the same."
        )
    if found := names_seen(tasks.classes("test"), seen.classes):
        raise ValueError(
            f"the run was trained or validated on {len(found)} of these test classes, "
            f"{listed_names(found)}; give data without them."
        )
