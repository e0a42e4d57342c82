"""Runs on other image sets: the same tasks for all, conversion, ceiling, ranks, calibration."""

import json

import numpy as np
import pytest

from jaxmeta.calibration import Reliability
from jaxmeta.commands import transfer_report, transfer_runs
from jaxmeta.data.images.registry import load_as
from jaxmeta.recipes.results import read_per_task
from jaxmeta.training.estimates import estimate

SMALL = ("--ways", "3", "--queries", "2", "--eval-tasks", "6", "--calibration-tasks", "3")
SMALL += ("--choosing-tasks", "2")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """`scans(classes)`: a colour set in the format of MedMNIST; classes differ in shade."""

    def write(classes, images=24):
        folder = tmp_path_factory.mktemp("scans")
        random, arrays = np.random.default_rng(0), {}
        for part in ("train", "val", "test"):
            labels = np.arange(images) % classes
            shades = labels * 200 // classes
            noise = random.integers(0, 30, (images, 28, 28, 3))
            arrays[f"{part}_images"] = (shades[:, None, None, None] + noise).astype(np.uint8)
            arrays[f"{part}_labels"] = labels[:, None]
        path = folder / f"scans-{classes}.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def moved(status, capsys, tmp_path, monkeypatch):
    """`moved(*arguments)`: status, output lines, errors, the path of the result."""
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))  # without old predictions

    def run(*arguments):
        capsys.readouterr()
        path = tmp_path / "transfer.json"
        found = status("transfer", *SMALL, *arguments, "--out", path)
        captured = capsys.readouterr()
        return found, captured.out.splitlines(), " ".join(captured.err.split()), path

    return run


@pytest.mark.slow
def test_every_run_on_every_set(trained, scans, moved):
    runs = [
        trained("few-shot", "prototypical", "--query-statistics", "none"),
        trained("few-shot"),
        trained("pretrain"),
    ]
    sets = [scans(4), scans(2)]
    status, lines, error, path = moved(*runs, "--to", ",".join(map(str, sets)))
    assert status == 0, error
    result, values = json.loads(path.read_text()), read_per_task(path.with_suffix(".npz"))
    names = ["prototypical", "few-shot", "pretrain, frozen features", "pretrain, fine-tuned"]
    assert [own["name"] for own in result["entrants"]] == names
    images, four, two = result["targets"].values()
    assert (images["classes"], four["classes"], two["classes"]) == (6, 4, 2)
    assert (images["ways"], four["ways"], two["ways"]) == (3, 3, 2)
    cells = {(own["entrant"], own["target"]): own for own in result["cells"]}
    assert len(cells) == 12
    for (entrant, target), cell in cells.items():
        own = values[f"{entrant}/{target}"]
        # The same tasks for all, so that differences are paired.
        assert own.tasks == values[f"prototypical/{target}"].tasks
        for metric in ("accuracy", "auroc", "sensitivity"):
            mean, ci95 = estimate(own.values[metric])
            assert cell[metric] == pytest.approx(mean)
            assert cell[f"{metric}_ci95"] == pytest.approx(ci95)
        ways = 2 if target == "scans-2" else 3
        counts = cell["reliability_before"]["counts"]
        assert sum(counts) == sum(cell["reliability_after"]["counts"]) == 6 * 2 * ways
        assert cell["is_own"] is (target == "images0")
        low, high = cell["calibration_error_after_interval"]
        assert low <= high
    # Shades are easily told apart from the support alone.
    assert cells["pretrain, fine-tuned", "scans-2"]["accuracy"] > 0.8
    at_home = [cells[name, "images0"] for name in names]
    ceiling = max(at_home, key=lambda own: own["accuracy"])
    for cell in at_home:
        assert ("minus_ceiling" in cell) is (cell is not ceiling)
    assert "minus_ceiling" not in cells["few-shot", "scans-4"]  # no run was trained on it
    assert len(result["ranks"]) == 8
    for row in result["ranks"]:
        assert row["change"] == row["rank"] - row["rank_on_source"]
        low, high = row["change_interval"]
        assert -3 <= low <= high <= 3
    assert lines[-1] == f"result: {path}"
    for end in (".png", "-reliability-scans-2.png"):
        assert (path.parent / f"transfer{end}").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_tested(trained, scans, moved, tmp_path):
    run = trained("few-shot", "prototypical", "--query-statistics", "none")
    many = scans(4)
    arrays = dict(np.load(many))
    arrays["test_labels"] = np.zeros((24, 14), np.uint8)
    np.savez(tmp_path / "chest.npz", **arrays)
    for arguments, told in (
        ((run, "--to", tmp_path / "chest.npz"), "14 labels per image"),
        ((run, "--to", "no-such-set"), "unknown dataset 'no-such-set'"),
        ((run, run), "two runs or sets are named prototypical"),
        ((run, "--shots", "40"), "too small for tasks of at least 2 classes, 40 --shots"),
        ((trained("regression"),), "is a run of regression; transfer requires runs of"),
        ((tmp_path / "nowhere",), "nowhere"),
    ):
        status, _, error, path = moved(*arguments)
        assert status == 1
        assert told in error
        assert not path.exists()


@pytest.mark.full
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_frozen_features_with_either_distance(distance, trained, moved, monkeypatch):
    found = transfer_runs.prototypes

    def one(ways, task):
        return {distance: found(ways, task)[distance]}

    monkeypatch.setattr(transfer_runs, "prototypes", one)
    monkeypatch.setattr(transfer_runs, "_fine_tuned", transfer_runs._frozen_features)
    status, _, error, path = moved(trained("pretrain"))
    assert status == 0, error
    result = json.loads(path.read_text())
    assert [own["chosen"] for own in result["entrants"]] == [f"{distance} distance"] * 2
    first, second = result["cells"]
    assert first["accuracy"] == second["accuracy"] >= 1 / 3


@pytest.mark.full
def test_a_head_of_fewer_classes_is_told(trained, moved):
    status, _, error, _ = moved(trained("few-shot"), "--ways", "4")
    assert status == 1
    assert "has one output for each of 3 classes; give --ways 3 or fewer" in error


def test_grey_and_colour_are_converted_whatever_a_set_takes(scans):
    path = scans(4)
    grey = load_as(str(path), image_size=12, channels=1)
    assert grey.test.images.shape == (24, 12, 12, 1)
    assert grey.protocol["channels"] == 1
    letters = load_as("glyphs", image_size=28, channels=3)
    first = load_as("glyphs", image_size=28, channels=1)
    np.testing.assert_array_equal(letters.test.images, first.test.images.repeat(3, axis=3))
    assert letters.protocol["images_sha256"] != first.protocol["images_sha256"]


def test_the_calibration_error_is_that_of_all_predictions():
    random = np.random.default_rng(0)
    probabilities = random.random((5, 40))
    correct = random.random((5, 40)) < 0.5
    bins = np.minimum((probabilities * 10).astype(int), 9)
    one = np.eye(10)[bins]
    sums = Reliability(
        one.sum(axis=1), (one * probabilities[..., None]).sum(1), (one * correct[..., None]).sum(1)
    )
    expected = sum(
        abs(correct[bins == own].sum() - probabilities[bins == own].sum()) for own in range(10)
    )
    found = transfer_report.expected_calibration_error(sums, np.ones((1, 5)))
    assert found[0] == pytest.approx(expected / 200)


def test_ranks_and_their_intervals():
    ranks = transfer_report.ranks_of(np.array([[0.5, 0.7, 0.6], [0.1, 0.1, 0.0]]))
    assert ranks.tolist() == [[3, 1, 2], [1, 1, 3]]
    assert transfer_report._interval(np.repeat([-1, 0, 2], [1, 98, 1])) == [0, 0]
