"""The domain of streams: rules beside the learner, detection, predictions of a user's stream."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmeta.commands.predict import Predict, predict_with
from jaxmeta.recipes import find_domain, find_learner, known_learners, settings, start
from jaxmeta.recipes.results import read_per_task
from jaxmeta.recipes.streams_report import (
    Streamed,
    best_window,
    detection,
    rule_densities,
    since_switch,
    starts_of,
)

STREAMS = find_domain("streams")
# Two streams of 6, the first with a switch at 2 and at 5.
SWITCHES = np.array([[False, False, True, False, False, True], [False] * 6])


def certain(starts: list[list[int]]) -> np.ndarray:
    """The belief that is sure of these beginnings of the regime."""
    run_length = np.arange(6) - np.array(starts)
    return np.eye(7)[run_length]


def by_length() -> np.ndarray:
    """A log-density that tells its stream, example and run length."""
    stream, step, length = np.ogrid[:2, :6, :7]
    return 100.0 * stream + 10 * step + length


def test_rules_choose_the_examples():
    found = Streamed(np.zeros((2, 6)), by_length(), certain([[0] * 6] * 2), SWITCHES)
    rules = rule_densities(found, window=2)
    assert list(rules) == ["known switches", "last 2", "all examples", "no adaptation"]
    assert (rules["known switches"][0] % 10).tolist() == [0, 1, 0, 1, 2, 0]
    assert (rules["last 2"][1] % 10).tolist() == [0, 1, 2, 2, 2, 2]
    assert (rules["all examples"][0] % 10).tolist() == [0, 1, 2, 3, 4, 5]
    assert rules["no adaptation"][1].tolist() == [100, 110, 120, 130, 140, 150]
    assert "known switches" not in rule_densities(found._replace(switches=None), window=2)


def test_the_best_window_has_the_highest_density():
    densities = np.zeros((2, 6, 7))
    densities[:, :, 3] = 1.0
    assert best_window(densities) == 3
    assert best_window(-by_length()) == 1


def test_detection_by_hand():
    assert starts_of(SWITCHES)[0].tolist() == [0, 0, 2, 2, 2, 5]
    # Noticed one example late; the second switch never. A wrong alarm of two examples.
    belief = certain([[0, 0, 0, 2, 2, 2], [0, 0, 0, 0, 4, 4]])
    found = detection(belief, SWITCHES, tolerance=0)
    assert (found["switches"], found["detected"]) == (2, 0.5)
    assert found["false_alarms"] == pytest.approx(100 / 6 / 2)
    assert "delay" not in found  # of a single one there is no interval
    sure = detection(certain([[0, 0, 2, 2, 2, 5], [0] * 6]), SWITCHES, tolerance=0)
    assert (sure["delay"], sure["detected"], sure["false_alarms"]) == (0, 1, 0)
    # A beginning near the switch counts as right, and is no false alarm.
    near = certain([[0, 0, 1, 1, 1, 4], [0, 0, 2, 2, 2, 2]])
    assert detection(near, SWITCHES, tolerance=2)["detected"] == 1
    assert detection(near, SWITCHES, tolerance=2)["false_alarms"] == 0


def test_losses_since_a_switch():
    losses = np.arange(12.0).reshape(2, 6)
    assert since_switch(losses, SWITCHES)[:4] == [(2 + 5) / 2, 3, 4, None]


def test_the_settings_are_checked():
    assert list(known_learners("stream")) == ["moca", "sliding-window"]
    with pytest.raises(ValueError, match="--noise 0.5 applies only to --task sinusoids"):
        settings.check(start(STREAMS, find_learner("moca")).changed(task="stocks", noise=0.5))
    stocks: Any = start(STREAMS, find_learner("moca")).changed(task="stocks").domain
    with pytest.raises(ValueError, match="predict does not support runs of --task stocks"):
        stocks.read({}, Path("stream.csv"), Path("next.csv"), None)
    with pytest.raises(ValueError, match=r"hazard 0.0; give 0 < hazard < 1, or learns_hazard"):
        settings.check(start(STREAMS, find_learner("moca")).changed(hazard=0.0))
    settings.check(start(STREAMS, find_learner("moca")).changed(hazard=0.0, learns_hazard=False))


@pytest.mark.full
def test_a_run_has_the_rules_and_predicts_the_next_example(trained, tmp_path, capsys):
    folder = trained("streams")
    results = json.loads((folder / "results.json").read_text())
    rows, losses = results["rules"], read_per_task(folder / "per_task.npz")["test"].values["loss"]
    # Two ways to the same figure: the learner's loss, and the report's.
    assert rows["learned"]["loss"] == pytest.approx(losses.mean(), rel=1e-4)
    for name in ("known switches", "all examples", "no adaptation", f"last {results['window']}"):
        lead = rows["learned"]["loss"] - rows[name]["loss"]
        assert rows[name]["learned_minus_this"] == pytest.approx(lead, rel=1e-6, abs=1e-6)
    assert 0 < results["hazard"] < 1
    assert {"belief.png", "since-switch.png"} <= {path.name for path in folder.iterdir()}
    stream, following = tmp_path / "stream.csv", tmp_path / "next.csv"
    stream.write_text("".join(f"{x},{x / 2}\n" for x in range(5)))
    following.write_text("1\n2\n")
    predict_with(Predict(folder, stream, following, out=tmp_path / "out.csv"))
    head, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert head.replace('"', "") == "input,mean,std"
    assert len(lines) == 2


@pytest.mark.full
def test_a_window_runs_without_the_rules(tiny, status, tmp_path):
    line = [*tiny("streams", "sliding-window"), "--window", "3", "--out", tmp_path / "run"]
    assert status("streams", *line) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "rules" not in results
