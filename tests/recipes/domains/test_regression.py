"""Regression end to end: curves, Gaussian processes beside their oracle, completed images."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta import Batch, Task, plots
from jaxmeta.learners.process import Gaussian
from jaxmeta.recipes import known_learners
from jaxmeta.recipes.domains.regression import draw_completion
from jaxmeta.training.logs import read_metrics

# The others' runs differ by their update alone, which the contract battery tries.
NAMES = [
    name if name == "maml" else pytest.param(name, marks=pytest.mark.slow)
    for name in known_learners("regression")
]


@pytest.mark.parametrize("learner", NAMES)
def test_the_run_folder_is_whole(learner, trained):
    folder = trained("regression", learner)
    results = json.loads((folder / "results.json").read_text())
    assert (results["learner"], results["dataset"]) == (learner, "sinusoids")
    assert (results["shots"], results["queries"], results["num_tasks"]) == (5, 20, 6)
    assert results["loss"] > 0
    assert results["loss_ci95"] > 0
    assert not {"accuracy", "accuracy_ci95", "ways"} & results.keys()
    assert results["protocol"]["selected_on"] == "validation loss, 4 tasks every 2 steps"
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
    assert [row["step"] for row in read_metrics(folder) if "train_loss" in row] == [2, 4]


@pytest.mark.slow
def test_devices_share_tasks_that_do_not_divide(status, tiny, tmp_path):
    losses = []
    for devices in (1, 3):  # two tasks on three devices: one has none to learn from
        folder = tmp_path / str(devices)
        options = [*tiny("regression"), "--devices", devices, "--out", folder]
        assert status("regression", *options) == 0
        results = json.loads((folder / "results.json").read_text())
        assert f"× {devices}" in results["device"]
        losses.append(results["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["conditional-neural-process", "transformer-neural-process"])
def test_curves_of_gaussian_processes_beside_their_oracle(
    learner, trained, status, tmp_path, capsys
):
    folder = trained("regression", learner, "--task", "gp", "--points", "2", "4")
    results = json.loads((folder / "results.json").read_text())
    assert (results["dataset"], results["points"]) == ("gp rbf", [2, 4])
    lead = results["oracle"]["log_likelihood"] - results["log_likelihood"]
    assert results["oracle"]["lead"] == pytest.approx(lead, abs=1e-4)
    assert lead > results["oracle"]["lead_ci95"] > 0
    assert 0 < results["oracle"]["floor"] < lead
    assert results["protocol"]["kernel_length"] == [0.4, 0.4]
    assert results["protocol"]["train_episode"]["points"] == [2, 4]
    assert (folder / "episode.png").exists()
    capsys.readouterr()
    assert status("evaluate", folder, "--out", tmp_path / "again.json") == 0
    assert "the exact posterior: log-likelihood " in capsys.readouterr().out
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["protocol"] == results["protocol"]
    assert again["log_likelihood"] == pytest.approx(results["log_likelihood"], rel=1e-5)
    for name, value in results["oracle"].items():
        assert again["oracle"][name] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("most", [60, 8])  # 8: fewer than any row shows, so the task's own
def test_completions_show_what_is_known(most, tmp_path, monkeypatch):
    places = np.stack(np.meshgrid(np.arange(28.0), np.arange(28.0)), axis=-1).reshape(-1, 2)
    image = places.sum(axis=1, keepdims=True)
    mask = np.arange(most) < 6
    task = Task(Batch(places[:most], image[:most], mask), Batch(places, image))
    drawn = {}
    monkeypatch.setattr(plots, "completions", lambda path, image, rows, title: drawn.update(rows))

    def predict(context, x):
        return Gaussian(jnp.zeros((len(x), 1)), jnp.ones((len(x), 1)))

    draw_completion(tmp_path / "episode.png", task, predict, "a title")
    known = {count: row[0] for count, row in drawn.items()}
    assert {count: known[count].sum() for count in known} == (
        {10: 10, 50: 50} if most == 60 else {6: 6}
    )
    if most == 8:
        assert known[6][0, :6].all()


@pytest.mark.slow
def test_images_are_completed(tiny, images, status, tmp_path):
    line = [*tiny("regression", "attentive-neural-process"), "--task", "images"]
    line += ["--dataset", images, "--points", "5", "60", "--representation", "16", "--heads", "2"]
    assert status("regression", *line, "--queries", "9", "--out", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["points"] == [5, 60]
    assert results["protocol"]["images_sha256"]
    with Image.open(tmp_path / "run" / "episode.png") as image:
        assert min(image.size) >= 200
    # A user's own image: places and brightness are learned from, places are asked for.
    (tmp_path / "known.csv").write_text("0,0,1\n0.5,0.5,0\n")
    (tmp_path / "asked.csv").write_text("0.25,0.75\n")
    task = ["--support", tmp_path / "known.csv", "--query", tmp_path / "asked.csv"]
    out = tmp_path / "predicted.png"
    assert status("predict", tmp_path / "run", *task, "--out", out) == 0
    assert out.with_suffix(".csv").read_text().startswith('"input","mean","std"\n"0.25 0.75",')
