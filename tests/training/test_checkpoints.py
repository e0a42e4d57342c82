"""Checkpoints survive kills, notice damage, and refuse what does not fit."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.training import checkpoints
from jaxmeta.training.checkpoints import parameters_sha256, restore, save, save_best


class State(NamedTuple):
    step: Any
    params: Any
    optimizer: Any
    key: Any
    carry: Any = ()


def state(step: int, *, width: int = 5, optimizer: Any = None) -> State:
    """A training state whose every value depends on the step."""
    optimizer = optimizer or optax.chain(optax.clip(1.0), optax.adam(1e-3))
    kernel = jax.random.normal(jax.random.key(step), (3, width))
    params = {"Dense_0": {"kernel": kernel, "bias": jnp.full(width, -0.0)}}
    opt_state = optimizer.init(params)
    _, opt_state = optimizer.update(params, opt_state, params)
    return State(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        optimizer=opt_state,
        key=jax.random.fold_in(jax.random.key(7), step),
    )


def same_bits(tree: Any, other: Any) -> bool:
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    for leaf, expected in pairs:
        assert leaf.dtype == expected.dtype and leaf.shape == expected.shape
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, expected = jax.random.key_data(leaf), jax.random.key_data(expected)
        if np.asarray(leaf).tobytes() != np.asarray(expected).tobytes():
            return False
    return True


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- there and back -----------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_a_training_state_comes_back_bit_for_bit(tmp_path, abstract):
    directory = tmp_path / "a run" / "check points é"
    saved = state(3)
    save(directory, 3, saved, metadata={"best": np.float32(0.5), "loss": float("nan")})
    like = jax.eval_shape(lambda: state(4)) if abstract else state(4)
    restored = restore(directory, like)
    assert restored is not None
    assert restored.step == 3
    assert restored.metadata == {"best": 0.5, "loss": None}
    assert same_bits(restored.tree, saved)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored.tree))
    key = restored.tree.key
    assert jax.random.uniform(key) == jax.random.uniform(saved.key)


def test_unusual_leaves_come_back(tmp_path):
    nan_with_payload = np.array([0x7FC00001, 0x80000000], np.uint32).view(np.float32)
    tree = {
        "nan": jnp.asarray(nan_with_payload),
        "bfloat16": jnp.asarray([1.5, -0.0], jnp.bfloat16),
        "bool": jnp.asarray([True, False]),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "empty": jnp.zeros((0, 3), jnp.int8),
        "no keys": jax.random.split(jax.random.key(0), 0),
        "float64": np.array([1 / 3]),
        "a": {"b": jnp.ones(2)},
        "a']['b": jnp.zeros(2),
        "nothing": (None, ()),
    }
    save(tmp_path, 1, {**tree, "steps": 5, "rate": 0.1, "done": True}, metadata={})
    restored = restore(tmp_path, {**tree, "steps": 0, "rate": 0.0, "done": False})
    assert restored is not None
    assert restored.tree.pop("steps") == 5
    assert restored.tree.pop("rate") == 0.1
    assert restored.tree.pop("done") is True
    assert same_bits(restored.tree, tree)
    assert isinstance(restored.tree["float64"], np.ndarray)
    assert jax.random.key_impl(restored.tree["keys"]) == jax.random.key_impl(tree["keys"])


def test_a_tree_without_arrays_comes_back(tmp_path):
    save(tmp_path, 1, {"nothing": ()}, metadata={"loss": 1.0})
    assert restore(tmp_path, {"nothing": ()}) == (1, {"nothing": ()}, {"loss": 1.0})


def test_arrays_on_several_devices_come_back_on_one(tmp_path):
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("tasks",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("tasks"))
    whole = jnp.arange(4.0 * len(devices)).reshape(len(devices), 4)
    save(tmp_path, 1, {"slot": jax.device_put(whole, spread)}, metadata={})
    restored = restore(tmp_path, jax.eval_shape(lambda: {"slot": whole}))
    assert restored is not None
    assert same_bits(restored.tree, {"slot": whole})
    assert restored.tree["slot"].devices() == jnp.zeros(()).devices()


def test_a_restored_state_may_be_donated(tmp_path):
    save(tmp_path, 1, {"weight": jnp.arange(1024.0)}, metadata={})
    restored = restore(tmp_path, {"weight": jnp.zeros(1024)})
    assert restored is not None
    double = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)
    assert float(double(restored.tree)["weight"][-1]) == 2046.0


def test_relative_folders_running_loops_and_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("first", 0, state(0), metadata={})  # Orbax may start a thread, once in a process
    threads = set(threading.enumerate())

    async def notebook():  # a notebook's cells run inside an event loop
        save("run", 1, state(1), metadata={})
        return restore("run", state(0))

    restored = asyncio.run(notebook())
    assert restored is not None and same_bits(restored.tree, state(1))
    assert names(tmp_path / "run") == ["step_00000001"]
    assert set(threading.enumerate()) == threads


def test_a_conv4_state_is_saved_quickly(tmp_path):
    params = {f"Conv_{i}": jnp.ones((3, 3, 64, 64)) for i in range(3)}
    tree = State(jnp.int32(0), params, optax.adam(1e-3).init(params), jax.random.key(0))
    save(tmp_path, 0, tree, metadata={})  # imports Orbax
    times = []
    for step in range(1, 6):
        start = time.perf_counter()
        save(tmp_path, step, tree, metadata={})
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0  # about 0.15 s where the machine is quiet


# --- which ones are kept ------------------------------------------------------------------


def test_the_last_two_and_the_best_are_kept(tmp_path):
    for step in (100, 200, 300, 400):
        if step <= 200:
            save_best(tmp_path, step, state(step).params, metadata={"accuracy": step / 1000})
        save(tmp_path, step, state(step), metadata={})
    assert names(tmp_path) == ["best_00000200", "step_00000300", "step_00000400"]
    newest, before = restore(tmp_path, state(0)), restore(tmp_path, state(0), step=300)
    best = restore(tmp_path, state(0).params, step="best")
    assert newest and before and best
    assert (newest.step, before.step, best.step) == (400, 300, 200)
    assert same_bits(before.tree, state(300))
    assert same_bits(best.tree, state(200).params)
    assert best.metadata == {"accuracy": 0.2}
    assert restore(tmp_path, state(0), step=200) is None


def test_a_step_written_again_replaces_the_first(tmp_path):
    for value in (1.0, 2.0, 3.0):
        save(tmp_path, 10, {"x": jnp.float32(value)}, metadata={})
        save_best(tmp_path, 10, {"x": jnp.float32(-value)}, metadata={})
        newest = restore(tmp_path, {"x": jnp.float32(0)})
        best = restore(tmp_path, {"x": jnp.float32(0)}, step="best")
        assert newest and best
        assert (float(newest.tree["x"]), float(best.tree["x"])) == (value, -value)
        assert len(names(tmp_path)) == 2


def test_after_a_return_to_an_earlier_step_the_later_ones_go(tmp_path):
    for step in (100, 200):
        save(tmp_path, step, state(step), metadata={})
    save(tmp_path, 150, state(150), metadata={})
    assert names(tmp_path) == ["step_00000100", "step_00000150"]


def test_nothing_there_is_none(tmp_path):
    assert restore(tmp_path, state(0)) is None
    assert restore(tmp_path / "missing", state(0)) is None
    assert restore(tmp_path, state(0), step="best") is None
    (tmp_path / ".step_00000100.tmp").mkdir()  # what a kill leaves
    assert restore(tmp_path, state(0)) is None
    save(tmp_path, 200, state(200), metadata={})
    assert names(tmp_path) == ["step_00000200"]


# --- damage -------------------------------------------------------------------------------


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


def damages(path: Path) -> dict[str, bytes | None]:
    """What may happen to a file: its new contents, None where it is lost."""
    data = path.read_bytes()
    if not data:
        return {"lost": None, "grown": b"x"}
    flips = {f"flip {i}": flip(data, i) for i in {0, len(data) // 2, len(data) - 1}}
    return {**flips, "lost": None, "cut": data[: len(data) // 2], "emptied": b""}


def test_damage_to_any_file_is_noticed_and_the_one_before_is_used(tmp_path, capfd):
    save(tmp_path, 100, state(100), metadata={})
    save(tmp_path, 200, state(200), metadata={})
    paths = [path for path in (tmp_path / "step_00000200").rglob("*") if path.is_file()]
    assert len(paths) > 5
    for path in paths:
        original = path.read_bytes()
        for damage, contents in damages(path).items():
            path.unlink() if contents is None else path.write_bytes(contents)
            lines = []
            restored = restore(tmp_path, state(0), warn=lines.append)
            assert restored is not None and restored.step == 100, (path, damage)
            assert same_bits(restored.tree, state(100))
            (line,) = lines
            assert "step_00000200 is damaged" in line and "using step_00000100" in line
            assert "\n" not in line
            path.write_bytes(original)
    restored = restore(tmp_path, state(0))
    assert restored is not None and restored.step == 200
    assert capfd.readouterr() == ("", "")


def test_damage_warns_by_default_and_is_gone_after_the_next_saves(tmp_path):
    for step in (100, 200):
        save(tmp_path, step, state(step), metadata={})
    (tmp_path / "step_00000200" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        restore(tmp_path, state(0))
    save(tmp_path, 200, state(200), metadata={})
    restored = restore(tmp_path, state(0))
    assert restored is not None and restored.step == 200
    assert len(names(tmp_path)) == 2


def test_when_all_are_damaged_one_line_tells_the_remedy(tmp_path, capfd):
    for step in (100, 200):
        save(tmp_path, step, state(step), metadata={})
        (tmp_path / f"step_{step:08d}" / "SHA256SUMS").write_text("")
    with pytest.raises(ValueError, match="damaged") as error:
        restore(tmp_path, state(0))
    assert str(tmp_path) in str(error.value) and "delete" in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_arrays_of_another_checkpoint_are_noticed_by_the_leaves_own_checksums(tmp_path):
    for step in (100, 200):
        save(tmp_path, step, state(step), metadata={})
    older, newer = (tmp_path / name for name in names(tmp_path))
    shutil.rmtree(newer / "arrays")
    shutil.copytree(older / "arrays", newer / "arrays")
    (newer / "SHA256SUMS").write_bytes(checkpoints._sums(newer))  # as if written so
    lines = []
    restored = restore(tmp_path, state(0), warn=lines.append)
    assert restored is not None and restored.step == 100
    assert "the checksum of step is wrong" in lines[0]


# --- what does not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    "like, said",
    [
        (state(0, width=6), "its params['Dense_0']['bias'] is float32[5], expected float32[6]"),
        (
            state(0, optimizer=optax.sgd(0.1, momentum=0.9)),
            "it has no optimizer[0].trace['Dense_0']['bias'], expected as float32[5]",
        ),
        (
            state(0, optimizer=optax.sgd(0.1)),
            "it has optimizer[1][0].count (int32[]), which is not expected",
        ),
        (state(0)._replace(step=jnp.float32(0)), "its step is int32[], expected float32[]"),
        (state(0)._replace(key=jax.random.key(0, impl="rbg")), "its key is key<fry>[], expected"),
    ],
)
def test_another_model_is_refused_in_one_line(tmp_path, capfd, like, said):
    save(tmp_path, 100, state(100), metadata={})
    with pytest.raises(ValueError) as error:
        restore(tmp_path, like)
    assert said in str(error.value)
    assert "another run folder" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        save(tmp_path / "file" / "checkpoints", 1, state(1), metadata={})
    assert "file" in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


FULL_DISK = """
import resource, sys
import numpy as np
from jaxmeta.training.checkpoints import save
save(sys.argv[1], 1, {"a": np.zeros(1)}, metadata={})
noise = np.random.default_rng(0).normal(size=(2, 300, 300))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # Python ignores SIGXFSZ
try:
    save(sys.argv[1], 2, {"a": noise[0], "b": noise[1]}, metadata={})
except OSError as error:
    print(error)
"""


@pytest.mark.full
def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path):
    # A process of its own, since pytest catches the logging that would reach the user.
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert "could not" in done.stdout and done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert names(tmp_path) == ["step_00000001"]


def test_metadata_that_json_cannot_say_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        save(tmp_path, 1, state(1), metadata={"model": object()})
    assert names(tmp_path) == []


# --- the hash of the parameters -----------------------------------------------------------


def test_parameters_sha256_sees_every_bit_and_no_more():
    tree = {"b": jnp.zeros(2), "a": jnp.ones(2)}
    digest = parameters_sha256(tree)
    assert len(digest) == 64
    assert digest == parameters_sha256({"a": jnp.ones(2), "b": jnp.zeros(2)})
    assert digest == parameters_sha256(jax.tree.map(np.asarray, tree))
    for other in (
        {"a": jnp.ones(2), "b": jnp.full(2, -0.0)},
        {"a": jnp.ones(2), "c": jnp.zeros(2)},
        {"a": jnp.ones(2), "b": jnp.zeros((1, 2))},
        {"a": jnp.ones(2), "b": jnp.zeros(2, jnp.int32)},
        {"a": jnp.zeros(2), "b": jnp.ones(2)},
    ):
        assert parameters_sha256(other) != digest
    keys = [parameters_sha256({"key": jax.random.key(seed)}) for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("write", [save, save_best])
def test_what_is_no_checkpoint_under_its_name_stops_no_save(tmp_path, write):
    kind = "step" if write is save else "best"
    write(tmp_path, 1, {"a": jnp.ones(2)}, metadata={})
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    for name in (f"{kind}_00000002", f"{kind}_00000009", f".{kind}_00000003.tmp"):
        (tmp_path / name).write_text("a plain file")
    (tmp_path / f"{kind}_00000005").symlink_to(elsewhere)
    for step in (2, 3, 4):
        write(tmp_path, step, {"a": jnp.ones(2)}, metadata={})
    wanted = "best" if write is save_best else None
    restored = restore(tmp_path, {"a": jnp.zeros(2)}, step=wanted)
    assert restored is not None and restored.step == 4
    assert len(names(tmp_path)) == (1 if write is save_best else 2)
    assert (elsewhere / "precious").exists()


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path):
    save(tmp_path, 1, {"a": jnp.ones(2)}, metadata={})
    save(tmp_path, 2, {"a": jnp.ones(2)}, metadata={})
    (tmp_path / "step_00000002").rename(tmp_path / "step_00000007")
    said: list[str] = []
    restored = restore(tmp_path, {"a": jnp.zeros(2)}, warn=said.append)
    assert restored is not None and restored.step == 1
    assert "manifest.json is invalid, or belongs to another checkpoint" in said[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("step"),
        lambda manifest: manifest.update(step="2"),
        lambda manifest: manifest.update(metadata=[]),
        lambda manifest: manifest.update(leaves=[]),
        lambda manifest: manifest.update(leaves={"['a']": 3}),
        lambda manifest: manifest.update(leaves={"['a']": {"type": "float32[2]"}}),
        lambda manifest: manifest.clear(),
    ],
)
def test_a_manifest_that_is_none_is_damage(change, tmp_path):
    for step in (1, 2):
        save(tmp_path, step, {"a": jnp.ones(2)}, metadata={})
    path = tmp_path / "step_00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    (path.parent / "SHA256SUMS").write_bytes(checkpoints._sums(path.parent))  # as if written so
    said: list[str] = []
    restored = restore(tmp_path, {"a": jnp.zeros(2)}, warn=said.append)
    assert restored is not None and restored.step == 1
    assert "step_00000002 is damaged (its manifest.json is" in said[0]


# --- kills --------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("write", [save, save_best])
@pytest.mark.parametrize("new", [9, 10])  # the newest once more, or a newer one
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_dying_before_any_renaming_or_removal_costs_nothing(
    tmp_path, monkeypatch, write, new, calls
):
    for step in (8, 9):
        write(tmp_path, step, {"step": step}, metadata={})
    made = []

    def call():
        made.append(True)
        if len(made) > calls:
            raise Killed

    def rename(source, target):
        call()
        os.rename(source, target)

    def rmtree(path, ignore_errors=False):
        if not ignore_errors:
            next(file for file in path.rglob("*") if file.is_file()).unlink()
            call()
        shutil.rmtree(path)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "os", SimpleNamespace(rename=rename))
        for module in (checkpoints, checkpoints.files):  # both remove folders
            patch.setattr(module, "shutil", SimpleNamespace(rmtree=rmtree))
        write(tmp_path, new, {"step": new}, metadata={})
    wanted = "best" if write is save_best else None
    restored = restore(tmp_path, {"step": 0}, step=wanted)
    assert restored is not None
    assert restored.step == restored.tree["step"] == (new if calls else 9)
    for path in tmp_path.glob("[!.]*"):  # no half of one under a checkpoint's name
        checkpoints._verify(path)
    write(tmp_path, 11, {"step": 11}, metadata={})
    assert len(names(tmp_path)) == (1 if write is save_best else 2)


# For every line it is sent, starts a process that saves without end from that step on, kills
# it, and answers with the last step whose save had returned. Forks, to import JAX only once.
KILLER = """
import os, random, signal, sys, time
import numpy as np
from orbax.checkpoint import v1
from jaxmeta.training.checkpoints import save, save_best

def save_without_end(directory, step, pipe):
    while True:
        noise = np.random.default_rng(step).normal(size=10_000)
        save_best(directory, step - step % 3, {"noise": noise}, metadata={"step": step})
        save(directory, step, {"noise": noise}, metadata={"step": step})
        os.write(pipe, b"%d\\n" % step)
        step += 1

for line in sys.stdin:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        save_without_end(sys.argv[1], int(line), writer)
    os.close(writer)
    said = os.read(reader, 100)  # so that there is one on the disk
    time.sleep(random.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 100):
        said += more
    os.close(reader)
    print(said.split()[-1].decode(), flush=True)
"""


def noise(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=10_000)


def test_kill_minus_nine_at_any_moment_loses_nothing_that_was_saved(tmp_path):
    """Each process starts over the ruins of the one before."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    ) as killer:
        assert killer.stdin is not None and killer.stdout is not None
        last = 0
        for _ in range(6):
            print(last + 1, file=killer.stdin, flush=True)
            last = int(killer.stdout.readline())
            for wanted in (None, "best"):
                restored = restore(tmp_path, {"noise": noise(0)}, step=wanted)
                assert restored is not None
                step = restored.metadata["step"]
                assert step in (last, last + 1)
                assert restored.tree["noise"].tobytes() == noise(step).tobytes()
        killer.stdin.close()
        assert killer.wait() == 0
