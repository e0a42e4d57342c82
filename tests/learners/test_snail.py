"""SNAIL: the network of the paper, step by step in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import snail

WAYS, FEATURES, FILTERS = 3, 4, 2

AS_THEY_ARE = Model(
    init=lambda key, inputs: {}, apply=lambda params, inputs, *, reference=None, key=None: inputs
)


def linear(params, values):
    return values @ params["kernel"] + params["bias"]


def attention(params, steps):
    """Step by step: every step and those before it, the scores by their own softmax."""
    keys, queries, read = (linear(params[name], steps) for name in ("keys", "queries", "values"))
    found = []
    for now in range(len(steps)):
        scores = keys[: now + 1] @ queries[now] / np.sqrt(keys.shape[1])
        weights = np.exp(scores) / np.exp(scores).sum()
        found.append(np.concatenate([steps[now], weights @ read[: now + 1]]))
    return np.stack(found)


def convolutions(params, steps):
    for layer in range(len(params) // 2):
        found = []
        for now, value in enumerate(steps):
            then = now - 2**layer
            both = np.concatenate([steps[then] if then >= 0 else np.zeros_like(value), value])
            signal = np.tanh(linear(params[f"signal_{layer}"], both))
            gate = 1 / (1 + np.exp(-linear(params[f"gate_{layer}"], both)))
            found.append(np.concatenate([value, signal * gate]))
        steps = np.stack(found)
    return steps


def by_hand(body, steps):
    steps = attention(body["attention_0"], steps)
    steps = convolutions(body["convolutions_0"], steps)
    steps = attention(body["attention_1"], steps)
    steps = convolutions(body["convolutions_1"], steps)
    steps = attention(body["attention_2"], steps)
    return linear(body["head"], steps[-1])


@pytest.mark.full
@pytest.mark.parametrize(("shots", "layers"), [(1, 2), (2, 3)])
def test_each_query_ends_a_sequence_of_its_own(shots, layers, x64):
    size = WAYS * shots
    learner = snail(AS_THEY_ARE, cross_entropy, WAYS, steps=size + 1, filters=FILTERS)
    rng = np.random.default_rng(0)
    support = Batch(rng.normal(size=(size, FEATURES)), jnp.arange(size) % WAYS)
    queries = rng.normal(size=(4, FEATURES))
    key = jax.random.key(0)
    params = jax.jit(learner.init)(key, Task(support, Batch(queries, jnp.zeros(4, int))))
    params = jax.tree.map(lambda value: value + 0.1 * rng.normal(size=value.shape), params)
    body = jax.device_get(params["body"])
    assert len(body["convolutions_0"]) == 2 * layers, "as many as reach back over the support"

    adapted = learner.adapt(key, params, support)
    logits = jax.jit(learner.predict)(adapted, queries)

    labels = np.eye(WAYS)[np.arange(size) % WAYS]
    known = np.concatenate([support.inputs, labels], axis=1)
    for query, found in zip(queries, logits, strict=True):
        last = np.concatenate([query, np.zeros(WAYS)])
        np.testing.assert_allclose(found, by_hand(body, np.vstack([known, last])), rtol=1e-9)


def test_what_is_alike_attends_to_each_other_before_anything_is_learned(x64):
    learner = snail(AS_THEY_ARE, cross_entropy, WAYS, steps=WAYS + 1, filters=FILTERS)
    examples = np.random.default_rng(0).choice([-1.0, 1.0], size=(WAYS, 64))  # all equally long
    support = Batch(examples, jnp.arange(WAYS))
    params = jax.jit(learner.init)(jax.random.key(0), Task(support, support))
    first = jax.device_get(params["body"]["attention_0"])

    known = np.concatenate([examples, np.eye(WAYS)], axis=1)
    asked = np.concatenate([examples, np.zeros((WAYS, WAYS))], axis=1)
    scores = linear(first["queries"], asked) @ linear(first["keys"], known).T
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(WAYS))
