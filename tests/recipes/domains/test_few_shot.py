"""Every learner from a folder of images to its results, end to end, in seconds."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmeta.architecture import cell_text
from jaxmeta.core import Batch
from jaxmeta.data import load
from jaxmeta.recipes import find_domain, find_learner, known_learners, restore, start
from jaxmeta.recipes.images import ImageNetwork
from jaxmeta.recipes.loading import load as load_experiment
from jaxmeta.recipes.settings import check
from jaxmeta.training.logs import read_metrics

# Those whose runs differ by more than their update, which the contract battery tries.
MARKS = {"maml": (), "prototypical": pytest.mark.full}
NAMES = [
    pytest.param(name, marks=MARKS.get(name, pytest.mark.slow))
    for name in known_learners("classification")
    if name != "meta-transfer"  # see test_pretrain.py
]
# Options of learners that the tiny ones don't fit.
OWN = {
    "relation": ("--network", "conv4-stride", "--width", "4", "--image-size", "28"),
    "semi-supervised-prototypical": ("--unlabelled", "2"),
}


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="session")
def trained_images(trained):
    """`trained_images(learner)`: the folder of a tiny run on images."""
    return lambda learner: trained("few-shot", learner, *OWN.get(learner, ()))


@pytest.mark.parametrize("learner", NAMES)
def test_the_run_folder_is_whole(learner, trained_images, images):
    folder = trained_images(learner)
    results = results_of(folder)
    assert results["learner"] == learner
    assert results["dataset"] == str(images)
    assert (results["ways"], results["shots"], results["queries"]) == (3, 1, 3)
    assert 0 <= results["accuracy"] <= 1
    assert 0 <= results["accuracy_ci95"] <= 1
    # Classes that are easy to tell apart may have a loss of 0, by large squared distances.
    assert results["loss"] > 0 or results["accuracy"] == 1
    assert results["wall_seconds"] > 0
    assert results["tasks_per_second"] > 0
    assert "cpu" in results["device"]
    assert len(results["parameters_sha256"]) == 64

    protocol = results["protocol"]
    defaults = start(find_domain("few-shot"), find_learner(learner))
    network = defaults.domain.image_network  # pyright: ignore
    assert (protocol["split"], protocol["shuffled_labels"]) == ("6/6/6", False)
    assert protocol["query_statistics"] == network.query_statistics
    assert protocol["transductive"] == (network.query_statistics == "batch")
    assert protocol["selected_on"] == "validation accuracy, 4 tasks every 2 steps"
    episode = protocol["train_episode"]
    assert (episode["shots"], episode["queries"]) == (2, 2)
    takes_steps = hasattr(defaults.learner, "inner_steps")
    assert takes_steps == ({"inner_steps", "eval_inner_steps"} <= protocol["inner"].keys())

    config = json.loads((folder / "config.json").read_text())
    assert (config["experiment"], config["learner"]["name"]) == ("few-shot", learner)
    assert config["data"]["images_sha256"] == protocol["images_sha256"]
    steps = [row["step"] for row in read_metrics(folder) if "train_loss" in row]
    assert steps == [2, 4]
    assert list((folder / "tensorboard").iterdir())
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    best, *others = checkpoints
    assert best.startswith("best_0000000")
    assert others == ["step_00000002", "step_00000004"]
    pictures = {"learning_curve", "episode", "risk_coverage"}
    if takes_steps or learner == "prototypical":  # steps or prototypes to show
        pictures.add("adaptation")
    assert {path.stem for path in folder.glob("*.png")} == pictures
    for picture in pictures:
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) >= 200


@pytest.mark.full
def test_the_adaptation_curve_ends_at_the_result(trained):
    # Batch statistics would amplify the rounding errors of two programs.
    results = results_of(trained("few-shot", "maml", "--query-statistics", "none"))
    curve = results["after_inner_steps"]
    assert len(curve["accuracy"]) == results["protocol"]["inner"]["eval_inner_steps"] + 1
    assert curve["accuracy"][-1] == pytest.approx(results["accuracy"])
    assert curve["loss"][-1] == pytest.approx(results["loss"], rel=1e-4)


@pytest.mark.full
def test_closing_line_and_the_same_bits_again(
    trained_images, tiny, images, tmp_path, status, capsys
):
    before = results_of(trained_images("prototypical"))
    capsys.readouterr()
    out = tmp_path / "run"
    assert status("few-shot", *tiny("few-shot", "prototypical"), "--out", out) == 0
    captured = capsys.readouterr()
    line, folder_line = captured.out.splitlines()
    assert line.startswith(f"prototypical · {images.name} · 3-way 1-shot · ")
    assert line.endswith(" % on 6 held-out tasks")
    assert folder_line == f"results, pictures and checkpoints: {out}"
    again = results_of(out)
    for name in ("parameters_sha256", "accuracy", "loss"):
        assert again[name] == before[name]
    # Sixty ways of the preset became as many as there are classes.
    assert again["protocol"]["train_episode"]["ways"] == 6
    assert "6 training classes" in captured.err


# --- images on the host: the same command, streamed -----------------------------------------


@pytest.fixture
def streamed(tiny, status, tmp_path):
    """`streamed(*options)`: the results of a streamed run in `tmp_path / "run"`."""

    def run(*options, folder="run"):
        stream = ["--pipeline", "stream", "--out", tmp_path / folder]
        line = [*tiny("few-shot"), *stream, *options]
        assert status("few-shot", *line) == 0
        return results_of(tmp_path / folder)

    return run


@pytest.mark.slow
def test_a_streamed_run_is_whole_and_can_be_repeated(streamed, status, tmp_path, capsys):
    results = streamed()
    assert results["protocol"]["pipeline"] == "stream"
    assert (tmp_path / "run" / "episode.png").is_file()
    again = streamed(folder="again")
    for name in ("parameters_sha256", "accuracy", "loss"):
        assert again[name] == results[name]
    # Evaluated again it has the same tasks, and others cannot be had.
    assert status("evaluate", tmp_path / "run", "--out", tmp_path / "again.json") == 0
    assert json.loads((tmp_path / "again.json").read_text())["accuracy"] == results["accuracy"]
    capsys.readouterr()
    assert status("evaluate", tmp_path / "run", "--seed", "3") == 1
    assert "leave --seed out" in capsys.readouterr().err


@pytest.mark.slow
def test_devices_share_a_stream(streamed, steady):
    own = steady("few-shot")
    alone, shared = streamed(*own), streamed("--devices", "2", *own, folder="shared")
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "2"])
def test_a_streamed_run_reads_the_very_next_task(
    devices, streamed, tiny, status, tmp_path, monkeypatch
):
    """Dead while it writes step 4 of 6, resumed from step 2: bit-identical to one left alone."""
    from jaxmeta.training import checkpoints

    options = ("--devices", devices, "--steps", "6")
    expected = streamed(*options)
    save, saved = checkpoints.save, []

    def dies(folder, step, *rest, **more):
        if step == 4 and not saved:
            saved.append(step)
            raise OSError("the disk is gone")
        save(folder, step, *rest, **more)

    monkeypatch.setattr(checkpoints, "save", dies)
    folder = tmp_path / "stopped"
    line = [*tiny("few-shot"), "--pipeline", "stream", *options, "--out", folder]
    assert status("few-shot", *line) == 1
    assert status("few-shot", *line, "--resume") == 0
    found = results_of(folder)
    assert found["resumed_from_step"] == 2
    for name in ("parameters_sha256", "evaluated_parameters_sha256", "accuracy", "loss"):
        assert found[name] == expected[name]


def test_images_above_the_budget_are_streamed(images):
    letters = load(str(images), split="6/6/6")
    pixels = sum(part.images.size for part in (letters.train, letters.validation, letters.test))
    experiment = start(find_domain("few-shot"), find_learner("maml"))
    for budget, expected in ((pixels, "device"), (pixels - 1, "stream")):
        small = experiment.changed(
            dataset=str(images), split="6/6/6", ways=3, queries=3, device_budget=budget / 2**30
        ).resolved()
        tasks = small.domain.tasks(small.training, small.learner.needs)
        assert tasks.protocol["pipeline"] == expected
        assert tasks.streamed == (expected == "stream")


EMBEDDING = sorted(name for name in known_learners() if find_learner(name)().needs.embeds)


@pytest.mark.full
@pytest.mark.parametrize(
    "learner",
    [
        name if name == "prototypical" else pytest.param(name, marks=pytest.mark.slow)
        for name in EMBEDDING
    ],
)
def test_statistics_of_training_make_predictions_independent(learner, trained, images):
    """Restored for any test, the learner predicts a query alone as it does among others; with the
    batch's statistics, from the same run, it does not."""
    few = ("--unlabelled", "2") if find_learner(learner)().needs.unlabelled else ()
    folder = trained("few-shot", learner, *few, "--query-statistics", "training")
    protocol = results_of(folder)["protocol"]
    assert (protocol["query_statistics"], protocol["transductive"]) == ("training", False)
    key, shape = jax.random.key(0), restore(folder).example.support.inputs.shape[1:]
    pictures = jax.random.uniform(key, (6, *shape))
    support = Batch(pictures[:3], jnp.arange(3))
    alone = {}
    for statistics in ("training", "batch"):
        learner, meta_params, *_ = restore(folder, query_statistics=statistics)
        adapted = learner.adapt(key, meta_params, support)
        together = learner.predict(adapted, pictures[3:])
        single = jnp.concatenate([learner.predict(adapted, one[None]) for one in pictures[3:]])
        alone[statistics] = np.allclose(single, together, rtol=1e-4, atol=1e-5)
    assert alone == {"training": True, "batch": False}


def test_statistics_of_training_need_an_encoder():
    tasks = start(find_domain("few-shot"), find_learner("maml")).changed(
        query_statistics="training"
    )
    with pytest.raises(ValueError, match="--query-statistics training requires a learner whose"):
        load_experiment(tasks)


def test_views_need_an_encoder():
    tasks = start(find_domain("few-shot"), find_learner("maml")).changed(test_views="shifts")
    with pytest.raises(ValueError, match="--test-views shifts requires a learner whose network"):
        load_experiment(tasks)


@pytest.mark.full
def test_a_run_is_tested_with_several_views_of_an_image(trained, images):
    folder = trained("few-shot", "prototypical", "--query-statistics", "training")
    (learner, meta_params, *_), several = restore(folder), restore(folder, test_views="shifts")
    assert results_of(folder)["protocol"]["test_views"] == "one"
    key, shape = jax.random.key(0), several.example.support.inputs.shape[1:]
    pictures = jax.random.uniform(key, (6, *shape))
    support = Batch(pictures[:3], jnp.arange(3))
    one, five = (
        own.predict(own.adapt(key, meta_params, support), pictures[3:])
        for own in (learner, several.learner)
    )
    assert one.shape == five.shape
    assert np.abs(one - five).max() > 1e-4
    network = ImageNetwork(test_views="shifts")
    params = network.build(None).init(key, pictures)
    embedded = [network.build(None, train=train).apply(params, pictures) for train in (True, False)]
    assert not np.allclose(*embedded)  # training sees one view
    plain = ImageNetwork().build(None, train=True)
    assert np.array_equal(plain.apply(params, pictures), embedded[0])


def test_statistics_of_training_need_the_images_on_the_device(images):
    tasks = start(find_domain("few-shot"), find_learner("prototypical")).changed(
        dataset=str(images), query_statistics="training", pipeline="stream", ways=2
    )
    with pytest.raises(ValueError, match="give --query-statistics group, --pipeline device"):
        load_experiment(tasks)


def test_only_such_a_run_has_statistics_of_training():
    network = ImageNetwork(query_statistics="group")
    with pytest.raises(ValueError, match="has no training statistics"):
        network.evaluation_changes({"query_statistics": "training"})
    assert network.evaluation_changes({"query_statistics": "batch"})
    trained = ImageNetwork(query_statistics="training")
    assert trained.evaluation_changes({"query_statistics": "training"})


@pytest.mark.slow
def test_a_supernet_finds_a_cell_beside_its_weights(trained):
    folder = trained("few-shot", "first-order-maml", "--network", "supernet", "--width", "2")
    results, run = results_of(folder), restore(folder)
    logits = np.asarray(run.meta_params["architecture"])
    assert np.ptp(logits) > 2e-3  # it has learned: its first values are about 1e-3
    assert results["architecture"] == cell_text(logits.argmax(axis=-1))
    found = run.learner.derive(run.meta_params, run.trained.shared)  # pyright: ignore
    np.testing.assert_array_equal(found, logits.argmax(axis=-1))
    mixing = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(results["mixing_weights"], mixing, atol=1e-4)
    assert results["protocol"]["network"] == "supernet, width 2, 1 cell per stage, float32"
    assert (folder / "cell.png").exists()
    # The weights adapt to a task, the architecture does not.
    support = run.example.support  # of zeros
    pictures = jax.random.uniform(jax.random.key(1), support.inputs.shape)
    support = support._replace(inputs=pictures)
    adapted = run.learner.adapt(jax.random.key(0), run.meta_params, support).params
    np.testing.assert_array_equal(adapted["architecture"], logits)
    assert not np.allclose(adapted["head"]["kernel"], run.meta_params["head"]["kernel"])


@pytest.mark.parametrize(
    ("learner", "settings", "message"),
    [
        ("r2d2", {"network": "supernet", "query_statistics": "batch"}, "does not learn an arch"),
        ("maml", {"cells": 2}, "--cells 2 applies only to --network supernet"),
        (
            "maml",
            {"network": "supernet", "query_statistics": "layer"},
            "--query-statistics layer: --network supernet normalises by the batch",
        ),
    ],
)
def test_networks_without_a_supernet(learner, settings, message):
    tasks = start(find_domain("few-shot"), find_learner(learner)).changed(**settings)
    with pytest.raises(ValueError, match=message):
        check(tasks)
        load_experiment(tasks)
