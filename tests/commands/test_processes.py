"""Several real processes, two virtual devices each, that train as one: over all domains."""

import json
import re
import signal
import time

import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.scaling import free_address
from jaxmeta.recipes import known_domains, restore
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.processes import SILENCE

pytestmark = pytest.mark.slow

_SHARED = ["--task-batch", "4", "--devices", "4"]
SMALL = [
    *("maml", "--hidden", "8", "--queries", "20", "--task-batch", "4", "--eval-tasks", "8"),
    *("--validation-tasks", "8", "--chunk", "1", "--checkpoint-every", "4", "--steps", "12"),
]


@pytest.fixture
def start_two(start_process):
    """`start_two(*arguments)`: two processes joined over loopback; the list of both."""
    started = []

    def start_two(*arguments):
        address = free_address()
        together = ("--coordinator", address, "--num-processes", "2")
        for number in range(2):
            options = [*arguments, *together, "--process-id", str(number)]
            started.append(start_process("jaxmeta", *options, devices=2))
        return started[-2:]

    yield start_two
    for process in started:
        process.kill()
        process.communicate()


def endings(processes, seconds=300):
    """Status, standard output and standard error of each."""
    said = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said)]


def losses_of(folder):
    return [row["train_loss"] for row in read_metrics(folder) if "train_loss" in row]


def check_same_run(folder, expected):
    """The same parameters, results and history, but for the rounding of other sums."""
    found, wanted = (ravel_pytree(restore(path).meta_params)[0] for path in (folder, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    results = [json.loads((path / "results.json").read_text()) for path in (folder, expected)]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-3)
    assert losses_of(folder) == pytest.approx(losses_of(expected), rel=1e-3)


@pytest.mark.parametrize("domain", sorted(known_domains()))
def test_two_processes_give_what_one_gives(domain, start_two, tiny, steady, status, tmp_path):
    folder, alone = tmp_path / "run", tmp_path / "alone"
    line = [*tiny(domain), *_SHARED, *steady(domain)]
    (first, out, err), (second, nothing, other) = endings(start_two(domain, *line, "--out", folder))
    assert (first, second) == (0, 0), err + other
    assert status(domain, *line, "--out", alone) == 0
    check_same_run(folder, alone)
    device = json.loads((folder / "results.json").read_text())["device"]
    assert re.fullmatch(r"cpu × 4 \(\d+ cores\), 2 processes", device)
    # The first one alone speaks and writes: every line of the log stands there once.
    assert "on 6 held-out tasks" in out
    assert not [line for line in nothing.splitlines() if not line.startswith("[Gloo]")]
    steps = [row["step"] for row in read_metrics(folder) if "train_loss" in row]
    assert steps == [2, 4]


def test_two_processes_read_one_stream(start_two, tiny, steady, status, tmp_path):
    """Each reads its part of every batch; together they learn what one learns from all of it."""
    line = [*tiny("few-shot"), *_SHARED, *steady("few-shot"), "--pipeline", "stream", "--out"]
    assert status("few-shot", *line, tmp_path / "alone") == 0
    for code, _, err in endings(start_two("few-shot", *line, tmp_path / "run")):
        assert code == 0, err
    check_same_run(tmp_path / "run", tmp_path / "alone")


def test_a_run_changes_its_number_of_processes(start_two, status, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    assert status("regression", *SMALL, "--devices", "4", "--out", alone) == 0
    processes = start_two("regression", *SMALL, "--out", folder)
    while not list((folder / "checkpoints").glob("step_*")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.002)
    processes[1].send_signal(signal.SIGTERM)  # one of them hears it, both stop
    for code, _, err in endings(processes):
        assert code == 128 + signal.SIGTERM, err
        assert "Traceback" not in err
    line = [*SMALL, "--out", folder, "--resume"]
    assert status("regression", *line, "--devices", "1") == 0
    assert 4 <= json.loads((folder / "results.json").read_text())["resumed_from_step"] < 12

    # And back: two processes end what is left to do, which is to evaluate and to write.
    (folder / "results.json").unlink()
    for code, _, err in endings(start_two("regression", *line)):
        assert code == 0, err
    found, wanted = (
        json.loads((path / "results.json").read_text())["loss"] for path in (folder, alone)
    )
    assert found == pytest.approx(wanted, rel=1e-4)


def test_an_error_ends_all_of_them(start_two, tmp_path):
    (tmp_path / "other.txt").write_text("no run")
    (first, _, err), (second, _, other) = endings(
        start_two("regression", *SMALL, "--out", tmp_path)
    )
    assert (first, second) == (1, 1)
    assert "is not empty and is not a run folder" in err
    assert "another process failed; see its message for the reason." in other


@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_ends_with_one_line(killed, start_two, tmp_path):
    endless = [*SMALL, "--steps", "1000000", "--out", tmp_path]
    processes = start_two("regression", *endless)
    folder = tmp_path / "checkpoints"
    while not list(folder.glob("step_*")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.002)
    processes[killed].kill()
    start = time.monotonic()
    (code, _, err) = endings(processes[1 - killed :][:1])[0]
    assert time.monotonic() - start < SILENCE + 30
    assert code == 1, err
    progress = r"compiling|tasks/s|^waiting for "
    told = [line for line in err.splitlines() if not re.search(progress, line)]
    assert len(told) == 1, err
    assert told[0].startswith("error: another process of this run has ended, or has not responded")
    assert list(folder.glob("step_*"))
