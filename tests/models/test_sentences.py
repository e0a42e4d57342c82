"""Networks of sentences: what is learned, what it starts from, padding, low-rank updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import computed_in, sentence_network
from jaxmeta.models.bert import bert, bert_embeddings, bert_layers, pooled
from jaxmeta.text import BertConfig, Tokens

CONFIG = BertConfig(vocabulary=11, width=8, layers=3, heads=2, hidden=16, positions=6)
IDS = jnp.array([[1, 4, 5, 0], [2, 3, 0, 0]])
MASK = jnp.array([[True, True, True, False], [True, True, False, False]])


@pytest.fixture(scope="module")
def weights():
    params = jax.jit(bert(CONFIG).init)(jax.random.key(0), Tokens(IDS, MASK))
    # Biases and norms start at 0 and 1, which would hide that they are used.
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return treedef.unflatten(
        [
            leaf + 0.2 * jax.random.normal(key, leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
    )


def last_two(weights):
    return {"layers": {number: weights["layers"][number] for number in ("1", "2")}}


def unit(embeddings):
    return 6 * embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def whole_embedding(weights):
    return unit(np.asarray(bert(CONFIG).apply(weights, Tokens(IDS, MASK))))


def test_the_whole_encoder_starts_as_it_was_trained(weights):
    model = sentence_network(CONFIG, weights, adapts="all")
    params = model.init(jax.random.key(0), (IDS, MASK))
    found = model.apply(params, (IDS, MASK))
    np.testing.assert_allclose(found, whole_embedding(weights), atol=1e-5)


def test_the_last_layers_read_the_states_below_them(weights):
    states = jax.jit(lambda w: bert_layers(CONFIG, {"0": w["layers"]["0"]}, _embedded(w), MASK))(
        weights
    )
    model = sentence_network(CONFIG, last_two(weights), adapts="layers")
    params = model.init(jax.random.key(0), (states, MASK))
    assert set(params) == {"layers"} and set(params["layers"]) == {"1", "2"}
    np.testing.assert_allclose(
        model.apply(params, (states, MASK)), whole_embedding(weights), atol=1e-5
    )


def _embedded(weights):
    return bert_embeddings(CONFIG, weights["embeddings"], IDS)


def test_a_head_reads_embeddings_of_any_scale():
    model = sentence_network(CONFIG, (), 3)
    embeddings = jax.random.normal(jax.random.key(0), (4, 8))
    params = model.init(jax.random.key(1), embeddings)
    first = model.apply(params, embeddings)
    np.testing.assert_allclose(model.apply(params, 7 * embeddings), first, rtol=1e-5)
    by_hand = unit(np.asarray(embeddings)) @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(first, by_hand, rtol=1e-5, atol=1e-6)


def test_a_network_of_the_head_starts_as_the_identity():
    model = sentence_network(CONFIG, ())
    embeddings = jax.random.normal(jax.random.key(0), (4, 8))
    found = model.apply(model.init(jax.random.key(1), embeddings), embeddings)
    np.testing.assert_allclose(found, unit(np.asarray(embeddings)), rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_padding_changes_nothing(weights, pooling):
    model = sentence_network(CONFIG, weights, 3, adapts="all", pooling=pooling)
    params = model.init(jax.random.key(0), (IDS, MASK))
    # Other contents of the padding, and more of it.
    other_ids = jnp.pad(jnp.where(MASK, IDS, 9), ((0, 0), (0, 2)), constant_values=7)
    other = (other_ids, jnp.pad(MASK, ((0, 0), (0, 2))))
    np.testing.assert_allclose(
        model.apply(params, other), model.apply(params, (IDS, MASK)), atol=1e-5
    )
    alone = model.apply(params, (IDS[1:, :2], MASK[1:, :2]))
    np.testing.assert_allclose(alone[0], model.apply(params, (IDS, MASK))[1], atol=1e-5)


def test_low_rank_updates_start_from_the_weights_and_learn_few(weights):
    model = sentence_network(CONFIG, weights, 3, adapts="all", rank=2)
    params = model.init(jax.random.key(0), (IDS, MASK))
    assert set(params) == {"layers", "head"}
    # Two factors of 8 × 2 for query and value of three layers, and the head.
    assert sum(map(jnp.size, jax.tree.leaves(params["layers"]))) == 3 * 2 * 2 * 16
    whole = sentence_network(CONFIG, weights, 3, adapts="all")
    same = whole.init(jax.random.key(0), (IDS, MASK)) | {"head": params["head"]}
    np.testing.assert_allclose(
        model.apply(params, (IDS, MASK)), whole.apply(same, (IDS, MASK)), atol=1e-5
    )
    grads = jax.grad(lambda params: model.apply(params, (IDS, MASK)).sum())(params)
    assert float(jnp.abs(grads["layers"]["2"]["value"]["up"]).max()) > 0


def test_dropout_needs_a_key(weights):
    model = sentence_network(CONFIG, weights, adapts="all", dropout=0.5)
    params = model.init(jax.random.key(0), (IDS, MASK))
    plain = model.apply(params, (IDS, MASK))
    np.testing.assert_allclose(plain, whole_embedding(weights), atol=1e-5)
    noisy = [model.apply(params, (IDS, MASK), key=jax.random.key(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.allclose(noisy[0], noisy[2]) and not np.allclose(noisy[0], plain)


def test_half_precision_is_close(weights):
    model = computed_in(sentence_network(CONFIG, weights, adapts="all"), jnp.bfloat16)
    params = model.init(jax.random.key(0), (IDS, MASK))
    found = model.apply(params, (IDS, MASK))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, whole_embedding(weights), atol=0.1)


def test_a_rank_requires_layers():
    with pytest.raises(ValueError, match="rank 2 with adapts 'head'"):
        sentence_network(CONFIG, (), rank=2)
    with pytest.raises(ValueError, match="rank 0"):
        sentence_network(CONFIG, (), adapts="layers", rank=0)


def test_the_mean_of_the_tokens_is_pooled():
    states = jnp.arange(12.0).reshape(1, 3, 4)
    found = pooled(states, jnp.array([[True, True, False]]), "mean")
    np.testing.assert_allclose(found, [[2.0, 3.0, 4.0, 5.0]])
