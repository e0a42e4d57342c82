"""Several real processes, two virtual devices each, that train as one."""

import json
import re
import signal
import time

import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.scaling import free_address
from jaxmeta.training import restore
from jaxmeta.training.config import FewShot, Regression
from jaxmeta.training.logs import read_metrics

SMALL = [
    *("maml", "--hidden", "8", "--queries", "20", "--task-batch", "4", "--eval-tasks", "8"),
    *("--validation-tasks", "8", "--chunk", "2", "--checkpoint-every", "4"),
]


@pytest.fixture
def start_two(start):
    """`start_two(module, *arguments)`: two processes joined over loopback; the list of both."""
    started = []

    def start_two(module, *arguments):
        address = free_address()
        together = ("--coordinator", address, "--num-processes", "2")
        for number in range(2):
            options = [*arguments, *together, "--process-id", str(number)]
            started.append(start(module, *options, devices=2))
        return started[-2:]

    yield start_two
    for process in started:
        process.kill()
        process.communicate()


def endings(processes, seconds=120):
    """Status, standard output and standard error of each."""
    said = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, status):
    """The run folder of one process with four devices."""
    folder = tmp_path_factory.mktemp("alone")
    assert status(Regression, *SMALL, "--steps", "12", "--devices", "4", "--out", folder) == 0
    return folder


def check_same_run(folder, expected):
    """The same parameters, results and history, but for the rounding of other sums."""
    found, wanted = (ravel_pytree(restore(path).meta_params)[0] for path in (folder, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    results = [json.loads((path / "results.json").read_text()) for path in (folder, expected)]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-4)
    losses = [
        [row["train_loss"] for row in read_metrics(path) if "train_loss" in row]
        for path in (folder, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(start_two, alone, tmp_path):
    folder = tmp_path / "run"
    (first, out, err), (second, nothing, _) = endings(
        start_two("regression", *SMALL, "--steps", "12", "--out", folder)
    )
    assert (first, second) == (0, 0), err
    check_same_run(folder, alone)
    device = json.loads((folder / "results.json").read_text())["device"]
    assert re.fullmatch(r"cpu × 4 \(\d+ cores\), 2 processes", device)
    # The first one alone speaks and writes: every line of the log stands there once.
    assert "on 8 held-out tasks" in out
    assert not [line for line in nothing.splitlines() if not line.startswith("[Gloo]")]
    steps = [row["step"] for row in read_metrics(folder) if "train_loss" in row]
    assert steps == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_two_processes_read_one_stream(start_two, tiny_images, status, tmp_path):
    """Each reads its part of every batch; together they learn what one learns from all of it."""
    options = ["prototypical", *tiny_images, "--task-batch", "4", "--devices", "4"]
    # SGD, since Adam makes steps of the rounding noise of gradients that are zero.
    options += ["--outer-optimizer", "sgd", "--query-statistics", "none"]
    options += ["--pipeline", "stream", "--out"]
    assert status(FewShot, *options, tmp_path / "alone") == 0
    for code, _, err in endings(start_two("few_shot", *options, tmp_path / "run")):
        assert code == 0, err
    check_same_run(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
def test_a_run_changes_its_number_of_processes(start_two, status, alone, tmp_path):
    folder = tmp_path / "run"
    processes = start_two("regression", *SMALL, "--steps", "12", "--chunk", "1", "--out", folder)
    while not list((folder / "checkpoints").glob("step_*")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.002)
    processes[1].send_signal(signal.SIGTERM)  # one of them hears it, both stop
    for code, _, err in endings(processes):
        assert code == 128 + signal.SIGTERM, err
        assert "Traceback" not in err
    options = [*SMALL, "--steps", "12", "--chunk", "1", "--out", folder, "--resume"]
    assert status(Regression, *options, "--devices", "1") == 0
    assert 4 <= json.loads((folder / "results.json").read_text())["resumed_from_step"] < 12

    # And back: two processes end what is left to do, which is to evaluate and to write.
    (folder / "results.json").unlink()
    for code, _, err in endings(
        start_two(
            "regression", *SMALL, "--steps", "12", "--chunk", "1", "--resume", "--out", folder
        )
    ):
        assert code == 0, err
    found, wanted = (
        json.loads((path / "results.json").read_text())["loss"] for path in (folder, alone)
    )
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_an_error_ends_all_of_them(start_two, status, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("no run")
    (first, _, err), (second, _, other) = endings(
        start_two("regression", *SMALL, "--steps", "2", "--out", tmp_path)
    )
    assert (first, second) == (1, 1)
    assert "is not empty and holds no run" in err
    assert "another process could not go on; its own message says why." in other

    for options, told in (
        (["--num-processes", "2"], "--num-processes 2 without --coordinator"),
        (["--coordinator", "localhost:1"], "several processes need --out"),
        (["--coordinator", "localhost:1", "--out", tmp_path], "to each its own id from 0"),
        (
            [*("--coordinator", "here", "--num-processes", "1"), "--process-id", "0", "--out", "x"],
            "give HOST:PORT",
        ),
    ):
        assert status(Regression, *SMALL, "--steps", "2", *options) == 1
        assert told in capsys.readouterr().err
