"""Heads on frozen features, on the command line."""

import json

import numpy as np
import pytest

from jaxmeta.recipes import restore
from jaxmeta.recipes.frozen import drawn_views
from jaxmeta.recipes.results import read_per_task

LEARNERS = ["noise-augmented", pytest.param("vae-augmented", marks=pytest.mark.full)]


@pytest.mark.full
def test_base_statistics_are_part_of_a_run(trained):
    folder = trained("features")
    run = restore(folder)
    assert run.meta_params.means_CD.shape == (6, 144)
    assert run.meta_params.factors_CND.shape == (6, 8, 144)
    # The class means of pixels whose root mean square over the base classes is 1, to the power 1/2.
    assert 0.3 < run.meta_params.means_CD.mean() < 1
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["views_by"] == "distortions"
    assert results["protocol"]["rotations"] == "none"  # whatever the set is used with elsewhere
    assert {*results["tests"]} == {"test", "2-shot"}
    assert results["tests"]["2-shot"]["accuracy"] > 1 / 3


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_other_learners_see_the_same_tasks(learner, trained):
    ours, theirs = (
        read_per_task(trained("features", name) / "per_task.npz") for name in (learner, None)
    )
    assert {name: own.tasks for name, own in ours.items()} == {
        name: own.tasks for name, own in theirs.items()
    }
    assert all(np.isfinite(own.values["loss"]).all() for own in ours.values())


@pytest.mark.full
def test_a_network_that_was_trained_first(trained, tiny, status, tmp_path, capsys):
    network = trained("pretrain")
    options = [*tiny("features"), "--pretrained", network, "--out", tmp_path / "run"]
    assert status("features", *options) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["features_of"] == f"supervised, {network.name}"
    # Another split may have trained on the classes of these tests.
    other = [word if word != "6/6/6" else "7/5/6" for word in map(str, options)]
    assert status("features", *other, "--overwrite") == 1
    assert "was trained on other images or on another split" in capsys.readouterr().err


@pytest.mark.full
def test_a_generator_that_may_have_seen_the_test_classes(trained):
    run = trained("generate")
    own = restore(run).data["images_sha256"]
    assert drawn_views(str(run), own)[1].startswith("vae, ")
    with pytest.raises(ValueError, match="--generator .* was trained on other images"):
        drawn_views(str(run), "of another split")


@pytest.mark.full
def test_features_of_one_image_depend_on_that_image_alone(tiny, status, tmp_path, capsys):
    """A network that normalises by its batch is refused; settings without parameters are seen."""
    known = []
    for number, options in enumerate((["batch"], ["layer"], ["layer", "--test-views", "shifts"])):
        run = tmp_path / f"network-{number}"
        line = [*tiny("few-shot", "prototypical"), "--query-statistics", *options, "--out", run]
        assert status("few-shot", *line) == 0
        line = [*tiny("features"), "--pretrained", run, "--out", tmp_path / f"run-{number}"]
        assert status("features", *line) == (1 if options == ["batch"] else 0)
        if options == ["batch"]:
            assert "normalises by statistics of several images (batch)" in capsys.readouterr().err
        else:
            config = json.loads((tmp_path / f"run-{number}" / "config.json").read_text())
            known.append(config["data"]["features_of"])
    assert known[0] != known[1]
