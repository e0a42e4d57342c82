"""BERT: equal to the reference, to loops in NumPy, and to itself whatever the padding holds."""

import math
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, cross_entropy
from jaxmeta.data.text import BertConfig, Tokens, load_encoder
from jaxmeta.learners import maml
from jaxmeta.models import computed_in
from jaxmeta.models.bert import _activation as activation
from jaxmeta.models.bert import (
    bert,
    bert_embeddings,
    bert_layers,
    low_rank,
    pooled,
    with_updates,
)

REFERENCE = Path(__file__).with_name("bert_reference.npz")
SENTENCES = ("a b c", "d", "e f g h i j")


@pytest.fixture(scope="module")
def tiny_bert(bert_folder):
    return load_encoder(bert_folder)


def tokens_of(encoder, sentences=SENTENCES, length=8):
    return Tokens(*map(jnp.asarray, encoder.tokenise(sentences, length)))


def states_of(config, weights, tokens, **dropout):
    states = bert_embeddings(config, weights["embeddings"], tokens.ids)
    return bert_layers(config, weights["layers"], states, tokens.mask, **dropout)


# --- values -------------------------------------------------------------------------------


def test_hidden_states_equal_those_of_transformers(encoder):
    reference = np.load(REFERENCE)
    ids, mask = encoder.tokenise(reference["sentences"].tolist(), reference["ids"].shape[1])
    np.testing.assert_array_equal(ids, reference["ids"])
    np.testing.assert_array_equal(mask, reference["mask"])
    config, weights = encoder.config, encoder.weights
    states = jax.jit(lambda ids: bert_embeddings(config, weights["embeddings"], ids))(ids)
    apply = jax.jit(lambda layer, states: bert_layers(config, {"0": layer}, states, mask))
    for index in range(config.layers + 1):
        valid = np.where(mask[..., None], states, 0)
        np.testing.assert_allclose(valid[..., :8], reference["first"][index], atol=1e-4)
        norms = np.linalg.norm(valid, axis=-1)
        np.testing.assert_allclose(norms, reference["norms"][index], atol=1e-4)
        if index < config.layers:
            states = apply(weights["layers"][str(index)], states)
    np.testing.assert_allclose(pooled(states, mask), reference["means"], atol=1e-4)


def loops(config, weights, ids):
    """The states of one sentence without padding, token by token and head by head."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
    embeddings, width = weights["embeddings"], config.width // config.heads

    def norm(x, params):
        centred = x - x.mean()
        scaled = centred / math.sqrt((centred**2).mean() + config.epsilon)
        return scaled * params["scale"] + params["bias"]

    def linear(x, params):
        return x @ params["kernel"] + params["bias"]

    states = [
        norm(
            embeddings["word"]["embedding"][number]
            + embeddings["position"]["embedding"][place]
            + embeddings["type"]["embedding"][0],
            embeddings["norm"],
        )
        for place, number in enumerate(ids)
    ]
    for index in range(config.layers):
        layer = weights["layers"][str(index)]
        found = []
        for state in states:
            read = []
            for head in range(config.heads):
                own = slice(head * width, (head + 1) * width)
                query = linear(state, layer["query"])[own]
                keys = [linear(other, layer["key"])[own] for other in states]
                values = [linear(other, layer["value"])[own] for other in states]
                powers = [math.exp(query @ key / math.sqrt(width)) for key in keys]
                read.append(sum(p * v for p, v in zip(powers, values)) / sum(powers))
            mixed = norm(state + linear(np.concatenate(read), layer["mixed"]), layer["norm_0"])
            hidden = [
                h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in linear(mixed, layer["hidden"])
            ]
            found.append(norm(mixed + linear(np.array(hidden), layer["output"]), layer["norm_1"]))
        states = found
    return np.stack(states)


def test_states_equal_loops(tiny_bert):
    tokens = tokens_of(tiny_bert)
    config, weights = tiny_bert.config, tiny_bert.weights
    states = jax.jit(lambda tokens: states_of(config, weights, tokens))(tokens)
    for ids, mask, found in zip(*tokens, states):
        expected = loops(config, weights, np.asarray(ids)[np.asarray(mask)])
        np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-5)


def test_activations_are_those_of_the_config():
    x = np.linspace(-4, 4, 33)
    exact = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x]
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    np.testing.assert_allclose(activation("gelu", jnp.asarray(x)), exact, atol=1e-6)
    for name in ("gelu_new", "gelu_pytorch_tanh"):
        expected = x * (1 + np.tanh(inner)) / 2
        np.testing.assert_allclose(activation(name, jnp.asarray(x)), expected, atol=1e-6)
    np.testing.assert_allclose(activation("relu", jnp.asarray(x)), np.maximum(x, 0), atol=1e-7)


def test_a_config_chooses_the_activation(tiny_bert):
    tokens, weights = tokens_of(tiny_bert), tiny_bert.weights
    exact = states_of(tiny_bert.config, weights, tokens)
    tanh = states_of(tiny_bert.config._replace(activation="gelu_new"), weights, tokens)
    assert 1e-6 < jnp.abs(exact - tanh).max() < 1e-2


# --- padding ------------------------------------------------------------------------------


def gradients(encoder):
    """`(tokens) -> (vector of the first sentence, gradients of a function of it)`."""

    def value(weights, tokens):
        vector = pooled(states_of(encoder.config, weights, tokens), tokens.mask)[0]
        return jnp.sin(3 * vector).sum(), vector

    of = jax.jit(jax.grad(value, has_aux=True))
    return lambda tokens: of(encoder.weights, tokens)[::-1]


def test_padding_and_neighbours_change_nothing(tiny_bert):
    measured = gradients(tiny_bert)
    vector, grads = measured(tokens_of(tiny_bert, SENTENCES[:1], 5))
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 0.1
    padded = tokens_of(tiny_bert, SENTENCES, 14)
    filled = padded._replace(ids=jnp.where(padded.mask, padded.ids, 9))  # other contents
    others = tokens_of(tiny_bert, (SENTENCES[0], "q r s t q r s", "t"), 14)
    for tokens in (padded, filled, others):
        other_vector, other_grads = measured(tokens)
        chex.assert_trees_all_close(vector, other_vector, atol=1e-5)
        chex.assert_trees_all_close(grads, other_grads, atol=1e-5)
    # With nothing but padding, the mean is 0 and the gradients are finite.
    vector, grads = measured(padded._replace(mask=padded.mask.at[0].set(False)))
    assert not vector.any()
    chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize("how", ["mean", "first"])
def test_pooling(how):
    states = jnp.array([[[1.0, 2.0], [3.0, 6.0], [jnp.nan, 9.0]]])
    mask = jnp.array([[True, True, False]])
    expected = [[2.0, 4.0]] if how == "mean" else [[1.0, 2.0]]
    assert pooled(states, mask, how).tolist() == expected


# --- parts and wholes ---------------------------------------------------------------------


def test_parts_in_turn_are_the_whole(tiny_bert):
    config, weights = tiny_bert.config, tiny_bert.weights
    tokens = tokens_of(tiny_bert)
    whole = jax.jit(bert(config, pooling="none").apply)(weights, tokens)
    states = bert_embeddings(config, weights["embeddings"], tokens.ids)
    for name in ("0", "1"):
        states = bert_layers(config, {name: weights["layers"][name]}, states, tokens.mask)
    np.testing.assert_allclose(states, whole, atol=1e-5)
    head = {"kernel": jnp.ones((config.width, 3)), "bias": jnp.arange(3.0)}
    outputs = bert(config, 3).apply({**weights, "head": head}, tokens)
    expected = pooled(states, tokens.mask).sum(axis=1, keepdims=True) + jnp.arange(3.0)[None]
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


def test_layers_are_applied_by_number(tiny_bert):
    config, tokens = tiny_bert.config, tokens_of(tiny_bert)
    first, second = tiny_bert.weights["layers"].values()
    states = bert_embeddings(config, tiny_bert.weights["embeddings"], tokens.ids)
    by_number = bert_layers(config, {"10": second, "9": first}, states, tokens.mask)
    expected = bert_layers(config, {"0": first, "1": second}, states, tokens.mask)
    np.testing.assert_allclose(by_number, expected, atol=1e-6)


def test_init_returns_given_weights_and_a_new_head(tiny_bert):
    tokens = tokens_of(tiny_bert)
    model = bert(tiny_bert.config, 4, weights=tiny_bert.weights)
    params = jax.jit(model.init)(jax.random.key(0), tokens)
    chex.assert_trees_all_equal({k: params[k] for k in ("embeddings", "layers")}, tiny_bert.weights)
    assert params["head"]["kernel"].shape == (8, 4)


def test_gradients_equal_finite_differences(tiny_bert, x64):
    config, tokens = tiny_bert.config, tokens_of(tiny_bert)
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tiny_bert.weights)
    flat, unravel = jax.flatten_util.ravel_pytree(weights)

    @jax.jit
    def value(flat):
        vectors = pooled(states_of(config, unravel(flat), tokens), tokens.mask)
        return jnp.sin(vectors).sum()

    grad = jax.jit(jax.grad(value))(flat)
    assert grad.dtype == jnp.float64
    for seed in range(5):
        direction = jax.random.normal(jax.random.key(seed), flat.shape)
        step = 1e-5
        slope = (value(flat + step * direction) - value(flat - step * direction)) / (2 * step)
        np.testing.assert_allclose(grad @ direction, slope, rtol=1e-6, atol=1e-7)


# --- dropout, short types -----------------------------------------------------------------


def test_dropout_needs_a_key(tiny_bert):
    tokens, weights = tokens_of(tiny_bert), tiny_bert.weights
    apply = jax.jit(bert(tiny_bert.config, dropout=0.3).apply)
    plain = jax.jit(bert(tiny_bert.config).apply)(weights, tokens)
    np.testing.assert_allclose(apply(weights, tokens), plain, atol=1e-6)
    one, two = (apply(weights, tokens, key=jax.random.key(seed)) for seed in (0, 1))
    assert jnp.abs(one - two).min(axis=1).max() > 0 and jnp.abs(one - plain).max() > 1e-2
    np.testing.assert_array_equal(one, apply(weights, tokens, key=jax.random.key(0)))
    off = jax.jit(bert(tiny_bert.config).apply)(weights, tokens, key=jax.random.key(0))
    np.testing.assert_allclose(off, plain, atol=1e-6)


def test_dropout_of_a_layer_does_not_depend_on_the_layers_beside_it(tiny_bert):
    config, weights, tokens = tiny_bert.config, tiny_bert.weights, tokens_of(tiny_bert)
    states = bert_embeddings(config, weights["embeddings"], tokens.ids)
    given = {"key": jax.random.key(0), "dropout": 0.5}
    both = bert_layers(config, weights["layers"], states, tokens.mask, **given)
    for name in ("0", "1"):
        states = bert_layers(config, {name: weights["layers"][name]}, states, tokens.mask, **given)
    np.testing.assert_allclose(states, both, atol=1e-5)


def test_embeddings_are_dropped_and_scaled(tiny_bert):
    config, embeddings = tiny_bert.config, tiny_bert.weights["embeddings"]
    ids = tokens_of(tiny_bert).ids
    plain = bert_embeddings(config, embeddings, ids)
    dropped = bert_embeddings(config, embeddings, ids, key=jax.random.key(0), dropout=0.5)
    kept = dropped != 0
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(dropped, jnp.where(kept, 2 * plain, 0), rtol=1e-6)


def test_bfloat16(tiny_bert):
    tokens, weights = tokens_of(tiny_bert), tiny_bert.weights
    model = bert(tiny_bert.config, weights=weights)
    short = jax.jit(computed_in(model, jnp.bfloat16).apply)(weights, tokens)
    assert short.dtype == jnp.float32
    exact = jax.jit(model.apply)(weights, tokens)
    assert 0 < jnp.abs(short - exact).max() < 0.1
    states = bert_embeddings(
        tiny_bert.config,
        jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights["embeddings"]),
        tokens.ids,
    )
    assert states.dtype == jnp.bfloat16


# --- low-rank updates ---------------------------------------------------------------------


def test_new_updates_change_nothing_and_can_learn(tiny_bert):
    config, weights, tokens = tiny_bert.config, tiny_bert.weights, tokens_of(tiny_bert)
    upper = {"1": weights["layers"]["1"]}
    updates = low_rank(jax.random.key(0), upper, 2)
    chex.assert_trees_all_equal(with_updates(weights["layers"], updates), weights["layers"])
    assert updates["1"].keys() == {"query", "value"}

    def value(updates):
        layers = with_updates(weights["layers"], updates)
        states = states_of(config, {**weights, "layers": layers}, tokens)
        return jnp.sin(pooled(states, tokens.mask)).sum()

    grads = jax.jit(jax.grad(value))(updates)["1"]
    for projection in ("query", "value"):
        assert jnp.abs(grads[projection]["up"]).max() > 1e-5
        assert not grads[projection]["down"].any()  # as the other factor is zero


def test_updates_are_products_of_their_factors(tiny_bert):
    layers = tiny_bert.weights["layers"]
    updates = low_rank(jax.random.key(0), layers, 3)
    updates = jax.tree.map(lambda leaf: leaf + 0.5, updates)
    updated = with_updates(layers, updates, scale=2.0)
    for name, layer in layers.items():
        for part, linear in layer.items():
            expected = dict(linear)
            if part in ("query", "value"):
                down, up = updates[name][part]["down"], updates[name][part]["up"]
                expected["kernel"] = linear["kernel"] + 2 * np.asarray(down) @ np.asarray(up)
            chex.assert_trees_all_close(updated[name][part], expected, atol=1e-5)


# --- in a learner, and errors -------------------------------------------------------------


@pytest.mark.full
def test_maml_adapts_a_bert(save_bert, tmp_path):
    """Sentences with an `a` against those with a `b`; the last example is padding."""
    tiny_bert = load_encoder(save_bert(tmp_path, layers=1))
    tokens = tokens_of(tiny_bert, ["c a d", "e b f", "a g", "b h", "i j"])
    labels, mask = jnp.array([0, 1, 0, 1, 7]), jnp.array([True, True, True, True, False])
    support = Batch(tokens, labels, mask)
    model = bert(tiny_bert.config, 2, weights=tiny_bert.weights)
    learner = maml(model, cross_entropy, optax.adam(0.03), 30)
    task = Task(support, support)
    params = jax.jit(learner.init)(jax.random.key(0), task)
    adapted = jax.jit(learner.adapt)(jax.random.key(1), params, support)

    def loss(theta):
        return float(cross_entropy(model.apply(theta, tokens), labels % 2, mask)[0])

    assert loss(adapted.params) < 0.5 * loss(params)


def test_too_many_tokens(tiny_bert):
    ids = jnp.zeros((2, 17), jnp.int32)
    with pytest.raises(ValueError, match="sentences of 17 tokens; this BERT reads at most 16"):
        bert_embeddings(tiny_bert.config, tiny_bert.weights["embeddings"], ids)
    with pytest.raises(ValueError, match="sentences of 17 tokens"):
        bert(tiny_bert.config).apply(tiny_bert.weights, Tokens(ids, ids == 0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda config: bert(config, pooling="max"), "unknown pooling 'max'"),
        (lambda config: bert(config, dropout=1.0), "the dropout is 1.0; give a fraction"),
        (lambda config: bert(config._replace(heads=3)), "a width of 8 and 3 heads"),
        (
            lambda config: pooled(jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool), "max"),
            "pooling 'max'",
        ),
        (lambda config: low_rank(jax.random.key(0), {}, 0), "the rank is 0; give at least 1"),
        (lambda config: with_updates({"1": {}}, {"0": {}}), "updates of layer 0, but .* are 1"),
    ],
)
def test_errors_name_the_value(build, message):
    with pytest.raises(ValueError, match=message):
        build(BertConfig(vocabulary=24, width=8, layers=2, heads=2, hidden=16))
