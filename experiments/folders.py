"""Run folders: what a run is made from is written there, and another run is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmeta import files
from jaxmeta.data import Dataset
from jaxmeta.training import config as configs
from jaxmeta.training.config import AnyExperiment
from jaxmeta.training.loop import CHECKPOINTS


def prepare_folder(
    folder: Path,
    config: AnyExperiment,
    dataset: Dataset | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Make the run folder, or refuse one that holds another run.

    Raises:
      ValueError: the folder holds a run and neither `resume` nor `overwrite` says what to do,
        or a run with another configuration.
      OSError: it cannot be written.
    """
    fields = {"config": configs.to_json(config), "image_shape": None}
    if dataset is not None:
        fields["image_shape"] = list(dataset.train.images.shape[1:])
        fields["images_sha256"] = dataset.protocol["images_sha256"]

    def known(found: dict[str, Any]) -> dict[str, Any]:
        # Through the dataclasses: options that came later have their defaults there.
        return {**found, "config": configs.to_json(configs.from_json(found["config"]))}

    _claim(folder, fields, known, resume=resume, overwrite=overwrite)


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


def prepare_settings(settings: Any, folder: Path, fields: dict[str, Any]) -> None:
    """As `prepare_folder` for a command whose options are one dataclass.

    `fields` is what the run depends on: `fields_of(settings)`, and what there is of the data. The
    options that `settings.of_test` names may change when it goes on.
    """

    def known(found: dict[str, Any]) -> dict[str, Any]:
        later = {
            field.name: field.default
            for field in dataclasses.fields(settings)
            if field.name in fields and field.default is not dataclasses.MISSING
        }
        of_test = {name: fields[name] for name in getattr(settings, "of_test", ())}
        return {**found, "config": {**later, **found["config"], **of_test}}

    _claim(
        folder,
        {"config": {"experiment": settings.experiment, **fields}},
        known,
        resume=settings.resume,
        overwrite=settings.overwrite,
    )


def fields_of(settings: Any) -> dict[str, Any]:
    """What a command's run depends on, for its folder: all options but where it goes and how."""
    options = dataclasses.asdict(settings)
    return {name: options[name] for name in options if name not in ("out", "resume", "overwrite")}


def _claim(
    folder: Path,
    fields: dict[str, Any],
    known: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Write a run's settings into its folder, or refuse as `prepare_folder` does.

    `known(found)` gives settings found there the options that this version has.
    """
    fields = files.plain(fields)
    path = folder / "config.json"
    if resume and overwrite:
        raise ValueError("--resume goes on with a run, --overwrite deletes it; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out {folder} is a file; name a folder.")
    if path.exists() and not overwrite:
        found = json.loads(path.read_text())
        found = found if "config" in found else {"config": found}  # of older optimizers
        here = fields["config"]["experiment"]
        there = found["config"].setdefault("experiment", here)
        different = [f"experiment: {there} there, {here} here"]
        if there == here:
            different = _differences(files.plain(known(found)), fields)
        if different:
            more = len(different) - _SHOWN
            shown = "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            go_on = f"the options it began with, which {path} has, " if resume else ""
            raise ValueError(
                f"{folder} holds a run with another configuration ({shown}); give {go_on}"
                "another --out, or --overwrite to start it anew."
            )
        if not resume:
            raise ValueError(f"{folder} holds a run; --resume goes on with it, --overwrite anew.")
    elif folder.exists() and any(folder.iterdir()) and not path.exists():
        raise ValueError(f"{folder} is not empty and holds no run; give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        for pattern in ("results.json", "baselines.json", "evaluation-*.json", "*.png"):
            for written in folder.glob(pattern):
                written.unlink()
    files.write_json(path, fields)


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Which options differ, as `steps: 100 there, 200 here`; first the learner, if it does."""
    flat_found, flat_wanted = _flat(found), _flat(wanted)
    names = sorted(flat_found.keys() | flat_wanted.keys(), key=lambda name: (name != "name", name))
    return [
        f"{'learner' if name == 'name' else name}: {flat_found.get(name)} there, "
        f"{flat_wanted.get(name)} here"
        for name in names
        if flat_found.get(name) != flat_wanted.get(name)
    ]


_SHOWN = 4  # differences that a message names


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
