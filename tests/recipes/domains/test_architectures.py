"""Runs of architecture search: searches of tables, and supernets on small images."""

import json

import jax
import numpy as np
import pytest

from jaxmeta.data.architectures import nasbench_201, row_of
from jaxmeta.recipes import restore
from jaxmeta.recipes.search_spaces import letters

pytestmark = pytest.mark.usefixtures("data_dir")
_DARTS = ("darts", "--images", "digits", "--image-count", "200", "--width", "2")
_DARTS += ("--batch-size", "16", "--steps", "4", "--checkpoint-every", "2", "--chunk", "2")
_ALONE = ("random", "--images", "digits", "--width", "2", "--batch-size", "32")
_ALONE += ("--steps", "10", "--checkpoint-every", "10")


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    "learner",
    ["random", *(pytest.param(own, marks=pytest.mark.full) for own in ("evolution", "metaqnn"))],
)
def test_a_search_reports_the_tabulated_accuracy_of_its_best(learner, status, tmp_path, capsys):
    folder = tmp_path / "run"
    options = [learner, "--steps", "30", "--checkpoint-every", "10", "--out", folder]
    assert status("architectures", *options) == 0
    results, run = results_of(folder), restore(folder)
    found = np.asarray(run.learner.derive(run.meta_params, run.trained.shared))
    table = nasbench_201()
    assert results["architecture"] == table.text(found)
    row = row_of(found, 5)
    assert results["accuracy"] == pytest.approx(table.tests["cifar10"][row])
    assert results["searched_accuracy"] == pytest.approx(table.searched[row])
    assert results["rank"] == 1 + int((table.tests["cifar10"] > table.tests["cifar10"][row]).sum())
    # Validation has the accuracy that the search sees, not that of the test.
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_accuracy"] == pytest.approx(results["searched_accuracy"])
    assert lines[-1]["validation_test_accuracy"] == pytest.approx(results["accuracy"])
    # It is the best of the thirty networks that it saw.
    history = run.trained.shared.history
    rows = [row_of(own, 5) for own in np.asarray(history.architectures)]
    assert len({*rows}) == 30
    assert table.searched[row] == table.searched[rows].max()
    np.testing.assert_allclose(results["accuracies_seen"], table.searched[rows], atol=1e-4)
    assert results["protocol"]["selected_on"].startswith("nothing: the last step")
    assert {"search.png", "cell.png", "networks.png"} <= {path.name for path in folder.iterdir()}
    assert "the best has 94.37 %" in capsys.readouterr().out


def test_the_eight_layers_of_nas_bench_macro(status, tmp_path):
    folder = tmp_path / "run"
    options = ["random", "--space", "nasbench-macro", "--steps", "5", "--out", folder]
    assert status("architectures", *options) == 0
    assert len(results_of(folder)["architecture"]) == 8
    assert not (folder / "cell.png").exists()


@pytest.mark.full
def test_the_network_found_is_trained_alone(status, tmp_path, capsys):
    """After the search, or by an evaluation of it: the same network, images and figure."""
    folder, out = tmp_path / "run", tmp_path / "evaluation.json"
    given = [*_ALONE, "--image-count", "1000"]
    assert status("architectures", *given, "--out", folder) == 0
    results = results_of(folder)
    assert "alone" not in results
    assert status("evaluate", folder, "--alone-steps", "200", "--out", out) == 0
    later = json.loads(out.read_text())
    assert later["architecture"] == results["architecture"]
    alone = later["alone"]
    assert (alone["steps"], alone["test_images"]) == (200, 797)
    assert alone["accuracy"] > 0.5  # chance is 0.1
    assert alone["accuracy_ci95"] == pytest.approx(
        1.96 * np.sqrt(alone["accuracy"] * (1 - alone["accuracy"]) / 796), rel=1e-3
    )
    assert "trained alone for 200 steps" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--relaxation", "gumbel"), ("--differentiation", "first-order")]
)
def test_a_supernet_on_digits(options, status, tmp_path):
    folder = tmp_path / "run"
    assert status("architectures", *_DARTS, *options, "--out", folder) == 0
    results = results_of(folder)
    assert 0.1 <= results["accuracy"] <= 0.95
    assert results["protocol"]["searched"] == "digits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["darts", "--space", "nasbench-macro"], "--space nasbench-macro has no supernet"),
        (["random", "--task-batch", "2"], "random takes one task per step"),
        (
            ["random", "--space", "nasbench-macro", "--target", "cifar100"],
            "applies only to --space nasbench-201",
        ),
        (["evolution", "--population", "5"], "--sample 10 is above --population 5"),
        (["random", "--steps", "20000"], "has at most 15,625 architectures"),
        (["darts", "--largest-skips", "3"], "--largest-skips 3 applies only to --stop skips"),
        (["random", "--space", "letters", "--alone-steps", "5"], "--alone-steps 5 applies only to"),
        (
            [*_ALONE, "--image-count", "1740", "--alone-steps", "5"],
            "--image-count 1740 leaves no digits to test the network found on",
        ),
        ([*_DARTS, "--image-count", "5000"], "--image-count 5000: give from 20 to 1740 images"),
    ],
)
def test_nonsense_is_refused(options, message, status, tmp_path, capsys):
    assert status("architectures", *options, "--out", tmp_path / "run") == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_networks_that_are_trained_on_letters(status, tmp_path):
    folder = tmp_path / "run"
    options = ["metaqnn", "--space", "letters", "--letters", "4", "--network-steps", "5"]
    options += ["--steps", "3", "--checkpoint-every", "1", "--chunk", "1", "--out", folder]
    assert status("architectures", *options) == 0
    results, run = results_of(folder), restore(folder)
    history = run.trained.shared.history
    names = run.learner.derive(run.meta_params, run.trained.shared)
    assert results["architecture"].split()[0].startswith("conv")
    assert len(results["architecture"].split()) == int((np.asarray(names) != 0).sum())
    accuracies = np.asarray(history.accuracies)
    assert (accuracies >= 0).all() and accuracies.max() <= 1
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert next(row["train_epsilon"] for row in rows if "train_epsilon" in row) == 1.0
    # Validation reports the best accuracy that the search has seen.
    seen = [row["validation_accuracy"] for row in rows if "validation_accuracy" in row]
    np.testing.assert_allclose(seen, np.maximum.accumulate(accuracies), rtol=1e-6)


@pytest.mark.slow
def test_a_network_that_sees_letters_learns_them():
    space = letters(6, 80, 0)
    task = space.sources["validation"](jax.random.key(0))
    assert task.support.inputs.shape == (72, 14, 14, 1)
    names = space.space.options
    deep, flat = (
        np.array([names.index(own) for own in layers])
        for layers in (
            ("conv3-32", "pool", "conv3-32", "end", "end"),
            ("conv1-32", "end", "end", "end", "end"),
        )
    )
    accuracy = jax.jit(space.space.accuracy)
    assert float(accuracy(jax.random.key(1), deep, task)) > 0.6
    assert float(accuracy(jax.random.key(1), flat, task)) < 0.5  # it sees single pixels
