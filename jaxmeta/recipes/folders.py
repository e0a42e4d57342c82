"""Run folders: what a run is made from is written there, and another run is refused."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta import files
from jaxmeta.recipes.base import Experiment, from_json, to_json
from jaxmeta.training.loop import CHECKPOINTS

CONFIG, RESULTS, FINISHED = "config.json", "results.json", "finished"
PER_TASK = "per_task.npz"
# All that a run writes beside its configuration; --overwrite removes it.
_FOLDERS = (CHECKPOINTS, FINISHED, "tensorboard")
_FILES = (RESULTS, "metrics.jsonl", "*.npz", "baselines.json", "evaluation*.json", "*.png")


class Stored(NamedTuple):
    """What `config.json` holds.

    Attributes:
      experiment: the settings of the run.
      data: what identifies its data, see `Tasks.data`.
    """

    experiment: Experiment
    data: dict[str, Any]


def read_config(folder: Path) -> Stored:
    """The settings of a run folder.

    Raises:
      FileNotFoundError: there is no `config.json`.
      ValueError: it can't be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        refuse_seeds(folder, CONFIG)
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}.")
    try:
        fields = json.loads(path.read_bytes())
        data = fields.pop("data", {}) if isinstance(fields, dict) else None
        if not isinstance(data, dict):
            raise ValueError("it does not hold the settings of an experiment")
        return Stored(from_json(fields), data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read: {str(error).removesuffix('.')}.") from error


def refuse_seeds(folder: Path, name: str) -> None:
    """Raises FileNotFoundError where not the folder but one for each seed holds a run's file."""
    if seeds := sorted(folder.glob(f"seed_*/{name}")):
        raise FileNotFoundError(f"{folder} holds a run of each seed; give {seeds[0].parent}.")


def prepare_folder(
    folder: Path, experiment: Experiment, data: dict[str, Any], *, resume: bool, overwrite: bool
) -> None:
    """Make the run folder, or refuse one that holds another run.

    Raises:
      ValueError: the folder holds a run and neither `resume` nor `overwrite` says what to do,
        or a run with other settings or data.
      OSError: it cannot be written.
    """
    path = folder / CONFIG
    fields = files.plain({**to_json(experiment), "data": data})
    if resume and overwrite:
        raise ValueError("--resume continues a run, --overwrite deletes it; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out {folder} is a file; name a folder.")
    if path.exists() and not overwrite:
        found = read_config(folder)
        there = files.plain({**to_json(found.experiment.resolved()), "data": found.data})
        if different := _differences(there, fields):
            more = len(different) - _SHOWN
            shown = "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            go_on = f"the options it began with, which {path} has, " if resume else ""
            raise ValueError(
                f"{folder} holds a run with another configuration ({shown}); give {go_on}"
                "another --out, or --overwrite to start it anew."
            )
        if not resume:
            raise ValueError(
                f"{folder} holds a run; give --resume to continue it or --overwrite to start again."
            )
    elif folder.exists() and any(folder.iterdir()) and not path.exists():
        raise ValueError(f"{folder} is not empty and holds no run; give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in _FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        for pattern in _FILES:
            for written in folder.glob(pattern):
                written.unlink()
    files.write_json(path, fields)


def run_folder(name: str, resume: bool) -> Path:
    """`runs/NAME`, numbered where that is taken; to resume, the last of these.

    Raises:
      ValueError: there is none to resume.
    """
    folders = [Path("runs") / name]
    while folders[-1].exists():
        folders.append(Path("runs") / f"{name}-{len(folders) + 1}")
    *taken, free = folders
    if resume and not taken:
        raise ValueError(f"--resume: there is no {free}; give --out, the folder of the run.")
    return taken[-1] if resume else free


_SHOWN = 4  # differences that a message names


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Which settings differ, as `steps: 100 there, 200 here`; experiment and learner first."""
    there, here = _flat(found), _flat(wanted)
    first = {"experiment": 0, "learner.name": 1}
    return [
        f"{name.rpartition('.')[2] if name not in first else name.split('.')[0]}: "
        f"{there.get(name)} there, {here.get(name)} here"
        for name in sorted(there.keys() | here.keys(), key=lambda name: (first.get(name, 2), name))
        if there.get(name) != here.get(name)
    ]


def _flat(fields: dict[str, Any], within: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        path = f"{within}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
