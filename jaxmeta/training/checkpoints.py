"""Checkpoints: arrays written by Orbax, verified by checksums.

Orbax doesn't detect corrupted bytes, so files are verified before it reads them. A checkpoint is a
folder

    step_00001234/arrays/        the leaves, by Orbax, as one flat dictionary of their names
    step_00001234/manifest.json  step, metadata; name, dtype, shape and SHA-256 of every leaf
    step_00001234/SHA256SUMS     of the files above (`sha256sum -c SHA256SUMS` verifies it too)

It is written under a hidden name, synced, and then renamed, so that a folder of this name is
complete even if the process was killed. A folder is never overwritten: a second checkpoint of the
same step is written as `step_00001234_1` before the first is removed.

Several processes save and restore together, in a folder that all of them can access. A checkpoint
can be restored with any number of processes and devices.
"""

import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxmeta import files
from jaxmeta.core import PyTree
from jaxmeta.extras import extra
from jaxmeta.training import parallel
from jaxmeta.training.leaves import as_leaf, bits_of, named, no_bits, sha256_of, type_of

_KEPT = {"step": 2, "best": 1}
_SUMS = "SHA256SUMS"


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
      step: the number of meta-updates when the checkpoint was saved.
      tree: the saved PyTree, bit-identical, on the default device.
      metadata: the saved metadata.
    """

    step: int
    tree: PyTree
    metadata: dict[str, Any]


def save(directory: str | Path, step: int, tree: PyTree, *, metadata: dict[str, Any]) -> None:
    """Writes `directory/step_<step>` atomically, and keeps the last two steps.

    Checkpoints of later steps are removed, as they may exist when a run was resumed from an earlier
    step.

    Args:
      directory: folder of the checkpoints, made if missing.
      step: number of meta-updates so far.
      tree: PyTree of arrays, typed PRNG keys and Python numbers.
      metadata: further values, serialisable as JSON (NaN becomes None). Its entry `identity`, such
        as a digest of the run's settings, identifies the run: see `restore`.

    Raises:
      OSError: the folder cannot be written, or the disk is full.

    >>> import jax.numpy as jnp, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> save(folder, 100, {"weight": jnp.ones(3)}, metadata={"best": 0.9})
    >>> restored = restore(folder, {"weight": jnp.zeros(3)})
    >>> restored.step, restored.tree["weight"].tolist(), restored.metadata
    (100, [1.0, 1.0, 1.0], {'best': 0.9})
    """
    _write(Path(directory), "step", step, tree, metadata)


def save_best(directory: str | Path, step: int, tree: PyTree, *, metadata: dict[str, Any]) -> None:
    """Writes `directory/best_<step>` atomically, then removes the previous best checkpoint.

    Arguments and errors are as for `save`; `restore(..., step="best")` reads it.
    """
    _write(Path(directory), "best", step, tree, metadata)


def newest_step(directory: str | Path, kind: Literal["step", "best"] = "step") -> int | None:
    """The step of the newest complete checkpoint, damaged or not; None if there are none."""
    return max((folder.step for folder in _folders(Path(directory), kind)), default=None)


def restore(
    directory: str | Path,
    like: PyTree,
    *,
    step: int | Literal["best"] | None = None,
    identity: str | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> Restored | None:
    """Restores the newest checkpoint that passes verification; None if there are no checkpoints.

    Args:
      directory: folder of the checkpoints.
      like: a PyTree of the same structure, of arrays, or of `jax.ShapeDtypeStruct` as returned
        by `jax.eval_shape`. Leaves that are NumPy arrays or Python numbers are restored as
        such, all others as JAX arrays.
      step: None for the newest checkpoint, a number for that step, "best" for the best one.
      identity: identifies the run; a checkpoint whose metadata has another identity is rejected.
      warn: called with one line for each damaged checkpoint that is skipped.

    Raises:
      ValueError: the checkpoint is of another learner, model or optimizer (the message names the
        first array that differs) or of another run, or all checkpoints are damaged.
      OSError: the folder cannot be read.
    """
    kind = "best" if step == "best" else "step"
    folders = [
        folder
        for folder in _folders(Path(directory), kind)
        if not isinstance(step, int) or folder.step == step
    ]
    damages = []
    for folder in folders:
        try:
            restored = _read(folder, like, identity)
        except _Damaged as damage:
            damages.append(f"The checkpoint {folder.path} is damaged ({damage})")
            continue
        for damage in damages:
            warn(f"{damage}; using {folder.path.name} instead.")
        return restored
    if damages:
        raise ValueError(
            f"{damages[0]}, and there is no other one: delete {directory} to train from the "
            "start, or copy the checkpoint back from a backup."
        )
    return None


def parameters_sha256(tree: PyTree) -> str:
    """One SHA-256, in hexadecimal, over the names, dtypes, shapes and bits of all leaves.

    >>> import jax.numpy as jnp
    >>> parameters_sha256({"a": jnp.zeros(2)}) == parameters_sha256({"a": jnp.zeros(2)})
    True
    >>> parameters_sha256({"a": jnp.zeros(2)}) == parameters_sha256({"b": jnp.zeros(2)})
    False
    """
    total = hashlib.sha256()
    for name, leaf in named(tree).items():
        total.update(f"{name} {sha256_of(leaf, bits_of(leaf))}\n".encode())
    return total.hexdigest()


# --- one checkpoint -----------------------------------------------------------------------


class _Damaged(Exception):
    """The files of a checkpoint changed after it was written; the message says how."""


class _Folder(NamedTuple):
    step: int
    version: int
    path: Path


def _folders(directory: Path, kind: str) -> list[_Folder]:
    """The complete checkpoints of a kind, newest first."""
    if not directory.exists():
        return []
    found = []
    for path in directory.iterdir():
        if match := re.fullmatch(rf"{kind}_(\d{{8,}})(?:_(\d+))?", path.name):
            found.append(_Folder(int(match[1]), int(match[2] or 0), path))
    return sorted(found, reverse=True)


def _write(directory: Path, kind: str, step: int, tree: PyTree, metadata: dict[str, Any]) -> None:
    name = f"{kind}_{step:08d}"
    versions = [folder.version for folder in _folders(directory, kind) if folder.step == step]
    if versions:
        name += f"_{versions[0] + 1}"
    temporary = directory / f".{name}.tmp"
    leaves = named(parallel.gather(tree))
    bits = {leaf_name: bits_of(leaf) for leaf_name, leaf in leaves.items()}

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob(f".{kind}_*.tmp"):  # of a killed process
            files.remove(leftover)
        temporary.mkdir()

    def complete() -> None:
        manifest = {
            "step": step,
            "metadata": metadata,
            "leaves": {
                leaf_name: {"type": type_of(leaf), "sha256": sha256_of(leaf, bits[leaf_name])}
                for leaf_name, leaf in leaves.items()
            },
        }
        files.write_json(temporary / "manifest.json", manifest)
        files.write_bytes(temporary / _SUMS, _sums(temporary))
        for path in [*temporary.rglob("*"), temporary]:
            files.sync(path)
        os.rename(temporary, directory / name)

    def retire() -> None:
        files.sync(directory)
        _retire(directory, kind, step)

    parallel.on_first_process(prepare)
    try:
        _write_arrays(temporary / "arrays", bits)  # Orbax, in all processes together
        parallel.on_first_process(complete)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    parallel.on_first_process(retire)


def _retire(directory: Path, kind: str, step: int) -> None:
    """Removes all but the newest checkpoints up to this step."""
    folders = _folders(directory, kind)
    newest: dict[int, _Folder] = {}
    for folder in folders:
        if folder.step <= step:
            newest.setdefault(folder.step, folder)
    kept = list(newest.values())[: _KEPT[kind]]
    for folder in folders:
        if folder not in kept:
            # Renamed first, since a partly removed folder would look like a damaged checkpoint.
            hidden = folder.path.with_name(f".{folder.path.name}.tmp")
            os.rename(folder.path, hidden)
            files.remove(hidden)


def _read(folder: _Folder, like: PyTree, identity: str | None) -> Restored:
    _verify(folder.path)
    step, metadata, found = _manifest(folder)
    examples = named(like)
    _compare(folder.path, {name: type_of(leaf) for name, leaf in examples.items()}, found)
    owner = metadata.get("identity", identity)  # earlier versions stored no identity
    if identity is not None and owner != identity:
        raise ValueError(
            f"The checkpoint {folder.path} is of another run: it was saved by {owner}, this run is "
            f"{identity} (digests of settings and data). Copy this run's own checkpoints back, or "
            "train it from the start."
        )
    stored = _read_arrays(folder.path / "arrays")
    bits = {
        name: stored[name] if name in stored else no_bits(example)
        for name, example in examples.items()
    }
    for name, example in examples.items():
        if sha256_of(example, bits[name]) != found[name]["sha256"]:
            raise _Damaged(f"the checksum of {name} is wrong")
    tree = jax.tree.unflatten(
        jax.tree.structure(like),
        [as_leaf(example, bits[name]) for name, example in examples.items()],
    )
    return Restored(step, tree, metadata)


def _manifest(folder: _Folder) -> tuple[int, dict[str, Any], dict[str, dict[str, str]]]:
    """The step, the metadata, and the type and checksum of every leaf."""
    try:
        manifest = files.read_json(folder.path / "manifest.json")
        step, metadata, found = (manifest[name] for name in ("step", "metadata", "leaves"))
        sound = step == folder.step and isinstance(metadata, dict)
        sound = sound and all({*own} == {"type", "sha256"} for own in found.values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Damaged(f"its manifest.json is invalid: {error}") from error
    if not sound:
        raise _Damaged("its manifest.json is invalid, or belongs to another checkpoint")
    return step, metadata, found


def _compare(folder: Path, expected: dict[str, str], found: dict[str, dict[str, str]]) -> None:
    """Raises `ValueError` with the first array that is not in both with the same type."""
    for name, expected_type in expected.items():
        if name not in found:
            difference = f"it has no {name}, expected as {expected_type}"
        elif found[name]["type"] != expected_type:
            difference = f"its {name} is {found[name]['type']}, expected {expected_type}"
        else:
            continue
        break
    else:
        extra = [name for name in found if name not in expected]
        if not extra:
            return
        difference = f"it has {extra[0]} ({found[extra[0]]['type']}), which is not expected"
    raise ValueError(
        f"The checkpoint {folder} is of another learner, model or optimizer: {difference}. Use "
        f"the configuration that it was trained with, or another run folder."
    )


# --- its files ----------------------------------------------------------------------------


def _sums(folder: Path) -> bytes:
    """The output of `sha256sum` for the files in a folder, without hidden ones."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("[!.]*")
        if path.is_file() and path.name != _SUMS
    }
    return b"".join(
        f"{hashlib.sha256(paths[name].read_bytes()).hexdigest()}  {name}\n".encode()
        for name in sorted(paths)
    )


def _verify(folder: Path) -> None:
    """Raises `_Damaged` unless the files match their checksums."""
    try:
        recorded, found = (folder / _SUMS).read_bytes(), _sums(folder)
    except PermissionError:
        raise
    except OSError as error:  # a file is missing, or can't be read from the disk
        raise _Damaged(str(error)) from error
    if recorded != found:
        lines = set(recorded.splitlines()) ^ set(found.splitlines())
        names = sorted({line[66:].decode(errors="replace") for line in lines})
        raise _Damaged(f"changed since it was written: {', '.join(names) or _SUMS}")


def _write_arrays(path: Path, bits: dict[str, np.ndarray]) -> None:
    # Orbax supports neither arrays without elements nor dictionaries without arrays.
    stored = {name: array for name, array in bits.items() if array.size}
    if stored:
        with extra("train"):
            from orbax.checkpoint import v1 as ocp

        with _quiet(path):
            ocp.save(str(path.absolute()), stored)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with extra("train"):
        from orbax.checkpoint import v1 as ocp

    with _quiet(path):
        return ocp.load(str(path.absolute()))


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Silences Orbax, which prints hundreds of lines on failure, and raises one OSError."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                yield
            except Exception:
                time.sleep(1)  # until its other writes have printed their tracebacks
                raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise OSError(f"Orbax could not write or read {path}: {reason}") from error
    finally:
        logging.disable(disabled)
