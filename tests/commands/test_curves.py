"""Curves of several runs in one picture."""

import json

import numpy as np
import pytest

from jaxmeta.commands.curves import curve_of


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
    assert "has train_loss, validation_return" in capsys.readouterr().err
    assert status("curves", tmp_path / "none", "--out", tmp_path / "a.png") == 1
    assert "has no metrics.jsonl; give the folder of a run" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
