"""Run folders: they store a run's settings, and can't be used by a different run.

A run's identity is a digest of its settings and its data, stored in every file that it writes.
The location of the data is not part of it, so that folders may move.
"""

import contextlib
import os
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta import files
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.experiment import Experiment, from_json, to_json
from jaxmeta.training.loop import CHECKPOINTS

CONFIG, RESULTS, FINISHED = "config.json", "results.json", "finished"
PER_TASK, METRICS, IDENTITY = "per_task.npz", "metrics.jsonl", "identity"
# Everything that a run, and the commands that read it, write next to its configuration.
# --overwrite removes these, and all result files with an identity.
_FOLDERS = (CHECKPOINTS, FINISHED, "tensorboard")
_FILES = (RESULTS, METRICS, "classes.json", "*.npz", "baselines*.json", "evaluation*.json", "*.png")
_DIGEST = "data_sha256"  # in config.json: a digest of its data, which is not edited by hand


class Stored(NamedTuple):
    """The content of `config.json`.

    Attributes:
      experiment: the settings of the run.
      data: identifies its data, see `Tasks.data`.
    """

    experiment: Experiment
    data: dict[str, Any]


def read_config(folder: Path) -> Stored:
    """The settings stored in a run folder.

    Raises:
      FileNotFoundError: the folder has no `config.json`.
      ValueError: `config.json` can't be read.
    """
    return _read(folder)[0]


def read_identity(folder: Path) -> str:
    """The identity of the run in a folder: 16 hexadecimal digits of a digest.

    Raises:
      FileNotFoundError, ValueError: as `read_config`.
    """
    return _identity(_read(folder)[1])


def _read(folder: Path) -> tuple[Stored, dict[str, Any]]:
    """The settings stored in a run folder, and the whole content of its `config.json`."""
    path = folder / CONFIG
    if not path.is_file():
        refuse_seeds(folder, CONFIG)
        raise FileNotFoundError(f"{folder} is not a run folder: it has no {CONFIG}.")
    try:
        fields = files.parse_json(path.read_bytes())
        own = dict(fields) if isinstance(fields, dict) else {}
        data, digest = own.pop("data", {}), own.pop(_DIGEST, None)
        if not isinstance(data, dict):
            raise ValueError("it does not hold the settings of an experiment")
        experiment = from_json(own)
        if digest is not None and digest != files.sha256(data):
            raise ValueError("its data was changed after it was written")
        return Stored(experiment, data), fields
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read: {str(error).removesuffix('.')}.") from error


def _identity(fields: dict[str, Any]) -> str:
    """The identity from `config.json` as written, so that new settings do not change old runs'."""
    names = _places(fields)

    def kept(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        return {name: kept(own) for name, own in entry.items() if name not in names}

    own = {name: kept(entry) for name, entry in fields.items() if name not in ("data", _DIGEST)}
    return files.sha256([own, fields.get("data", {})])[:16]


def _places(fields: dict[str, Any]) -> set[str]:
    """The names of the settings that are locations of files."""
    kinds = (
        registry.find_domain(fields["experiment"]),
        registry.find_learner(fields["learner"]["name"]),
    )
    return set.union(*map(settings.places, kinds))


def refuse_seeds(folder: Path, name: str) -> None:
    """Raise FileNotFoundError if the file is in the folders of single seeds instead."""
    if seeds := sorted(folder.glob(f"seed_*/{name}")):
        raise FileNotFoundError(f"{folder} holds one run per seed; give {seeds[0].parent}.")


@contextlib.contextmanager
def locked_run_folder(
    folder: Path, *, resume: bool, overwrite: bool, say: Callable[[str], object]
) -> Iterator[None]:
    """Make the folder of a run, and hold its lock.

    A folder that is made here and stays empty is removed again.

    Raises:
      ValueError: the folder holds files that are not a run's; both `resume` and `overwrite`.
      BlockingIOError: another process is writing to it.
      OSError: it can't be written.
    """
    if resume and overwrite:
        raise ValueError("--resume continues a run, --overwrite deletes it; give one of them.")
    with created_folder(folder):
        _refuse_others(folder)
        with files.locked(folder, say=say):
            yield


@contextlib.contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; those still empty at the end are removed again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out {folder} is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def locked_seeds_folder(
    folder: Path,
    seeds: tuple[int, ...],
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], object],
) -> Iterator[None]:
    """As `locked_run_folder`, for a folder that holds one run per seed and their mean.

    Raises:
      ValueError: the folder holds a single run, or the mean over other seeds.
    """
    with created_folder(folder), files.locked(folder, say=say):
        if (folder / CONFIG).exists():
            raise ValueError(f"{folder} holds a single run; give another --out with --seeds.")
        before = _seeds_of(folder / RESULTS)
        if before and not overwrite and not (resume and before <= {*seeds}):
            kept = ", ".join(map(str, sorted(before)))
            raise ValueError(
                f"{folder / RESULTS} holds the results of the seeds {kept}; give --resume with "
                "--seeds that include these, --overwrite, or another --out."
            )
        yield
        if overwrite:  # the runs of other seeds, once those of the given ones are complete
            for path in folder.glob(f"seed_*/{CONFIG}"):
                if path.parent.name not in {f"seed_{seed}" for seed in seeds}:
                    with files.locked(path.parent, say=say):
                        clear(path.parent)
                        files.remove(path)
                    with contextlib.suppress(OSError):  # it holds files of others
                        path.parent.rmdir()


def _seeds_of(path: Path) -> set[int]:
    """The seeds whose mean a file holds; empty if the file does not exist."""
    if not path.exists():
        return set()
    found = files.read_json(path)
    seeds = found.get("seeds") if isinstance(found, dict) else None
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise ValueError(f"{path} does not hold a mean over seeds; give another --out.")
    return {*seeds}


def _refuse_others(folder: Path) -> None:
    path = folder / CONFIG
    others = {*os.listdir(folder)} - {files.LOCK, f".{CONFIG}.tmp"}  # left by a killed run
    if path.exists():
        try:  # a damaged file may be overwritten, another program's may not
            others = not {"experiment", "learner"} & {*files.read_json(path)}
        except (ValueError, TypeError):
            others = False
    if others:
        raise ValueError(f"{folder} is not empty and is not a run folder; give another --out.")


def prepare_folder(
    folder: Path, experiment: Experiment, data: dict[str, Any], *, resume: bool, overwrite: bool
) -> None:
    """Write the settings of a run into its folder.

    Raises:
      ValueError: the folder holds a run and neither `resume` nor `overwrite` is given, or it
        holds a run with other settings or data.
      OSError: it can't be written.
    """
    path = folder / CONFIG
    fields = files.plain({**to_json(experiment), "data": data})
    _refuse_others(folder)
    if path.exists() and not overwrite:
        found, there = _read(folder)
        if different := _differences(found, there, fields):
            more = len(different) - _SHOWN
            shown = "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            go_on = f"its original options (see {path}), " if resume else ""
            raise ValueError(
                f"{folder} holds a run with another configuration ({shown}); give {go_on}"
                "another --out, or --overwrite to replace it."
            )
        if not resume:
            raise ValueError(
                f"{folder} holds a run; give --resume to continue it or --overwrite to replace it."
            )
        # As it was written, so that its identity does not change; the data may have moved.
        fields = _moved(there, fields, _places(fields))
    else:
        fields[_DIGEST] = files.sha256(fields["data"])
    if overwrite:
        clear(folder)
        if _seeds_of(folder.parent / RESULTS):  # the mean over seeds, of which this was one
            files.remove(folder.parent / RESULTS)
    for name in (RESULTS, METRICS, PER_TASK):
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name} is a folder, but must be a file; move it.")
    files.write_json(path, fields)


def clear(folder: Path) -> None:
    """Remove everything that a run writes, except its configuration."""
    written = [folder / name for name in _FOLDERS]
    written += [path for pattern in _FILES for path in folder.glob(pattern)]
    written += [path for path in folder.glob("*.json") if path.name != CONFIG and _is_result(path)]
    for path in written:
        files.remove(path)


def results_in(folder: Path) -> dict[str, Any]:
    """The results of the run in a folder; empty if there are none that can be read."""
    try:
        found = files.read_json(folder / RESULTS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_result(path: Path) -> bool:
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and IDENTITY in found


def _moved(there: Any, here: Any, names: set[str]) -> Any:
    """The entries of `there`, with those in `names` taken from `here`."""
    if not isinstance(there, dict) or not isinstance(here, dict):
        return there
    return {
        name: here[name] if name in names and name in here else _moved(entry, here.get(name), names)
        for name, entry in there.items()
    }


def run_folder(name: str, resume: bool) -> Path:
    """`runs/NAME`, with a number if that exists; to resume, the one with the highest number.

    Raises:
      ValueError: no such folder to resume.
    """
    folders = [Path("runs") / name]
    while folders[-1].exists():
        folders.append(Path("runs") / f"{name}-{len(folders) + 1}")
    *used, free = folders
    if resume and not used:
        raise ValueError(f"--resume: {free} does not exist; give the run folder with --out.")
    return used[-1] if resume else free


_SHOWN = 4  # differences that a message lists


def _differences(found: Stored, there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The settings that differ, as `steps: 100 there, 200 here`; experiment and learner first."""
    stored = {**to_json(found.experiment.resolved()), "data": found.data}
    before, now = _flat(files.plain(stored)), _flat(here)
    first = {"experiment": 0, "learner.name": 1}
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    if _DIGEST not in there:  # written by an earlier version, which did not store all of the data
        names = [name for name in names if name in before or not name.startswith("data.")]
    if {name.rpartition(".")[2] for name in names} <= _places(here):
        return []  # the same data in another place
    return [
        f"{name.rpartition('.')[2] if name not in first else name.split('.')[0]}: "
        f"{_brief(before.get(name))} there, {_brief(now.get(name))} here"
        for name in sorted(names, key=lambda name: (first.get(name, 2), name))
    ]


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else reprlib.repr(value)


def _flat(fields: dict[str, Any], within: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        path = f"{within}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
