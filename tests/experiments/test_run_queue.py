"""The queue: lists, commands, resuming after any kill, failures, and the table of the runs."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import run_queue
from experiments.run_queue import Run, begun, command_of, freeze, group_of, read_list, work
from jaxmeta import files
from jaxmeta.commands import evaluate
from jaxmeta.commands.experiment import parse
from jaxmeta.recipes import find_domain
from jaxmeta.recipes.folders import Stored

OMNIGLOT = run_queue.ROOT / "experiments" / "omniglot.txt"

# A stand-in for `experiments.few_shot` that trains nothing: it ends at once, fails, or makes a
# step every 20 ms until SIGTERM and is finished by --resume.
FEW_SHOT = """
import json, pathlib, sys, time
what, out = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
print("called with", *sys.argv[1:], flush=True)
if what == "fails":
    sys.exit("error: no luck")
(out / "config.json").write_text(json.dumps({"training": {"steps": 900}}))
steps = 0
while what == "long" and "--resume" not in sys.argv:
    steps += 1
    with (out / "metrics.jsonl").open("a") as log:
        print(json.dumps({"step": steps, "time": time.time()}), file=log, flush=True)
    time.sleep(0.02)
(out / "results.json").write_text(json.dumps({"accuracy": 0.9, "accuracy_ci95": 0.01}))
"""
EVALUATE = """
import json, pathlib, sys
assert (pathlib.Path(sys.argv[1]) / "results.json").exists()
pathlib.Path(sys.argv[-1]).write_text(json.dumps({"accuracy": 0.25, "accuracy_ci95": 0.02}))
"""


def repository(folder: Path, contents: dict[str, str]) -> Path:
    """A git repository with one commit of these files."""
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", folder, *words], check=True)
    return folder


@pytest.fixture
def queue(tmp_path):
    """The folder of a queue, whose source has the stand-ins for the experiments."""
    empty = {"experiments/__init__.py": ""}
    programs = {"experiments/few_shot.py": FEW_SHOT, "experiments/evaluate.py": EVALUATE}
    repository(tmp_path / "queue" / "source", empty | programs)
    return tmp_path / "queue"


@pytest.fixture
def listed(tmp_path):
    """`listed(*lines)`: a list in a file."""

    def write(*lines: str) -> Path:
        path = tmp_path / "list.txt"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def worked(queue, listed):
    """`worked(*lines)`: the state after a queue in this process has worked off a list."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*lines: str) -> dict:
        state = {"list": "", "runs": read_list(listed(*lines)), "current": None, "failed": {}}
        files.write_json(queue / "queue.json", state)
        work(queue)
        return run_queue.read_state(queue)

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_list(listed):
    lines = [
        "# all runs",
        "",
        "one few-shot maml --preset 'a b'  # first",
        "one/x evaluate --ways 2",
    ]
    assert read_list(listed(*lines)) == [
        Run("one", ["few_shot", "maml", "--preset", "a b"]),
        Run("one/x", ["evaluate", "--ways", "2"]),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("two", "give NAME COMMAND"),
        ("two no_such_command maml", "give NAME COMMAND"),
        ("two evaluate --ways 2", "RUN/NAME evaluate"),
        ("two/x few_shot maml", "RUN/NAME evaluate"),
        ("one few_shot maml", "one appears twice"),
        ("../two few_shot maml", "the name '../two'"),
        ("source few_shot maml", "not 'source'"),
        ("two few_shot 'maml", "No closing quotation"),
    ],
)
def test_a_wrong_line_is_named(line, told, listed):
    path = listed("one few_shot maml", line)
    with pytest.raises(ValueError) as error:
        read_list(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert told in str(error.value)


@pytest.mark.full
@pytest.mark.parametrize("run", read_list(OMNIGLOT), ids=lambda run: run.name)
def test_the_runs_of_omniglot_are_understood(run):
    commands = {own.name: own.words for own in read_list(OMNIGLOT)}
    command, *options = commands[run.name.split("/")[0]]
    _, experiment = parse(find_domain(command.replace("_", "-")), options)
    if "/" in run.name:
        _, changes = evaluate._parse(["RUN", *run.words[1:]], Stored(experiment, {}), "evaluate")
        assert changes or "--eval-tasks" in run.words


def test_commands_start_continue_and_evaluate(tmp_path):
    run, python = Run("one", ["few_shot", "maml"]), [sys.executable, "-m"]
    started = [*python, "experiments.few_shot", "maml", "--out", "../one"]
    assert command_of(tmp_path, run) == started
    (tmp_path / "one" / "seed_3").mkdir(parents=True)
    assert command_of(tmp_path, run) == started
    (tmp_path / "one" / "seed_3" / "config.json").touch()
    assert begun(tmp_path, run) == [tmp_path / "one" / "seed_3"]
    assert command_of(tmp_path, run) == [*started, "--resume"]
    again = command_of(tmp_path, Run("one/x", ["evaluate", "--ways", "2"]))
    options = ["../one", "--ways", "2", "--out", "../one/x.json"]
    assert again == [*python, "experiments.evaluate", *options]


def test_a_failure_does_not_stop_the_others(worked, queue, capsys):
    lines = ["bad few_shot fails", "bad/x evaluate", "good few_shot quick", "good/x evaluate"]
    state = worked(*lines)
    assert state["failed"] == {
        "bad": "status 1, error: no luck",
        "bad/x": "bad is not finished",
    }
    assert state["current"] is None
    assert (queue / "good" / "results.json").exists() and (queue / "good" / "x.json").exists()
    assert (queue / "good.log").read_text() == "called with quick --out ../good\n"
    assert not (queue / ".lock").exists()

    capsys.readouterr()
    run_queue.status(queue)
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].split()[:3] == ["bad", "failed", "–"]
    assert " ".join(rows[3].split()) == "good finished 0 of 900 0 – 90.00 % ± 1.00 %"
    assert " ".join(rows[4].split()) == "good/x finished – – – 25.00 % ± 2.00 %"
    assert "bad failed: status 1, error: no luck" in rows
    assert rows[-1] == "The queue is stopped."

    # Finished runs are not run again, what has begun is continued.
    (queue / "good" / "results.json").unlink()
    worked(*lines)
    assert "quick --out ../good --resume" in (queue / "good.log").read_text()
    assert (queue / "bad.log").read_text().count("called with") == 2


def test_the_table_counts_no_pauses(worked, queue, capsys):
    worked("one few_shot quick")
    times = [0, 60, 120, 180, 99_180, 99_240]
    accuracies = [None, 0.5, 0.75, 0.625, None, 0.5]
    rows = [
        {"step": step, "time": when, "validation_accuracy": accuracy, "validation_loss": 1.0}
        for step, when, accuracy in zip(range(10, 70, 10), times, accuracies)
    ]
    (queue / "one" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    run_queue.status(queue)
    _, row, _ = capsys.readouterr().out.splitlines()
    assert " ".join(row.split()).startswith("one finished 60 of 900 5 75.00 % ")


def test_the_run_of_a_killed_queue_holds_the_lock(tmp_path):
    lock = files._take(tmp_path / files.LOCK, print)
    idle = [sys.executable, "-c", "import time; time.sleep(60)"]
    run = subprocess.Popen(idle, pass_fds=[lock])
    os.close(lock)  # as if this process was killed: the file stays
    try:
        assert group_of(tmp_path) == os.getpid()
    finally:
        run.kill()
        run.wait()
    assert group_of(tmp_path) is None


@pytest.mark.parametrize("command", [run_queue.pause, run_queue.resume, run_queue.stop])
def test_nothing_runs(command, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="is not running"):
            command(folder)
    with pytest.raises(FileNotFoundError, match="has no queue"):
        run_queue.status(tmp_path)


def test_a_queue_on_another_machine_is_left_alone(tmp_path):
    with files.locked(tmp_path):
        (tmp_path / ".lock").write_text("1 elsewhere\n")
        with pytest.raises(ValueError, match="is on elsewhere"):
            run_queue.stop(tmp_path)


def test_the_source_is_frozen(tmp_path):
    root = repository(tmp_path / "root", {"jaxmeta/a.py": "1", "experiments/b.py": "1", "c": "1"})
    (root / "c").write_text("2")  # which no run uses
    source = tmp_path / "source"
    commit = freeze(source, root)
    assert len(commit) == 12
    (root / "jaxmeta" / "a.py").write_text("2")
    assert freeze(source, root) == commit
    assert (source / "jaxmeta" / "a.py").read_text() == "1"

    (source / "experiments" / "b.py").write_text("2")
    with pytest.raises(ValueError, match="was edited"):
        freeze(source, root)
    with pytest.raises(ValueError, match=r"commit these changes first: M jaxmeta/a\.py"):
        freeze(tmp_path / "new", root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="incomplete"):
        freeze(tmp_path / "empty", root)
    with pytest.raises(ValueError, match="not a git repository"):
        freeze(tmp_path / "new", tmp_path)


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_pause_stop_and_kill(queue, listed, start_process, capsys):
    path, metrics = listed("a few_shot long", "b few_shot quick"), queue / "a" / "metrics.jsonl"

    def started(*options: str) -> str:
        process = start_process("experiments.run_queue", "start", *options, "--folder", queue)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out

    def state_of(name: str) -> str:
        capsys.readouterr()
        run_queue.status(queue)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        return next(row[1] for row in rows if row[0] == name)

    core = str(min(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "0"
    out = started(str(path), "--cpus", core)
    assert str(path) in out
    group = group_of(queue)
    assert group is not None and f"process {group}" in out
    try:
        wait_for(metrics.exists)
        assert (state_of("a"), state_of("b")) == ("running", "waiting")
        assert os.getpriority(os.PRIO_PGRP, group) >= 15
        if hasattr(os, "sched_getaffinity"):
            assert os.sched_getaffinity(group) == {int(core)}
        with pytest.raises(ValueError, match="is running already"):
            run_queue.start(path, queue)

        run_queue.pause(queue)
        wait_for(lambda: state_of("a") == "paused")
        size = metrics.stat().st_size
        time.sleep(0.2)
        assert metrics.stat().st_size == size
        run_queue.resume(queue)
        wait_for(lambda: metrics.stat().st_size > size)
        assert state_of("a") == "running"

        # The queue is killed, its run goes on: nobody else may start, and stop reaches it.
        os.kill(group, signal.SIGKILL)
        size = wait_for(lambda: metrics.stat().st_size)
        wait_for(lambda: metrics.stat().st_size > size)
        assert group_of(queue) == group
        run_queue.stop(queue)
        assert group_of(queue) is None
        assert (state_of("a"), state_of("b")) == ("stopped", "waiting")
    finally:
        if group_of(queue):
            os.killpg(group, signal.SIGKILL)

    started()  # the list of last time
    wait_for(lambda: group_of(queue) is None)
    assert (state_of("a"), state_of("b")) == ("finished", "finished")
    assert shlex.split((queue / "a.log").read_text())[-1] == "--resume"
