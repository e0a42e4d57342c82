"""Pre-training, meta-transfer from it, and the baselines beside it: end to end, in seconds."""

import dataclasses
import json

import chex
import numpy as np
import pytest

from experiments.baselines import Baselines
from experiments.baselines import run as run_baselines
from experiments.pretrain import BACKBONE, Pretrain, features_of, few_shot_of, run
from experiments.progress import Progress
from jaxmeta.data import load
from jaxmeta.models import unpack
from jaxmeta.training.build_learner import network_of
from jaxmeta.training.config import FewShot
from jaxmeta.training.restore import read_config, restore

NETWORK = {"image_size": 12, "network": "conv4-stride", "width": 4, "split": "6/6/6"}


@pytest.fixture(scope="module")
def images(draw_classes, tmp_path_factory):
    return draw_classes(tmp_path_factory.mktemp("images"), 18, 8)


@pytest.fixture(scope="module")
def pretrained(images, tmp_path_factory):
    settings = Pretrain(
        **NETWORK,  # pyright: ignore
        dataset=str(images),
        steps=60,
        checkpoint_every=30,
        chunk=30,
        batch_size=16,
        shift=1,
        validation_tasks=50,
        out=tmp_path_factory.mktemp("runs") / "pretrained",
    )
    return settings, run(settings, Progress(quiet=True))


def test_pretraining_leaves_a_frozen_network(pretrained):
    settings, results = pretrained
    assert json.loads((settings.out / "results.json").read_text())["best_step"] in (30, 60)
    assert results["validation"]["accuracy"] > 0.5  # of 5 easy patterns
    assert results["protocol"]["training_classes"] == 6
    assert (settings.out / "learning_curve.png").exists()
    backbone = unpack((settings.out / BACKBONE).read_bytes())["network"]
    assert "head" not in backbone
    # Its features don't depend on what else is in the batch.
    few_shot = few_shot_of(settings)
    encoder = network_of(few_shot, None)
    classes = load(str(settings.dataset), image_size=12, split="6/6/6").test
    features = features_of(encoder, backbone, classes).images
    assert features.shape == (48, 1, 1, features.shape[-1])
    alone = encoder.apply(backbone, classes.images[5:6].astype(np.float32) / 255)
    np.testing.assert_allclose(features[5, 0, 0], alone[0], rtol=1e-4, atol=1e-5)


def test_a_second_run_is_refused_or_goes_on(pretrained):
    settings, _ = pretrained
    with pytest.raises(ValueError, match="--resume goes on with it"):
        run(settings, Progress(quiet=True))


@pytest.fixture
def line(pretrained, tmp_path):
    settings, _ = pretrained
    return [
        *("meta-transfer", "--dataset", settings.dataset, "--split", "6/6/6"),
        *("--image-size", "12", "--width", "4", "--steps", "4", "--checkpoint-every", "2"),
        *("--eval-tasks", "20", "--validation-tasks", "10", "--train-queries", "3"),
        *("--queries", "5", "--inner-steps", "5", "--eval-inner-steps", "20"),
        *("--inner-rate", "0.1", "--out", tmp_path / "run"),
    ]


@pytest.mark.slow
def test_meta_transfer_from_it(pretrained, line, tmp_path, status):
    settings, _ = pretrained
    assert status(FewShot, *line, "--pretrained", settings.out) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["query_statistics"] == "none"
    assert results["protocol"]["hard_tasks"]
    assert results["accuracy"] > 0.4
    # A trained run needs the pre-trained one no more.
    frozen = unpack((settings.out / BACKBONE).read_bytes())["network"]
    config, _ = read_config(tmp_path / "run")
    gone = dataclasses.replace(config.learner, pretrained=str(tmp_path / "gone"))
    restored = restore(tmp_path / "run", config=dataclasses.replace(config, learner=gone))
    chex.assert_trees_all_equal(restored.meta_params.frozen, frozen)


def test_meta_transfer_wants_the_network_that_was_trained(pretrained, line, status, capsys):
    settings, _ = pretrained
    for options, said in [
        ((), "run python -m experiments.pretrain"),
        (("--pretrained", settings.out / "missing.npz"), "can't read the pre-trained network"),
        (("--pretrained", settings.out, "--query-statistics", "batch"), "give none"),
        (("--pretrained", settings.out, "--width", "8"), "of another network: conv_0/kernel"),
        (("--pretrained", settings.out, "--seed", "1"), "another split of them"),
        (("--pretrained", settings.out, "--pipeline", "stream"), "give --pipeline device"),
    ]:
        assert status(FewShot, *line, *options, "--overwrite") == 1
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_baselines_beside_it(pretrained):
    settings, _ = pretrained
    options = Baselines(
        settings.out,
        shots=(1,),
        queries=5,
        eval_tasks=50,
        tuned_tasks=10,
        choosing_tasks=20,
        tuned_choosing_tasks=5,
    )
    rows = run_baselines(options)["baselines"]["5w1s"]
    assert json.loads((settings.out / "baselines.json").read_text())["baselines"]["5w1s"] == rows
    assert len(rows) == 3
    for row in rows.values():
        assert row["accuracy"] > 0.4
        assert row["validation_accuracies"][row["chosen"]] == max(
            row["validation_accuracies"].values()
        )
    assert rows["whole network"]["num_tasks"] == 10


def test_baselines_want_a_finished_run(tmp_path):
    with pytest.raises(OSError, match="holds no pre-trained network"):
        run_baselines(Baselines(tmp_path))
