"""Real processes: killed, interrupted, diverging; resumed bit for bit."""

import json
import signal
import time
from pathlib import Path

import pytest

from jaxmeta.training.logs import read_metrics

pytestmark = pytest.mark.slow

LONG = [
    *("regression", "--steps", "240", "--checkpoint-every", "40", "--chunk", "8"),
    *("--task-batch", "2", "--eval-tasks", "6", "--validation-tasks", "6"),
    *("--hidden", "8", "--queries", "20"),
]


def wait_for(process, happened, seconds=300):
    """Wait until something happened, which must be before the process ends."""
    end = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None:
            out, err = process.communicate()
            pytest.fail(f"ended with {process.returncode} too early: {out}{err}")
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def checkpoints(folder: Path) -> list[int]:
    names = [path.name for path in (folder / "checkpoints").glob("step_*")]
    return sorted(int(name.removeprefix("step_")) for name in names)


def kill_when(process, happened) -> str:
    """`kill -9` as soon as something happened; what the process had said by then."""
    try:
        wait_for(process, happened)
    finally:
        process.kill()
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return err


def test_kill_minus_9_loses_nothing(start_process, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    left_alone = start_process("jaxmeta", *LONG, "--out", alone)
    out, err = left_alone.communicate()
    assert left_alone.returncode == 0, err
    assert "mean squared error" in out

    # Before there is any checkpoint.
    process = start_process("jaxmeta", *LONG, "--out", killed)
    kill_when(process, (killed / "config.json").exists)
    assert checkpoints(killed) == []

    # After the first one.
    process = start_process("jaxmeta", *LONG, "--out", killed, "--resume")
    err = kill_when(process, lambda: checkpoints(killed))
    assert "no complete checkpoint in " in err
    last = checkpoints(killed)[-1]
    assert 40 <= last < 240

    # While some later one is being written, or shortly after.
    process = start_process("jaxmeta", *LONG, "--out", killed, "--resume")
    written = killed / "checkpoints"
    kill_when(
        process,
        lambda: checkpoints(killed)[-1] > last and any(written.glob(".step_*.tmp")),
    )
    last = checkpoints(killed)[-1]
    assert not (killed / "results.json").exists()

    process = start_process("jaxmeta", *LONG, "--out", killed, "--resume")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert f"resuming from step {last}." in err

    results, expected = (
        json.loads((folder / "results.json").read_text()) for folder in (killed, alone)
    )
    assert results["resumed_from_step"] == last
    assert expected["resumed_from_step"] is None
    for name in ("parameters_sha256", "evaluated_parameters_sha256", "best_step"):
        assert results[name] == expected[name]
    assert results["loss"] == expected["loss"]  # bit for bit
    assert results["loss_ci95"] == expected["loss_ci95"]

    rows, alone_rows = read_metrics(killed), read_metrics(alone)
    for name in ("train_loss", "validation_loss"):
        history = [(row["step"], row[name]) for row in rows if name in row]
        assert history == [(row["step"], row[name]) for row in alone_rows if name in row]
        steps = [step for step, _ in history]
        assert steps == sorted(set(steps))


def test_signals_save_first(start_process, tmp_path):
    endless = [*LONG, "--steps", "10000000", "--checkpoint-every", "1000000", "--out", tmp_path]
    before = 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = start_process("jaxmeta", *endless, *(["--resume"] if before else []))

        def trains(reached=before):
            rows = read_metrics(tmp_path)
            return rows and rows[-1]["step"] > reached

        wait_for(process, trains)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number, err
        assert "Traceback" not in err
        (saved,) = checkpoints(tmp_path)[-1:]
        assert saved > before
        stopped = f"stopped at step {saved}, which is saved in {tmp_path}; "
        assert err.splitlines()[-1] == f"{stopped}run the same command with --resume to continue."
        before = saved


def test_nan_stops_with_its_step_and_keeps_the_checkpoint(start_process, tmp_path):
    # Outer SGD that diverges: fine for the first steps, then infinite.
    exploding = ["--outer-optimizer", "sgd", "--outer-rate", "4", "--checkpoint-every", "1"]
    options = [*LONG, *exploding, "--chunk", "1", "--out", tmp_path / "run"]
    process = start_process("jaxmeta", *options)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    (kept,) = checkpoints(tmp_path / "run")[-1:]
    assert line.startswith("error: the ")
    assert f"became NaN or infinite at step {kept + 1}; step_{kept:08d} is kept." in line
    assert not (tmp_path / "run" / "results.json").exists()
