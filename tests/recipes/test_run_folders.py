"""A run folder belongs to one run and is written by one process; nothing foreign is taken."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxmeta import files
from jaxmeta.commands import evaluate
from jaxmeta.commands.experiment import folder_for, parse
from jaxmeta.recipes import find_domain, restore, runner
from jaxmeta.recipes.folders import clear, read_config, read_identity, run_folder
from jaxmeta.recipes.outputs import is_made_from, result_file, result_path

HOLDER = """
import sys
from jaxmeta import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """`hold(folder)`: another process that has the lock of a folder."""
    started = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def own(trained) -> Path:
    """A run that has ended."""
    return trained("regression")


@pytest.fixture
def other(trained) -> Path:
    """The same with another seed."""
    return trained("regression", None, "--seed", "1")


@pytest.fixture
def of_images(trained) -> Path:
    """A run of images."""
    return trained("few-shot")


@pytest.fixture
def refused(status, capsys, monkeypatch):
    """`refused(command, *arguments)`: the one line that refuses, before any work."""

    def works(*arguments, **options):
        pytest.fail("it works")

    monkeypatch.setattr(runner, "train_with_checkpoints", works)
    monkeypatch.setattr(evaluate, "evaluate", works)

    def refused(command, *arguments):
        capsys.readouterr()
        assert status(command, *arguments) == 1
        captured = capsys.readouterr()
        *_, line = captured.err.splitlines()
        assert line.startswith("error: ")
        assert captured.out == ""
        return line

    return refused


# --- the lock -----------------------------------------------------------------------------


def test_one_writer_at_a_time_and_a_kill_leaves_nothing(hold, tmp_path):
    holder = hold(tmp_path)
    with pytest.raises(BlockingIOError, match=f"process {holder.pid} on .* is writing to"):
        files.locked(tmp_path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with files.locked(tmp_path):
        assert (tmp_path / files.LOCK).read_text().split()[0] == str(os.getpid())
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
            files.locked(tmp_path).__enter__()
    assert not any(tmp_path.iterdir())


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    taken = files._lock

    def removed_first(descriptor):
        monkeypatch.setattr(files, "_lock", taken)
        (tmp_path / files.LOCK).unlink()
        return taken(descriptor)

    monkeypatch.setattr(files, "_lock", removed_first)
    with files.locked(tmp_path), pytest.raises(BlockingIOError):
        files.locked(tmp_path).__enter__()


def test_without_locks_it_is_said_and_the_work_goes_on(tmp_path, monkeypatch):
    import fcntl

    def none_here(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    said: list[str] = []
    with files.locked(tmp_path, say=said.append):
        pass
    (line,) = said
    assert "has no locks" in line


@pytest.mark.full
def test_every_command_that_writes_there_waits_its_turn(
    hold, own, tiny, refused, status, tmp_path, capsys
):
    folder = shutil.copytree(own, tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")}
    holder = hold(folder)
    options = [*tiny("regression"), "--out", folder]
    told = f"process {holder.pid} on "
    for more in ([], ["--resume"], ["--overwrite"], ["--overwrite", "--seed", "7"]):
        assert told in refused("regression", *options, *more)
    assert told in refused("evaluate", folder)
    assert told in refused("evaluate", own, "--out", folder / "other.json")
    assert told in refused("baselines", folder)
    result = [own, folder, "--out", folder / "differences.json"]
    capsys.readouterr()
    assert status("compare", *result) == 1
    assert told in capsys.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")}
    after.pop(files.LOCK), before.pop(files.LOCK, None)
    assert after == before

    of_seeds = tmp_path / "seeds"
    of_seeds.mkdir()
    holder = hold(of_seeds)
    line = refused("regression", *tiny("regression"), "--out", of_seeds, "--seeds", "0,1")
    assert f"process {holder.pid} on " in line


# --- identity -----------------------------------------------------------------------------


@pytest.mark.full
def test_what_another_run_left_is_refused(own, other, refused, tmp_path):
    folder = shutil.copytree(own, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(other / "checkpoints", folder / "checkpoints")
    with pytest.raises(ValueError, match=rf"is of another run: .* {read_identity(other)}"):
        restore(folder)
    assert "is of another run" in refused("evaluate", folder)


@pytest.mark.full
def test_a_resume_from_what_another_run_left_is_refused(own, other, tiny, status, tmp_path, capsys):
    folder = shutil.copytree(own, tmp_path / "run")
    resume = [*tiny("regression"), "--out", folder, "--resume"]
    for part in ("checkpoints", "metrics.jsonl"):
        files.remove(folder / part)
        (shutil.copytree if part == "checkpoints" else shutil.copy)(other / part, folder / part)
        capsys.readouterr()
        assert status("regression", *resume) == 1
        *_, line = capsys.readouterr().err.splitlines()
        assert "another run" in line and str(folder / part) in line
        files.remove(folder / part)
        source = own / part
        (shutil.copytree if part == "checkpoints" else shutil.copy)(source, folder / part)


@pytest.mark.full
def test_every_file_says_whose_it_is(own, other):
    identity = read_identity(own)
    results = json.loads((own / "results.json").read_text())
    assert results["identity"] == identity
    rows = (own / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["identity"] for row in rows} == {identity}
    manifests = [*own.rglob("manifest.json")]
    assert len(manifests) == 3
    for path in manifests:
        assert json.loads(path.read_text())["metadata"]["identity"] == identity
    assert identity != read_identity(other)


def test_a_run_of_an_earlier_version_goes_on(own, tmp_path):
    """Without digests: its settings are compared, and nothing more is known."""
    folder = shutil.copytree(own, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    del config["data_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    assert restore(folder).step > 0


def stops(*arguments, **options):
    raise ValueError("it trains")


@pytest.fixture
def stopped(monkeypatch):
    monkeypatch.setattr(runner, "train_with_checkpoints", stops)


@pytest.mark.full
def test_the_data_may_move_but_not_change(
    of_images, stopped, tiny, status, images, draw_classes, tmp_path, capsys
):
    folder = shutil.copytree(of_images, tmp_path / "run")
    identity = read_identity(folder)
    moved = shutil.copytree(images, tmp_path / "moved")
    resume = [*tiny("few-shot"), "--out", folder, "--resume", "--dataset"]
    capsys.readouterr()
    assert status("few-shot", *resume, moved) == 1
    assert "it trains" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    assert config["tasks"]["images"]["dataset"] == str(moved)
    assert read_identity(folder) == identity

    other = draw_classes(tmp_path / "other", 18, 8, seed=5)
    assert status("few-shot", *resume, other) == 1
    line = capsys.readouterr().err
    assert "holds a run with another configuration (" in line and "images_sha256" in line


def test_overwrite_leaves_nothing_of_the_run_before(stopped, tiny, status, tmp_path):
    folder = tmp_path / "run"
    assert status("regression", *tiny("regression"), "--out", folder) == 1
    kept = ("config.json", "notes.txt", "settings.json")
    (folder / "notes.txt").write_text("mine")
    (folder / "settings.json").write_text('{"mine": 1}')
    written = ("backbone.npz", "rule.npz", "per_task.npz", "evaluation-seed-3.npz", "episode.png")
    for name in (*written, "metrics.jsonl", "baselines-ways-3.json", "finished", "tensorboard"):
        (folder / name).write_text("of the run before")  # a file in place of a folder, too
    (folder / "mine.json").write_text('{"identity": "of the run before", "loss": 1}')
    (folder / "checkpoints" / "step_00000002").mkdir(parents=True)
    again = [*tiny("regression"), "--out", folder, "--overwrite", "--seed", "7"]
    assert status("regression", *again) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_the_folder_of_another_program_is_not_overwritten(refused, tiny, tmp_path):
    (tmp_path / "config.json").write_text('{"model": "of another program"}')
    (tmp_path / "weights.npz").write_text("precious")
    line = refused("regression", *tiny("regression"), "--out", tmp_path, "--overwrite")
    assert "is not a run folder; give another --out" in line
    assert (tmp_path / "weights.npz").exists()


def test_a_folder_in_place_of_a_file_is_told_before_training(stopped, tiny, status, tmp_path):
    options = [*tiny("regression"), "--out", tmp_path / "run"]
    assert status("regression", *options) == 1
    (tmp_path / "run" / "results.json").mkdir()
    assert status("regression", *options, "--resume") == 1
    clear(tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_seeds_do_not_take_the_place_of_others(stopped, tiny, refused, status, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    options = [*tiny("regression"), "--out", folder, "--seeds"]
    (folder / "results.json").write_text('{"seeds": [0, 1], "loss": 1.0}')
    for seeds, more in (("0,1", []), ("2,3", []), ("2,3", ["--resume"]), ("0,2", ["--resume"])):
        line = refused("regression", *options, seeds, *more)
        assert "holds the results of the seeds 0, 1" in line
    (folder / "results.json").write_text('{"loss": 1.0}')
    assert "does not hold a mean over seeds" in refused("regression", *options, "0,1")
    assert "does not hold a mean" in refused("regression", *options, "0,1", "--overwrite")
    (folder / "results.json").unlink()
    (folder / "config.json").write_text("{}")
    line = refused("regression", *options, "0,1")
    assert "holds a single run; give another --out with --seeds" in line


@pytest.fixture
def few_shot_run(trained):
    return trained("few-shot")


def test_a_mistake_beside_overwrite_deletes_no_seed(few_shot_run, refused, tiny, tmp_path):
    folder, run = tmp_path / "run", few_shot_run
    kept = [shutil.copytree(run, folder / f"seed_{seed}") / "results.json" for seed in (0, 1)]
    kept.append(folder / "results.json")
    kept[-1].write_text('{"seeds": [0, 1]}')
    options = [*tiny("few-shot"), "--out", folder, "--seeds", "0,1", "--overwrite"]
    assert "unknown dataset" in refused("few-shot", *options, "--dataset", "omniglott")
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--overwrite",), "--overwrite requires --out"),
        (("--seed", "3", "--seeds", "0,1"), "--seed 3 with --seeds: give one of them"),
    ],
)
def test_options_without_an_effect_are_refused(refused, tiny, options, told):
    assert told in refused("regression", *tiny("regression"), *options)


def test_a_complete_run_that_is_resumed_keeps_what_trained_it(trained, status, tmp_path):
    run = shutil.copytree(trained("regression"), tmp_path / "run")
    path = run / "results.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "commit": "abc", "device": "another one"}))
    runner.run(read_config(run).experiment, run, resume=True)
    after = json.loads(path.read_text())
    assert (after["commit"], after["device"]) == ("abc", "another one")
    assert after["resumed_from_step"] == before["resumed_from_step"] is None


# --- where results go ---------------------------------------------------------------------


def test_two_runs_started_together_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, experiment = parse(find_domain("regression"), [])
    together, found, leave = threading.Barrier(8), [], threading.Event()

    def run():
        together.wait()
        with folder_for(experiment, options) as folder:
            found.append(folder)
            leave.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(found) < 8 and any(thread.is_alive() for thread in threads):
        pass
    leave.set()
    for thread in threads:
        thread.join()
    assert len({*found}) == 8
    assert not any((tmp_path / "runs").iterdir())  # nothing was written there


def test_a_folder_taken_between_look_and_make_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from jaxmeta.commands import experiment as command

    looked = []

    def look(name, resume):
        folder = run_folder(name, resume)
        if not looked:
            folder.mkdir(parents=True)  # by another process
        looked.append(folder)
        return folder

    monkeypatch.setattr(command, "run_folder", look)
    options, experiment = parse(find_domain("regression"), [])
    with folder_for(experiment, options) as folder:
        assert folder == looked[1] != looked[0]


@pytest.mark.parametrize("out", ["absent/x.json", "a-file/x.json", "a-folder"])
def test_where_no_file_can_go_is_told_before_the_work(out, own, refused, tmp_path):
    from experiments import memory

    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    path = tmp_path / out
    assert str(path) in refused("evaluate", own, "--out", path)
    assert str(path) in refused("compare", own, own, "--out", path)
    with pytest.raises(OSError, match=out):
        memory.measure(memory.Memory(out=path))


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    own, tiny, refused, tmp_path, monkeypatch
):
    def read_only(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    for arguments in (["evaluate"], ["compare", own]):
        line = refused(*arguments, own, "--out", tmp_path / "x.json")
        assert "x.json can't be written: Permission denied" in line
    monkeypatch.setattr(Path, "mkdir", read_only)
    line = refused("regression", *tiny("regression"), "--out", tmp_path / "run")
    assert "Permission denied" in line


def test_no_evaluation_takes_the_name_of_another(tmp_path):
    names = set()
    given = [
        {},
        {"seed": 1},
        {"seed": 2},
        {"queries": 3},
        {"ways": 3, "queries": 1},
        {"dataset": "/one/images"},
        {"dataset": "/other/images"},
        {"test_lengths": (1, 20)},
        {"test_lengths": (1, 2)},
        {"test_lengths": tuple(range(100))},
        {"test_lengths": tuple(range(101))},
        {"dataset": "a\nb"},
        {"dataset": "a_b"},
    ]
    for number, changes in enumerate(given):
        for _ in range(2):  # the same once more rewrites its own
            path = result_path(tmp_path, "evaluation", changes, str(number), ".npz")
            with result_file(path, is_made_from(str(number)), ".npz"):
                files.write_json(path, {"made_from": str(number)})
                path.with_suffix(".npz").write_bytes(b"")
        names.add(path.name)
        assert len(path.name) < 200 and path.name.isprintable()
    assert len(names) == len(given)
    for number in range(len(given)):
        assert sum(json.loads(p.read_text())["made_from"] == str(number)
                   for p in tmp_path.glob("*.json")) == 1  # fmt: skip


def test_no_result_is_written_over_another(own, refused, tmp_path):
    folder = shutil.copytree(own, tmp_path / "run")
    for name in ("results.json", "config.json", "metrics.jsonl", "per_task.json"):
        line = refused("evaluate", folder, "--out", folder / name)
        assert "holds another result; give another file" in line
    assert "name a JSON file" in refused("evaluate", folder, "--out", tmp_path / "x.npz")
    (tmp_path / "x.npz").write_text("values of something else")
    assert "x.npz holds another result" in refused("evaluate", folder, "--out", tmp_path / "x.txt")


@pytest.mark.full
def test_evaluations_beside_each_other(own, status, tmp_path):
    folder = shutil.copytree(own, tmp_path / "run")
    few = ["--eval-tasks", "2"]
    for more in ([], ["--seed", "1"], ["--queries", "3"], [], ["--seed", "0"]):
        assert status("evaluate", folder, *few, *more) == 0
    found = {path.name for path in folder.glob("evaluation*.json")}
    assert found == {
        "evaluation-eval-tasks-2.json",
        "evaluation-eval-tasks-2-seed-1.json",
        "evaluation-queries-3-eval-tasks-2.json",
    }
    out = tmp_path / "out.json"
    assert status("evaluate", folder, *few, "--out", out) == 0
    assert status("evaluate", folder, *few, "--out", out) == 0
    kept = out.read_bytes()
    assert status("evaluate", folder, *few, "--seed", "1", "--out", out) == 1
    assert out.read_bytes() == kept
