"""Words as examples: the states of their tokens, and an objective that knows sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import cross_entropy
from jaxmeta.data.text import load_encoder
from jaxmeta.models.bert import bert_embeddings, bert_layers
from jaxmeta.recipes.words import entity_objective, word_features


@pytest.mark.parametrize("layers", [1, 2])
def test_a_word_is_the_mean_of_its_tokens(bert_folder, layers, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    encoder = load_encoder(bert_folder)
    sentences = [["a", "b-c", "d"], ["\u200d", "e"], ["f", "g", "h", "i", "j"]]
    found = word_features(encoder, sentences, 4, layers=layers)
    assert found.lengths.tolist() == [3, 2, 4] and found.starts.tolist() == [0, 3, 5]
    # One sentence after another, without padding: `b-c` has the tokens 2 to 4.
    chosen = {str(number): encoder.weights["layers"][str(number)] for number in range(layers)}
    parts = [[[1], [2, 3, 4], [5]], [None, [1]], [[1], [2], [3], [4]]]
    for own, start, places in zip(["a b - c d", "e", "f g h i"], found.starts, parts):
        ids, mask = encoder.tokenise([own], len(own.split()) + 2)
        states = bert_embeddings(encoder.config, encoder.weights["embeddings"], jnp.asarray(ids))
        states = bert_layers(encoder.config, chosen, states, jnp.asarray(mask))[0]
        expected = [
            np.zeros(8) if place is None else np.asarray(states)[place].mean(axis=0)
            for place in places
        ]
        np.testing.assert_allclose(found.values[start : start + len(places)], expected, atol=5e-3)


def test_the_objective_ignores_padding_and_finds_spans():
    targets = jnp.array([1, 1, 0, 2, 0, 0])
    mask = jnp.array([True, True, True, True, True, False])
    predicted = jnp.array([1, 1, 0, 1, 0, 1])  # the second sentence: the wrong type
    logits = 5 * jax.nn.one_hot(predicted, 3)
    loss, metrics = entity_objective(3)(logits, targets, mask)
    expected, other = cross_entropy(logits, targets, mask)
    assert loss == expected and metrics["accuracy"] == other["accuracy"] == 0.8
    assert metrics["f1"] == 0.5  # one of two, on both sides
    assert entity_objective(3)(logits, predicted)[1]["f1"] == 1


def test_a_part_of_the_words_has_no_spans():
    logits = jax.nn.one_hot(jnp.array([1, 0, 2, 0]), 3)
    loss, metrics = entity_objective(3)(logits, jnp.array([1, 0, 2, 2]), None)
    assert "f1" not in metrics
    assert metrics["accuracy"] == 0.75 and jnp.isfinite(loss)
