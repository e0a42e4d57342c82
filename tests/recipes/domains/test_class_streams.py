"""Streams of classes: the rivals beside the learner, the rate, settings, a run from scratch."""

import json

import numpy as np
import pytest

from jaxmeta.recipes import find_domain, find_learner, known_learners, settings, start
from jaxmeta.recipes.results import read_per_task

STREAMS = find_domain("class-streams")


def test_the_settings_are_checked():
    assert list(known_learners("class-stream")) == ["anml", "oml", "online"]
    experiment = start(STREAMS, find_learner("oml"))
    settings.check(experiment)
    for changes, message in (
        ({"query_statistics": "batch"}, "--query-statistics batch: a stream has one example at a"),
        ({"lengths": (10, 10)}, r"--lengths 10 10 .* give at least one rate, and lengths that"),
        ({"eval_rates": ()}, "give at least one rate"),
    ):
        with pytest.raises(ValueError, match=message):
            settings.check(experiment.changed(**changes))


def test_only_omniglot_has_a_default_split():
    experiment = start(STREAMS, find_learner("oml"))
    assert experiment.resolved().domain.images.split == "background"
    other = experiment.changed(dataset="glyphs")
    assert other.resolved().domain.images.split is None
    lake = experiment.changed(split="lake")
    assert lake.resolved().domain.images.split == "lake"


@pytest.mark.full
def test_a_run_has_its_rivals_on_the_same_streams(trained):
    folder = trained("class-streams")
    results = json.loads((folder / "results.json").read_text())
    found = read_per_task(folder / "per_task.npz")
    assert list(results["tests"]) == list(results["rivals"]) == ["3 classes", "6 classes"]
    rates = results["protocol"]["eval_rates"]
    for name, rivals in results["rivals"].items():
        own, values = results["tests"][name], found[name].values
        assert own["accuracy"] == pytest.approx(values["accuracy"].mean(), rel=1e-6)
        assert np.isclose(rates, own["rate"]).any()
        assert list(rivals) == ["nearest class mean", "replay"]
        for row in rivals.values():
            lead = own["accuracy"] - row["accuracy"]
            assert row["learned_minus_this"] == pytest.approx(lead, abs=1e-6)
        # The classes of this folder are far apart.
        assert rivals["nearest class mean"]["accuracy"] > 0.9
    assert (folder / "classes.png").exists()


@pytest.mark.full
def test_the_whole_network_learns_from_scratch(tiny, status, tmp_path):
    line = [*tiny("class-streams", "online"), "--from-scratch", "--out", tmp_path / "run"]
    assert status("class-streams", *line) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "rivals" not in results
    assert results["tests"]["3 classes"]["accuracy"] > 1 / 3
