"""Few-shot sentiment: end to end, with a random BERT and reviews of letters."""

import json

import numpy as np
import pytest

from jaxmeta.data.text import load_arsc
from jaxmeta.recipes import restore


@pytest.fixture
def line(tiny, tmp_path):
    """`line(learner, *options)`: the arguments of a run."""

    def arguments(learner, *options):
        return [*tiny("sentiment", learner), *options, "--out", tmp_path / "run"]

    return arguments


@pytest.mark.full
def test_a_run_is_compared_with_frozen_embeddings(line, reviews, tmp_path, status, capsys):
    options = ("--adapts", "head", "--outer-rate", "1e-8", "--distance", "cosine")
    assert status("sentiment", *line("prototypical", *options)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = results["frozen"]["test"]
    assert set(rows) == {
        "prototypes of frozen embeddings",
        "logistic regression on frozen embeddings",
        "the more frequent label of each query",
    }
    # The network starts as the identity, so that a rate of almost zero changes no prediction.
    same = rows["prototypes of frozen embeddings"]
    assert same["accuracy"] == pytest.approx(results["accuracy"])
    assert same["learned_minus_this"] == same["learned_minus_this_ci95"] == 0
    shares = np.array([np.mean(task.test.labels) for task in load_arsc(reviews).test])
    majority = rows["the more frequent label of each query"]
    assert majority["accuracy"] == pytest.approx(np.maximum(shares, 1 - shares).mean())
    assert results["num_tasks"] == len(shares)
    assert "the more frequent label of each query: " in capsys.readouterr().out
    protocol = results["protocol"]
    assert protocol["tasks"] == {"train": 6, "validation": 6, "test": 6}
    assert protocol["test_tasks"][0] == "dvd.t2" and protocol["reviews_per_task"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["relation", "anil", "snail", "first-order-maml"])
def test_other_learners_run(learner, line, tmp_path, status):
    assert status("sentiment", *line(learner)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 <= results["accuracy"] <= 1


@pytest.mark.full
def test_reviews_of_the_user_have_the_labels_of_the_tasks(trained, tmp_path):
    run = restore(trained("sentiment"))
    support, query = tmp_path / "support.tsv", tmp_path / "query.tsv"
    support.write_text("positive\ta a c\nnegative\tb b d\n")
    query.write_text("positive\ta c\nnegative\tb\n")
    given = run.experiment.domain.read(run.data, support, query, None)
    assert given.names == ["negative", "positive"]
    assert given.support.targets.tolist() == [1, 0]
    assert given.truth == ("positive", "negative")
    support.write_text("good\ta a c\nbad\tb b d\n")
    with pytest.raises(ValueError, match="labels good, bad; name them negative and positive"):
        run.experiment.domain.read(run.data, support, query, None)


@pytest.mark.parametrize(
    ("learner", "options", "message"),
    [
        ("prototypical", ("--shots", "6"), "require 8 reviews of each label, but no task has more"),
        ("prototypical", ("--tokens", "17"), "--tokens 17: the encoder tiny-bert reads at most"),
        ("prototypical", ("--missing", "dvd"), "'dvd' is no kind of product of the training tasks"),
        ("prototypical", ("--dataset", "nowhere"), "nowhere has no workspace.filtered.list"),
        ("multi-task", (), "does not support tasks of reviews"),
        ("meta-transfer", (), "does not support tasks of reviews"),
    ],
)
def test_mistakes_are_named(learner, options, message, line, status, capsys):
    assert status("sentiment", *line(learner, *options)) == 1
    assert message in " ".join(capsys.readouterr().err.split())
