"""The speed of the text encoder: its peers compute the same, and the figures are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import text_peers
from experiments.text_speed import TextSpeed, measure
from jaxmeta import cross_entropy, files
from jaxmeta.data.text import Tokens, load_encoder
from jaxmeta.models.bert import bert, bert_layers, pooled


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is for comparison only")


def test_the_peer_computes_the_same_vectors(torch, bert_folder):
    encoder = load_encoder(bert_folder)
    ids, mask = encoder.tokenise(["a b c", "d"], 6)
    found = text_peers.plain_forward(encoder.config, encoder.weights)(
        torch.from_numpy(ids).long(), torch.from_numpy(mask)
    )
    expected = bert(encoder.config).apply(
        encoder.weights, Tokens(jnp.asarray(ids), jnp.asarray(mask))
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_the_peer_computes_the_same_meta_gradient(torch, bert_folder):
    encoder, rng = load_encoder(bert_folder), np.random.default_rng(0)
    head = {
        "kernel": rng.normal(0, 0.3, (8, 3)).astype(np.float32),
        "bias": np.zeros(3, np.float32),
    }
    params = {"layers": encoder.weights["layers"], "head": head}
    states = rng.normal(0, 1, (2, 3, 4, 8)).astype(np.float32)
    mask = np.array([[True, True, True, False]] * 3)
    targets = np.array([0, 2, 1])

    def loss(params, states):
        states = bert_layers(encoder.config, params["layers"], states, jnp.asarray(mask))
        vectors = pooled(states, jnp.asarray(mask))
        logits = vectors @ params["head"]["kernel"] + params["head"]["bias"][None]
        return cross_entropy(logits, jnp.asarray(targets))[0]

    slope = jax.jit(jax.value_and_grad(loss))
    _, grads = slope(params, states[0])
    adapted = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    expected_loss, expected = slope(adapted, states[1])
    step = text_peers.first_order_maml(
        encoder.config, text_peers.tensors(params), steps=1, inner_rate=0.1
    )
    given = (torch.from_numpy(mask), torch.from_numpy(targets))
    value, found = step([(torch.from_numpy(own), *given) for own in states])
    np.testing.assert_allclose(float(value), expected_loss, rtol=1e-4)
    for own, other in zip(found, text_peers.leaves(expected), strict=True):
        own = own.numpy().T if own.ndim == 2 else own.numpy()
        np.testing.assert_allclose(own, other, atol=2e-4)


@pytest.mark.slow
def test_the_figures_of_a_machine(bert_folder, tmp_path):
    out = tmp_path / "text.json"
    options = TextSpeed(
        batches=(2,), tokens=8, encoder=bert_folder, rounds=1, seconds=0.001, out=out
    )
    found = measure(options)
    assert files.read_json(out)["workloads"] == found["workloads"]
    for rows in found["workloads"].values():
        assert rows["jaxmeta"]["ratio"] == 1
        assert all(row["per_second"] > 0 for row in rows.values())
