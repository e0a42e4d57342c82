"""Prototypical networks worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import prototypical
from jaxmeta.models import mlp

KEY = jax.random.key(0)
DOUBLING = Model(  # an encoder one can compute in the head: x to 2 x
    init=lambda key, inputs: {"scale": jnp.asarray(2.0)},
    apply=lambda params, inputs, *, reference=None, key=None: params["scale"] * inputs,
)
SUPPORT = Batch(
    jnp.array([[0.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 1.0]]),
    jnp.array([0, 1, 1, 2], jnp.int32),
)
QUERY = Batch(jnp.array([[1.0, 1.0], [0.0, 0.0]]), jnp.array([1, 0], jnp.int32))


def test_prototypes_logits_and_loss_by_hand():
    learner = prototypical(DOUBLING, cross_entropy, ways=3)
    meta_params = learner.init(KEY, Task(SUPPORT, QUERY))
    assert meta_params == {"encoder": {"scale": 2.0}}
    adapted = learner.adapt(KEY, meta_params, SUPPORT)
    # Embedded, class 1 has (2, 0) and (6, 8).
    np.testing.assert_allclose(adapted.prototypes_WD, [[0, 0], [4, 4], [0, 2]])
    # From (2, 2): 4 + 4, 4 + 4, 4 + 0; from (0, 0): 0, 16 + 16, 0 + 4.
    logits = np.array([[-8.0, -8.0, -4.0], [0.0, -32.0, -4.0]])
    np.testing.assert_allclose(learner.predict(adapted, QUERY.inputs), logits, atol=1e-5)
    loss, info = learner.loss(KEY, meta_params, Task(SUPPORT, QUERY))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(probabilities[[0, 1], [1, 0]]).mean(), rtol=1e-6)
    assert info.metrics["accuracy"] == 0.5


def test_the_gradient_by_hand():
    """Two classes at 0 and 1, a query at 1: logits −s² · (1, 0), loss log(1 + e^(−s²))."""
    learner = prototypical(DOUBLING, cross_entropy, ways=2)
    support = Batch(jnp.array([[0.0], [1.0]]), jnp.array([0, 1], jnp.int32))
    query = Batch(jnp.array([[1.0]]), jnp.array([1], jnp.int32))
    meta_params = {"encoder": {"scale": jnp.asarray(0.7)}}
    grads = jax.grad(lambda p: learner.loss(KEY, p, Task(support, query))[0])(meta_params)
    expected = -2 * 0.7 / (1 + np.exp(0.7**2))
    np.testing.assert_allclose(grads["encoder"]["scale"], expected, rtol=1e-5)


def test_mahalanobis_by_hand(x64):
    learner = prototypical(DOUBLING, cross_entropy, ways=2, distance="mahalanobis")
    support = Batch(
        jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]),
        jnp.array([0, 0, 1, 1]),
        jnp.array([True, True, True, False]),
    )
    adapted = learner.adapt(KEY, {"encoder": {"scale": 1.0}}, support)
    # The mean of all is (1/3, 2/3). The covariance of class 1, with one example, is 0. λ is 2/3 and
    # 1/2.
    of_all = np.array([[1 / 3, -1 / 3], [-1 / 3, 4 / 3]])
    of_zero = np.array([[0.5, 0], [0, 0]])
    each = [2 / 3 * of_zero + of_all / 3 + np.eye(2), of_all / 2 + np.eye(2)]
    query = np.array([[1.0, 1.0], [0.0, 0.0]])
    offsets = [query - mean for mean in ([0.5, 0.0], [0.0, 2.0])]
    expected = [-np.sum(d @ np.linalg.inv(q) * d, axis=1) / 2 for d, q in zip(offsets, each)]
    found = learner.predict(adapted, jnp.asarray(query))
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-12)


def test_cosine_by_hand():
    learner = prototypical(DOUBLING, cross_entropy, ways=3, distance="cosine")
    meta_params = learner.init(KEY, Task(SUPPORT, QUERY))
    np.testing.assert_allclose(meta_params["log_temperature"], np.log(10), rtol=1e-6)
    adapted = learner.adapt(KEY, meta_params, SUPPORT)
    logits = learner.predict(adapted, QUERY.inputs)
    # (1, 1) against 0, (4, 4), (0, 2); the zero vector is at right angles to everything.
    np.testing.assert_allclose(logits, [[0, 10, 10 / np.sqrt(2)], [0, 0, 0]], rtol=1e-5)
    grads = jax.grad(lambda p: learner.loss(KEY, p, Task(SUPPORT, QUERY))[0])(meta_params)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(grads))
    assert grads["log_temperature"] != 0


def test_masked_support_examples_count_in_no_prototype():
    learner = prototypical(DOUBLING, cross_entropy, ways=3)
    masked = SUPPORT._replace(mask=jnp.array([True, True, False, False]))
    adapted = learner.adapt(KEY, {"encoder": {"scale": jnp.asarray(2.0)}}, masked)
    np.testing.assert_allclose(adapted.prototypes_WD, [[0, 0], [2, 0], [0, 0]])


def test_the_meta_parameters_serve_other_ways_and_the_order_of_examples_is_nothing():
    encoder = mlp((4,), 2, query_statistics="support")
    train, test = (prototypical(encoder, cross_entropy, ways=ways) for ways in (6, 3))
    inputs = jax.random.normal(KEY, (6, 5))
    support = Batch(inputs, jnp.array([0, 0, 1, 1, 2, 2], jnp.int32))
    meta_params = train.init(KEY, Task(support, support))
    logits = test.predict(test.adapt(KEY, meta_params, support), inputs[:2])
    assert logits.shape == (2, 3)
    order = jnp.array([5, 2, 0, 3, 1, 4])
    shuffled = Batch(inputs[order], support.targets[order])
    np.testing.assert_allclose(
        logits, test.predict(test.adapt(KEY, meta_params, shuffled), inputs[:2]), rtol=1e-4
    )


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown distance 'manhattan'"):
        prototypical(DOUBLING, cross_entropy, ways=3, distance="manhattan")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="1 ways"):
        prototypical(DOUBLING, cross_entropy, ways=1)
