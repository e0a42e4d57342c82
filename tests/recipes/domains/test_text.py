"""Few-shot classification of sentences: end to end, with a random BERT, in seconds."""

import json

import numpy as np
import pytest

from jaxmeta.data.text import load_encoder
from jaxmeta.data.text._corpus import read_queries
from jaxmeta.recipes import restore
from jaxmeta.recipes.sentences import SentenceNetwork, Sentences, frozen_features


@pytest.fixture
def line(tiny, tmp_path):
    """`line(learner, *options)`: the arguments of a run."""

    def arguments(learner, *options):
        return [*tiny("text", learner), *options, "--out", tmp_path / "run"]

    return arguments


def results_of(tmp_path):
    return json.loads((tmp_path / "run" / "results.json").read_text())


@pytest.mark.full
def test_a_run_is_compared_with_frozen_embeddings(line, tmp_path, status, capsys):
    options = ("--adapts", "head", "--outer-rate", "1e-8", "--distance", "cosine")
    assert status("text", *line("prototypical", *options, "--eval-tasks", "40")) == 0
    results = results_of(tmp_path)
    rows = results["frozen"]["test"]
    assert set(rows) == {
        "prototypes of frozen embeddings",
        "logistic regression on frozen embeddings",
    }
    # The network starts as the identity, so that a rate of almost zero changes no prediction.
    same = rows["prototypes of frozen embeddings"]
    assert same["accuracy"] == pytest.approx(results["accuracy"])
    assert same["learned_minus_this"] == same["learned_minus_this_ci95"] == 0
    assert results["accuracy"] > 0.5  # of three classes, each with a letter of its own
    assert "logistic regression on frozen embeddings: " in capsys.readouterr().out
    protocol = results["protocol"]
    assert protocol["query_statistics"] == "none" and protocol["encoder"] == "tiny-bert"
    assert protocol["adapts"] == "a linear map of the embeddings"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "adapts"),
    [
        *((name, "layers") for name in ("relation", "multi-task")),
        *(("first-order-maml", "head"), ("prototypical", "all")),
    ],
)
def test_learners_of_every_family_run(learner, adapts, line, tmp_path, status):
    assert status("text", *line(learner, "--adapts", adapts)) == 0
    assert 0 <= results_of(tmp_path)["accuracy"] <= 1


@pytest.mark.full
@pytest.mark.parametrize("steps", [0, 2])
def test_a_curve_of_adaptation_has_steps(steps, line, tmp_path, status):
    options = ["--eval-inner-steps", str(steps), "--new-head", "prototypes"]
    assert status("text", *line("multi-task", *options)) == 0
    assert (tmp_path / "run" / "adaptation.png").exists() == (steps > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "learner",
    [
        *("r2d2", "reptile", "cavia", "anil", "conditional-neural-process"),
        *("matching", "proto-maml", "maml", "boil", "meta-sgd", "snail", "meta-curvature"),
        *("siamese", "maml-plus-plus", "meta-lstm", "imaml", "sparse-maml", "mann"),
    ],
)
def test_the_other_learners_run(learner, line, tmp_path, status):
    assert status("text", *line(learner)) == 0
    assert 0 <= results_of(tmp_path)["accuracy"] <= 1


@pytest.mark.full
def test_updates_of_low_rank_are_all_that_a_checkpoint_holds(line, tmp_path, status):
    assert status("text", *line("prototypical", "--adapts", "all", "--rank", "1")) == 0
    params = restore(tmp_path / "run").meta_params["encoder"]
    assert set(params) == {"layers"}
    assert set(params["layers"]["0"]) == {"query", "value"}


@pytest.mark.slow
def test_a_control_is_at_chance(line, tmp_path, status):
    options = ("--shuffle-labels", "--eval-tasks", "300", "--steps", "2")
    assert status("text", *line("prototypical", *options)) == 0
    results = results_of(tmp_path)
    assert abs(results["accuracy"] - 1 / 3) < 4 * results["accuracy_ci95"] / 1.96


@pytest.mark.full
def test_sentences_of_the_user_are_predicted(trained, tmp_path, status, capsys):
    run = trained("text")
    support, query = tmp_path / "support.tsv", tmp_path / "query.txt"
    support.write_text("sad\ta a b\nglad\tc c d\nsad\ta b b\nangry\te f\n")
    query.write_text("a b\nc d, c\n")
    out = tmp_path / "out.csv"
    line = (run, "--support", support, "--query", query, "--out", out)
    assert status("predict", *line) == 0
    printed = capsys.readouterr().out
    assert "sentence" in printed and "image" not in printed
    header, *rows = out.read_text().splitlines()
    assert header == '"sentence","class","probability"'
    assert len(rows) == 2 and rows[1].startswith('"c d, c",')


@pytest.mark.full
def test_a_prediction_does_not_depend_on_its_neighbours(trained, tmp_path, status):
    run = trained("text")
    support = tmp_path / "support.tsv"
    support.write_text("sad\ta a b\nglad\tc c d\n")
    found = []
    for number, others in enumerate(["", "e f g h i j k l m n o p\nq\n"]):
        query, out = tmp_path / f"{number}.txt", tmp_path / f"{number}.csv"
        query.write_text("a b\n" + others)
        assert status("predict", run, "--support", support, "--query", query, "--out", out) == 0
        found.append(out.read_text().splitlines()[1])
    assert found[0].rpartition(",")[0] == found[1].rpartition(",")[0]
    one, other = (float(row.rpartition(",")[2]) for row in found)
    assert one == pytest.approx(other, abs=1e-5)


def test_known_classes_of_queries_are_read(trained, tmp_path, bert_folder):
    run = restore(trained("text"))
    support, query = tmp_path / "support.tsv", tmp_path / "query.tsv"
    support.write_text("sad\ta a b\nglad\tc c d\n")
    query.write_text("glad\tc d\nsad\tb\n")
    given = run.experiment.domain.read(run.data, support, query, None)
    assert given.names == ["sad", "glad"] and given.truth == ("glad", "sad")
    assert given.rows == ["c d", "b"]


def test_a_header_names_the_columns_of_queries(tmp_path):
    path = tmp_path / "query.csv"
    path.write_text('text,label\n"c, d",glad\nb,sad\n')
    assert read_queries(path, ["sad", "glad"]) == (["c, d", "b"], ["glad", "sad"])
    path.write_text("text,label\nb,bored\n")
    with pytest.raises(ValueError, match="has the label bored, which the support does not have"):
        read_queries(path, ["sad", "glad"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--adapts", "head", "--rank", "2"), "--rank 2 requires --adapts layers or all"),
        (("--layers", "3"), "--layers 3: the encoder has 2"),
        (("--tokens", "17"), "--tokens 17: the encoder tiny-bert reads at most 16"),
        (("--dataset", "banking78"), "unknown dataset 'banking78'"),
        (("--split", "7/6/6"), "the split 7/6/6 has 19 classes, but there are 18"),
        (("--ways", "7"), "7-way tasks require 7 classes"),
        (("--encoder", "nowhere"), "nowhere has no config.json"),
    ],
)
def test_mistakes_are_named(options, message, line, status, capsys):
    assert status("text", *line("prototypical", *options)) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_learners_of_images_are_refused(line, status, capsys):
    assert status("text", *line("meta-transfer")) == 1
    assert "does not support sentences" in " ".join(capsys.readouterr().err.split())


# --- features -------------------------------------------------------------------------------


def test_features_are_computed_once(bert_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    encoder = load_encoder(bert_folder)
    texts = [" ".join("abcdefgh"[: number % 7 + 1]) for number in range(70)]
    options = {"layers": 1, "pooling": "mean"}
    first = frozen_features(encoder, texts, 8, **options)
    calls = []
    monkeypatch.setattr(
        "jaxmeta.recipes.sentences._encoded", lambda *given: calls.append(given) or {}
    )
    again = frozen_features(encoder, texts, 8, **options)
    np.testing.assert_array_equal(first.embeddings, again.embeddings)
    np.testing.assert_array_equal(first.inputs.values, again.inputs.values)
    assert not calls
    with pytest.raises(KeyError):  # another sentence, another file
        frozen_features(encoder, [*texts[:-1], "t"], 8, **options)
    assert len(calls) == 1


def test_embeddings_do_not_depend_on_the_batch(bert_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    encoder = load_encoder(bert_folder)
    texts = [" ".join("abcdefgh"[: number % 7 + 1]) for number in range(70)]
    options = {"layers": 2, "pooling": "first"}
    together = frozen_features(encoder, texts, 8, **options).embeddings
    for row in (0, 6, 69):
        alone = frozen_features(encoder, [texts[row]], 8, **options).embeddings
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


def test_settings_describe_what_is_learned(bert_folder):
    config = load_encoder(bert_folder).config
    assert SentenceNetwork().described(config) == "a linear map of the embeddings"
    some = SentenceNetwork(adapts="layers", layers=1, rank=4, dropout=0.1)
    assert some.described(config) == (
        "the last 1 of 2 layers, by updates of rank 4, mean pooling, dropout 0.1, float32"
    )
    assert Sentences().evaluation_changes({"dataset": "hwu64"})["split"] is None
