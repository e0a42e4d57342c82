"""Trained learners that ship with the package, by name."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.files import shown
from jaxmeta.recipes.folders import CONFIG
from jaxmeta.recipes.restoring import TrainedRun, restore

SHIPPED = Path(__file__).parents[1] / "weights"  # one packed learner per folder, see `packing.py`
NAME = re.compile("[a-z][a-z0-9-]*")


def pretrained(name: str, *, recipes: Iterable[str] = (), **changes: Any) -> TrainedRun:
    """Load a trained learner that ships with the package.

        learner, meta_params, *_ = pretrained("prototypical-omniglot")
        adapted = learner.adapt(key, meta_params, support)
        outputs = learner.predict(adapted, images)

    Its folder `jaxmeta/weights/NAME` has its settings, its results with their protocol, and the
    command that trained it. `jaxmeta package` packs a run of your own.

    Args:
      name: the name of its folder.
      recipes, changes: as for `restore`.

    Raises:
      ValueError: an unknown name, with all names and the nearest; otherwise as `restore`.
    """
    known = shipped()
    if name not in known:
        raise ValueError(
            f"unknown trained learner {shown(name)!r}; {_choices(name, known)}. For a learned "
            "optimizer, such as celo, call jaxmeta.learners.optimizers.pretrained."
        )
    return restore(known[name], recipes=recipes, **changes)


def shipped() -> dict[str, Path]:
    """The folders of the shipped learners, by name."""
    if not SHIPPED.is_dir():
        return {}
    # A folder may have its old name, if the process that was replacing it was killed.
    names = {re.sub(r"^\.(.*)\.old$", r"\1", path.name) for path in SHIPPED.iterdir()}
    folders = {name: files.standing(SHIPPED / name) for name in sorted(names)}
    return {
        name: folder
        for name, folder in folders.items()
        if NAME.fullmatch(name) and (folder / CONFIG).is_file()
    }


def find_run(run: Path) -> Path:
    """The run folder at a path or, if nothing is there, of the shipped learner of that name.

    Raises:
      FileNotFoundError: neither exists; with all names and the nearest.
    """
    if run.exists() or len(run.parts) != 1:
        return run
    known = shipped()
    if run.name not in known:
        raise FileNotFoundError(
            f"{shown(run)} is not a run folder, nor the name of a trained learner; "
            f"{_choices(run.name, known)}."
        )
    return known[run.name]


def _choices(name: str, known: Iterable[str]) -> str:
    if not known:
        return "this version of jaxmeta ships none"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{hint}the names are {', '.join(known)}"
