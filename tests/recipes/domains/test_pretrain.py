"""Pre-training, meta-transfer from it, and the baselines beside it: end to end, in seconds."""

import json
import shutil

import chex
import numpy as np
import pytest

from jaxmeta.commands.baselines import Baselines
from jaxmeta.commands.baselines import run as run_baselines
from jaxmeta.data import load
from jaxmeta.recipes import restore
from jaxmeta.recipes.domains.pretrain import features_of


@pytest.fixture(scope="module")
def pretrained(trained):
    more = ("--steps", "60", "--checkpoint-every", "30", "--chunk", "30", "--batch-size", "16")
    return trained("pretrain", None, *more, "--task-batch", "1", "--validation-tasks", "50")


@pytest.mark.full
def test_pretraining_leaves_a_frozen_network(pretrained, images):
    results = json.loads((pretrained / "results.json").read_text())
    assert results["best_step"] in (30, 60)
    assert results["accuracy"] > 0.4  # of 5 easy patterns
    protocol = results["protocol"]
    assert (protocol["training_classes"], protocol["query_statistics"]) == (6, "none")
    assert protocol["judged_by"] == "prototypes of the frozen features"
    assert (pretrained / "learning_curve.png").exists()
    backbone = restore(pretrained).meta_params
    assert "head" not in backbone
    # Its features don't depend on what else is in the batch.
    run = restore(pretrained)
    encoder = run.experiment.domain.image_network.build(None)  # pyright: ignore
    classes = load(str(images), image_size=12, split="6/6/6").test
    features = features_of(encoder, backbone, classes).images
    assert features.shape == (48, 1, 1, features.shape[-1])
    alone = encoder.apply(backbone, classes.images[5:6].astype(np.float32) / 255)
    np.testing.assert_allclose(features[5, 0, 0], alone[0], rtol=1e-4, atol=1e-5)


@pytest.fixture
def line(images, tmp_path):
    return [
        *("meta-transfer", "--dataset", images, "--split", "6/6/6"),
        *("--image-size", "12", "--width", "4", "--steps", "4", "--checkpoint-every", "2"),
        *("--eval-tasks", "20", "--validation-tasks", "10", "--train-queries", "3"),
        *("--queries", "5", "--inner-steps", "5", "--eval-inner-steps", "20"),
        *("--inner-rate", "0.1", "--out", tmp_path / "run"),
    ]


@pytest.mark.slow
def test_meta_transfer_from_it(pretrained, line, tmp_path, status):
    copy = shutil.copytree(pretrained, tmp_path / "pretrained")
    assert status("few-shot", *line, "--pretrained", copy) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["query_statistics"] == "none"
    assert results["protocol"]["hard_tasks"]
    assert results["accuracy"] > 0.4
    # A trained run needs the pre-trained one no more.
    frozen = restore(copy).meta_params
    shutil.rmtree(copy)
    restored = restore(tmp_path / "run")
    chex.assert_trees_all_equal(restored.meta_params.frozen, frozen)
    assert status("evaluate", tmp_path / "run", "--out", tmp_path / "again.json") == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["accuracy"] == results["accuracy"]


@pytest.mark.full
def test_meta_transfer_needs_the_network_that_was_trained(
    pretrained, line, trained, status, tmp_path, capsys
):
    for options, told in [
        ((), "run python -m experiments.pretrain"),
        (("--pretrained", tmp_path / "missing"), "is not a run folder"),
        (("--pretrained", trained("regression")), "is not a run of python -m experiments.pretrain"),
        (("--pretrained", pretrained, "--query-statistics", "batch"), "statistics none"),
        (("--pretrained", pretrained, "--width", "8"), "conv_0/kernel"),
        (("--pretrained", pretrained, "--seed", "1"), "or on another split"),
        (("--pretrained", pretrained, "--pipeline", "stream"), "--pipeline device"),
    ]:
        capsys.readouterr()
        assert status("few-shot", *line, *options, "--overwrite") == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert told in said
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_baselines_beside_it(pretrained, status, tmp_path, capsys):
    folder = shutil.copytree(pretrained, tmp_path / "pretrained")
    few = ["--eval-tasks", "50", "--tuned-tasks", "10", "--choosing-tasks", "20"]
    few += ["--tuned-choosing-tasks", "5", "--shots", "1", "--queries", "5"]
    capsys.readouterr()
    assert status("baselines", folder, *few) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"results: {folder / 'baselines.json'}"
    assert all(line.startswith("5-way 1-shot · ") for line in lines)
    found = json.loads((folder / "baselines.json").read_text())
    assert found["protocol"]["query_statistics"] == "none"
    rows = found["baselines"]["5w1s"]
    assert len(rows) == len(lines) == 3
    for row in rows.values():
        assert row["accuracy"] > 0.4
        assert row["validation_accuracies"][row["chosen"]] == max(
            row["validation_accuracies"].values()
        )
    assert rows["whole network"]["num_tasks"] == 10


def test_baselines_need_a_run_of_pretraining(trained, status, tmp_path, capsys):
    with pytest.raises(OSError, match="is not a run folder"):
        run_baselines(Baselines(tmp_path))
    folder = trained("regression")
    capsys.readouterr()
    assert status("baselines", folder) == 1
    assert capsys.readouterr().err == (
        f"error: {folder} is a run of regression; give a run of pretrain.\n"
    )
