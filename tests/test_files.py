"""A full disk names the file, whatever the library was writing."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxmeta import files
from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.download import download
from jaxmeta.plots.figures import write
from jaxmeta.recipes.results import PerTask, write_per_task
from jaxmeta.training import checkpoints
from jaxmeta.training.logs import open_log


def figure():
    from matplotlib.figure import Figure

    return Figure()


def fetch(folder):
    source = folder / "source"
    source.write_bytes(b"content")
    download(source.as_uri(), folder / "a", hashlib.sha256(b"content").hexdigest())


@pytest.fixture
def full(monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize(
    "put",
    [
        lambda folder: files.write_bytes(folder / "a", b"content"),
        lambda folder: files.write_json(folder / "a", {}),
        lambda folder: files.sync(folder),
        lambda folder: write(figure(), folder / "a"),
        lambda folder: write_per_task(folder / "a", {"test": PerTask("", {"loss": np.ones(2)})}),
        lambda folder: checkpoints.save(folder, 1, {"weight": np.ones(2)}, metadata={}),
        lambda folder: open_log(folder, resume_step=None),
        fetch,
    ],
)
def test_a_full_disk_names_the_file(put, full, tmp_path):
    full()
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}"):
        put(tmp_path)


def test_a_full_disk_names_the_log(full, tmp_path):
    log = open_log(tmp_path, resume_step=None)
    full()
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics.jsonl'"):
        log.write(1, {"loss": 0.5})
    log.close()


def test_a_full_disk_names_the_cache(full, tmp_path):
    full()
    with pytest.warns(UserWarning, match=rf"can't write the cache {tmp_path}.*No space left"):
        found = cached_arrays("a", lambda: {"x": np.ones(2)}, folder=tmp_path)
    assert found["x"].shape == (2,)


def test_a_full_disk_under_orbax_names_the_checkpoint(monkeypatch, tmp_path):
    from orbax.checkpoint import v1 as ocp

    def refuse(*arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(ocp, "save", refuse)
    with pytest.raises(OSError, match=f"write or read {tmp_path}/.step_00000001.*No space left"):
        checkpoints.save(tmp_path, 1, {"weight": jax.numpy.ones(2)}, metadata={})


# Ends the process, as a kill would, at the given call of a function that changes the disk.
_KILLED = """
import os, runpy, shutil, sys
from pathlib import Path

calls, last = 0, int(sys.argv[3])

def counted(own):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os._exit(9)
        return own(*arguments, **options)
    return call

files = runpy.run_path(sys.argv[1])
for name in ("mkdir", "rename", "replace", "fsync", "rmdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
folder = Path(sys.argv[2])
with files["replacing"](folder) as new:
    for name in ("a", "b"):
        files["write_bytes"](new / name, b"new")
"""


def test_a_folder_is_the_old_or_the_new_wherever_its_writer_is_killed(tmp_path):
    folder, found, status = tmp_path / "folder", [], 9
    while status:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).write_bytes(b"old")
        words = [sys.executable, "-c", _KILLED, files.__file__, folder, str(len(found) + 1)]
        status = subprocess.run(words, timeout=60).returncode
        assert status in (0, 9)
        whole = files.standing(folder)
        content = {path.name: path.read_bytes() for path in whole.iterdir()}
        assert content in ({"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new"})
        found.append(content["a"])
        with files.replacing(folder) as new:  # the next one tidies up
            (new / "a").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert found == sorted(found, reverse=True) and {*found} == {b"old", b"new"}


def test_an_error_leaves_the_old_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="midway"), files.replacing(tmp_path / "folder") as new:
        (new / "a").touch()
        raise ValueError("midway")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
