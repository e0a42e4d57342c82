"""Regression end to end, and real processes: killed, interrupted, resumed."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.evaluate import Evaluate, evaluate
from experiments.pictures import _draw_completion
from jaxmeta import Batch, Task, plots
from jaxmeta.learners.process import Gaussian
from jaxmeta.training.config import REGRESSORS, Regression
from jaxmeta.training.logs import read_metrics

# The others' runs differ by their update alone, which the contract battery tries.
QUICK = ("maml",)
NAMES = [
    learner.name if learner.name in QUICK else pytest.param(learner.name, marks=pytest.mark.slow)
    for learner in REGRESSORS
]


@pytest.mark.parametrize("learner", NAMES)
def test_the_run_folder_is_whole(learner, trained_curves):
    folder = trained_curves(learner)
    results = json.loads((folder / "results.json").read_text())
    assert (results["learner"], results["dataset"]) == (learner, "sinusoids")
    assert (results["shots"], results["queries"], results["num_tasks"]) == (5, 20, 6)
    assert results["loss"] > 0
    assert results["loss_ci95"] > 0
    assert not {"accuracy", "accuracy_ci95", "ways"} & results.keys()
    assert results["protocol"]["selected_on"] == "validation loss, 6 tasks every 3 steps"
    assert results["protocol"]["amplitude"] == [0.1, 5.0]
    pictures = ["learning_curve", "episode"]
    if not learner.endswith("process"):
        curve = results["after_inner_steps"]["loss"]
        assert len(curve) == results["protocol"]["inner"]["eval_inner_steps"] + 1
        assert curve[-1] == pytest.approx(results["loss"], rel=1e-4)
        pictures.append("adaptation")
    for picture in pictures:
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) >= 200
    assert {path.name for path in folder.iterdir()} >= {"config.json", "tensorboard"}
    assert [row["step"] for row in read_metrics(folder) if "train_loss" in row] == [3, 6]


@pytest.mark.slow
def test_devices_share_the_tasks(status, tiny_curves, tmp_path, capsys):
    losses = []
    for devices in (1, 2, 3):  # two tasks on three devices: one has none to learn from
        folder = tmp_path / str(devices)
        options = [*tiny_curves, "--devices", devices, "--out", folder]
        assert status(Regression, *options) == 0
        results = json.loads((folder / "results.json").read_text())
        assert f"× {devices}" in results["device"]
        losses.append(results["loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-4)
    options = [*tiny_curves, "--devices", 9, "--out", tmp_path / "none"]
    assert status(Regression, *options) == 1
    assert "give 1 to 8" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# --- real processes -----------------------------------------------------------------------

LONG = [
    *("--steps", "240", "--checkpoint-every", "40", "--chunk", "8", "--task-batch", "2"),
    *("--eval-tasks", "6", "--validation-tasks", "6", "--hidden", "8", "--queries", "20"),
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


@pytest.mark.slow
def test_kill_minus_9_loses_nothing(start, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    left_alone = start("regression", *LONG, "--out", alone)
    out, err = left_alone.communicate()
    assert left_alone.returncode == 0, err
    assert "mean squared error" in out

    # Before there is any checkpoint.
    process = start("regression", *LONG, "--out", killed)
    kill_when(process, (killed / "config.json").exists)
    assert checkpoints(killed) == []

    # After the first one.
    process = start("regression", *LONG, "--out", killed, "--resume")
    err = kill_when(process, lambda: checkpoints(killed))
    assert "no complete checkpoint in " in err
    last = checkpoints(killed)[-1]
    assert 40 <= last < 240

    # While some later one is being written, or shortly after.
    process = start("regression", *LONG, "--out", killed, "--resume")
    written = killed / "checkpoints"
    kill_when(
        process,
        lambda: checkpoints(killed)[-1] > last and any(written.glob(".step_*.tmp")),
    )
    last = checkpoints(killed)[-1]
    assert not (killed / "results.json").exists()

    process = start("regression", *LONG, "--out", killed, "--resume")
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


@pytest.mark.slow
def test_sigterm_and_ctrl_c_save_first(start, tmp_path):
    endless = [*LONG, "--steps", "10000000", "--checkpoint-every", "1000000", "--out", tmp_path]
    before = 0
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start("regression", *endless, *(["--resume"] if before else []))

        def trains(reached=before):
            rows = read_metrics(tmp_path)
            return rows and rows[-1]["step"] > reached

        wait_for(process, trains)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == status, err
        assert "Traceback" not in err
        (saved,) = checkpoints(tmp_path)[-1:]
        assert saved > before
        stopped = f"stopped at step {saved}, which is saved in {tmp_path}; the same command with "
        assert err.splitlines()[-1] == f"{stopped}--resume goes on from there."
        before = saved


@pytest.mark.slow
def test_nan_stops_with_its_step_and_keeps_the_checkpoint(start, tmp_path):
    # Outer SGD that diverges: fine for the first steps, then infinite.
    exploding = ["--outer-optimizer", "sgd", "--outer-rate", "4", "--checkpoint-every", "1"]
    options = [*LONG, *exploding, "--chunk", "1", "--out", tmp_path / "run"]
    process = start("regression", *options)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    (kept,) = checkpoints(tmp_path / "run")[-1:]
    assert line.startswith("error: the ")
    assert f"became NaN or infinite at step {kept + 1}; step_{kept:08d} is kept." in line
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["conditional-neural-process", "transformer-neural-process"])
def test_curves_of_gaussian_processes_beside_their_oracle(learner, tiny_curves, status, tmp_path):
    line = [learner, *tiny_curves, "--task", "gp", "--points", "2", "4", "--out", tmp_path / "run"]
    assert status(Regression, *line) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["dataset"], results["points"]) == ("gp rbf", [2, 4])
    lead = results["oracle"]["log_likelihood"] - results["log_likelihood"]
    assert results["oracle"]["lead"] == pytest.approx(lead, abs=1e-4)
    assert lead > results["oracle"]["lead_ci95"] > 0
    assert 0 < results["oracle"]["floor"] < lead
    assert results["protocol"]["kernel_length"] == [0.4, 0.4]
    assert results["protocol"]["train_episode"]["points"] == [2, 4]
    assert (tmp_path / "run" / "episode.png").exists()
    evaluate(Evaluate(tmp_path / "run", out=tmp_path / "again.json"))
    again = json.loads((tmp_path / "again.json").read_text())
    for name in ("log_likelihood", "oracle", "protocol"):
        assert again[name] == results[name]


@pytest.mark.parametrize("most", [60, 8])  # 8: fewer than any row shows, so the task's own
def test_completions_show_what_is_known(most, tmp_path, monkeypatch):
    places = np.stack(np.meshgrid(np.arange(28.0), np.arange(28.0)), axis=-1).reshape(-1, 2)
    image = places.sum(axis=1, keepdims=True)
    mask = np.arange(most) < 6
    task = Task(Batch(places[:most], image[:most], mask), Batch(places, image))
    drawn = {}
    monkeypatch.setattr(plots, "completions", lambda path, image, rows, title: drawn.update(rows))
    predict = lambda context, x: Gaussian(np.zeros((len(x), 1)), np.ones((len(x), 1)))  # noqa: E731
    _draw_completion(tmp_path / "episode.png", task, predict, "a title")
    known = {count: row[0] for count, row in drawn.items()}
    assert {count: known[count].sum() for count in known} == (
        {10: 10, 50: 50} if most == 60 else {6: 6}
    )
    if most == 8:
        assert known[6][0, :6].all()


@pytest.mark.slow
def test_images_are_completed(tiny_curves, status, tmp_path, draw_classes):
    folder = draw_classes(tmp_path / "images", 9, 3)
    line = ["attentive-neural-process", *tiny_curves, "--task", "images", "--dataset", folder]
    line += ["--points", "5", "60", "--representation", "16", "--heads", "2"]
    assert status(Regression, *line, "--queries", "9", "--out", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["points"] == [5, 60]
    assert results["protocol"]["images_sha256"]
    with Image.open(tmp_path / "run" / "episode.png") as image:
        assert min(image.size) >= 200
