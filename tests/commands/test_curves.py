"""Curves of several runs in one picture."""

import json

import numpy as np
import pytest

from jaxmeta.commands.curves import curve_of, curves_of_tests


@pytest.fixture
def written(tmp_path):
    """`written(name, {step: value})` writes the metrics of a run; its folder."""

    def write(name, values):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rows = [{"step": step, "time": 1.0, "train_loss": 0.0} for step in (1, 2)]
        rows += [{"step": s, "time": 1.0, "validation_return": v} for s, v in values.items()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return write


def test_seeds_share_their_steps(written, tmp_path):
    written("many/seed_0", {10: 1.0, 20: 2.0, 30: 3.0})
    written("many/seed_1", {10: 3.0, 20: 6.0})
    curve = curve_of(tmp_path / "many", "validation_return")
    assert curve.steps.tolist() == [10, 20]
    np.testing.assert_array_equal(curve.values, [[1, 2], [3, 6]])


def test_values_that_are_not_finite_are_gaps_and_empty_folders_no_seeds(written, tmp_path):
    written("many/seed_0", {10: None, 20: 2.0})
    (tmp_path / "many/seed_1").mkdir()
    curve = curve_of(tmp_path / "many", "validation_return")
    np.testing.assert_array_equal(curve.values, [[np.nan, 2]])


def test_a_picture_of_two_runs(written, tmp_path, status, capsys):
    written("many/seed_0", {10: 1.0, 20: 2.0})
    written("many/seed_1", {10: 3.0, 20: 6.0})
    other, out = written("other", {10: 0.0, 20: -1.0}), tmp_path / "curves.png"
    options = ["--metric", "validation_return", "--out", out]
    assert status("curves", tmp_path / "many", other, *options) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines() == [
        "many: validation return 4 at step 20, mean of 2 seeds",
        "other: validation return -1 at step 20",
    ]


def test_what_cannot_be_drawn(written, tmp_path, status, capsys):
    run = written("run", {10: 1.0})
    assert (
        status("curves", run, "--metric", "validation_accuracy", "--out", tmp_path / "a.png") == 1
    )
    assert "choose from train_loss, validation_return" in capsys.readouterr().err
    assert status("curves", tmp_path / "none", "--out", tmp_path / "a.png") == 1
    assert "has no metrics.jsonl; give the folder of a run" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


@pytest.fixture
def tested(tmp_path):
    """`tested(name, tests, rivals)` writes the results of a run; its folder."""

    def write(name, tests, rivals=None):
        def rows(found):
            return {test: {"accuracy": own, "accuracy_ci95": 0.01} for test, own in found.items()}

        own = {"figure": "accuracy", "tests": rows(tests)}
        own["rivals"] = {test: rows(found) for test, found in (rivals or {}).items()}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(own))
        return folder

    return write


def test_runs_and_their_rivals_over_tests(tested, tmp_path, status):
    first = tested("oml", {"10 classes": 0.5, "50 classes": 0.25}, {"10 classes": {"mean": 0.75}})
    second = tested("online", {"10 classes": 0.25, "50 classes": 0.125})
    label, curves = curves_of_tests((first, second), None)
    assert label == "accuracy (%)"
    assert curves["oml"] == {"10 classes": (50.0, 1.0), "50 classes": (25.0, 1.0)}
    assert curves["mean, features of oml"] == {"10 classes": (75.0, 1.0)}
    assert list(curves) == ["oml", "mean, features of oml", "online"]
    out = tmp_path / "classes.png"
    assert status("curves", first, second, "--over", "tests", "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_runs_with_other_tests_or_without_the_metric_or_results(tested, tmp_path):
    first, second = tested("a", {"10 classes": 0.5}), tested("b", {"16 examples": 0.5})
    with pytest.raises(ValueError, match="b has 16 examples, but a has 10 classes"):
        curves_of_tests((first, second), None)
    with pytest.raises(ValueError, match="--metric auroc: a has no such metric; choose from acc"):
        curves_of_tests((first,), "auroc")
    with pytest.raises(FileNotFoundError, match="c/results.json is missing"):
        curves_of_tests((tmp_path / "c",), None)
    with pytest.raises(ValueError, match="a has no accuracy by session"):
        curves_of_tests((first,), None, of_sessions=True)


def test_sessions_of_evaluations(tmp_path, status):
    path, out = tmp_path / "fifty.json", tmp_path / "sessions.png"
    own = {"accuracy_session_1": 0.75, "accuracy_session_2": 0.5, "accuracy_session_2_ci95": 0.01}
    path.write_text(json.dumps({"figure": "accuracy", "accuracy_session_1_ci95": 0.02, **own}))
    _, curves = curves_of_tests((path,), None, of_sessions=True)
    assert curves == {"fifty": {"1": (75.0, 2.0), "2": (50.0, 1.0)}}
    assert status("curves", path, "--over", "sessions", "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
