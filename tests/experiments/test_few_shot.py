"""Every learner from a folder of images to its results, end to end, in seconds."""

import json
from pathlib import Path

import pytest
from PIL import Image

from experiments.command_line import parse
from jaxmeta.training.config import LEARNERS, FewShot, to_json
from jaxmeta.training.logs import read_metrics

# Those whose runs differ by more than their update, which the contract battery tries.
QUICK = ("maml", "prototypical")
NAMES = [
    learner.name if learner.name in QUICK else pytest.param(learner.name, marks=pytest.mark.slow)
    for learner in LEARNERS
    if learner.name != "meta-transfer"  # see test_pretrain.py
]


@pytest.mark.parametrize("learner", NAMES)
def test_the_run_folder_is_whole(learner, trained, image_folder):
    folder = trained(learner)
    results = json.loads((folder / "results.json").read_text())

    assert results["learner"] == learner
    assert results["dataset"] == str(image_folder)
    assert (results["ways"], results["shots"], results["queries"]) == (3, 1, 3)
    assert 0 <= results["accuracy"] <= 1
    assert 0 <= results["accuracy_ci95"] <= 1
    assert results["loss"] > 0
    assert (results["num_tasks"], results["seed"], results["steps"]) == (6, 0, 6)
    assert results["wall_seconds"] > 0
    assert results["tasks_per_second"] > 0
    assert "cpu" in results["device"]
    assert {"jaxmeta", "jax", "jaxlib", "optax"} <= results["versions"].keys()
    assert len(results["parameters_sha256"]) == 64
    assert results["resumed_from_step"] is None

    protocol = results["protocol"]
    assert (protocol["split"], protocol["rotations"]) == ("6/3/3", "none")
    defaults = parse(FewShot, [learner])[1]
    assert protocol["query_statistics"] == defaults.query_statistics
    assert protocol["selected_on"] == "validation accuracy, 6 tasks every 3 steps"
    assert protocol["train_episode"] == {"ways": 3, "shots": 2, "queries": 2}
    takes_steps = hasattr(defaults.learner, "inner_steps")
    assert takes_steps == ({"inner_steps", "eval_inner_steps"} <= protocol["inner"].keys())

    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["learner"]["name"] == learner
    assert config.keys() == to_json(FewShot(steps=1, task_batch=1)).keys()
    steps = [row["step"] for row in read_metrics(folder) if "train_loss" in row]
    assert steps == [3, 6]
    assert list((folder / "tensorboard").iterdir())
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    best, *others = checkpoints
    assert best.startswith("best_0000000")
    assert others == ["step_00000003", "step_00000006"]
    pictures = {"learning_curve", "episode"}
    if takes_steps or learner == "prototypical":  # steps or prototypes to show
        pictures.add("adaptation")
    assert {path.stem for path in folder.glob("*.png")} == pictures
    for picture in pictures:
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) >= 200


def test_the_adaptation_curve_ends_at_the_result(trained):
    results = json.loads((trained("maml") / "results.json").read_text())
    curve = results["after_inner_steps"]
    assert len(curve["accuracy"]) == results["protocol"]["inner"]["eval_inner_steps"] + 1
    assert curve["accuracy"][-1] == pytest.approx(results["accuracy"])
    assert curve["loss"][-1] == pytest.approx(results["loss"], rel=1e-4)


def test_closing_line(trained, tiny_images, tmp_path, status, capsys):
    assert status(FewShot, "prototypical", *tiny_images, "--out", tmp_path / "run") == 0
    line, folder_line = capsys.readouterr().out.splitlines()
    dataset = Path(tiny_images[-1]).name
    assert line.startswith(f"prototypical · {dataset} · 3-way 1-shot · ")
    assert line.endswith(" % on 6 held-out tasks")
    assert folder_line == f"results, pictures and checkpoints: {tmp_path / 'run'}"
    # The same command gives the same bits.
    again, before = (
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "run", trained("prototypical"))
    )
    for name in ("parameters_sha256", "accuracy", "loss"):
        assert again[name] == before[name]


@pytest.mark.slow
def test_seeds_report_mean_and_interval(tiny_images, tmp_path, status, capsys):
    folder = tmp_path / "run"
    options = [*tiny_images, "--seeds", "0,1", "--out", folder]
    assert status(FewShot, "prototypical", *options) == 0
    summary = json.loads((folder / "results.json").read_text())
    values = [
        json.loads((folder / f"seed_{seed}" / "results.json").read_text())["accuracy"]
        for seed in (0, 1)
    ]
    assert summary["seeds"] == [0, 1]
    assert [run["accuracy"] for run in summary["runs"]] == values
    assert summary["accuracy"] == pytest.approx(sum(values) / 2)
    deviation = abs(values[0] - values[1]) / 2**0.5
    assert summary["accuracy_deviation_between_seeds"] == pytest.approx(deviation)
    interval = 12.706 * deviation / 2**0.5  # Student's t with one degree of freedom
    assert summary["accuracy_ci95"] == pytest.approx(interval, rel=1e-4)
    shown = f"{100 * summary['accuracy']:.1f} ± {100 * interval:.1f} %"
    out = capsys.readouterr().out
    assert f"{shown} on 6 held-out tasks, over 2 seeds" in out
    hashes = {run["parameters_sha256"] for run in summary["runs"]}
    assert len(hashes) == 2


@pytest.mark.slow
def test_sixty_ways_become_as_many_as_there_are_classes(image_folder, tmp_path, status, capsys):
    options = ["--steps", "1", "--network", "mlp", "--image-size", "12", "--split", "6/3/3"]
    sizes = ["--ways", "3", "--queries", "2", "--eval-tasks", "2", "--validation-tasks", "2"]
    folder = tmp_path / "run"
    paths = ["--dataset", image_folder, "--out", folder]
    assert status(FewShot, "prototypical", *options, *sizes, *paths) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["train_episode"]["ways"] == 6
    assert "6 classes" in capsys.readouterr().err
