"""Learned comparison against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import (
    RelationParams,
    SiameseParams,
    matching,
    one_hot_squared_error,
    prototypical,
    relation,
    semi_supervised_prototypical,
    siamese,
)
from jaxmeta.learners.process import class_by_class, conditional_neural_process_classifier
from jaxmeta.models import Normalisation, comparator, conv_maps, mlp, pairwise
from jaxmeta.ops import convolve
from jaxmeta.recipes import find_learner

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
MATCHING = matching(IDENTITY, cross_entropy, ways=3)
BY_CLASS = class_by_class(mlp((4,), 1), 3)
DIFFERENCES = Model(
    lambda key, maps: {},
    lambda params, maps, reference=None, key=None: (
        -jnp.abs(maps[0][None] - maps[1][:, None]).sum(axis=2)
    ),
)


def adapted(learner, params, inputs, targets, mask=None):
    support = Batch(jnp.asarray(inputs), jnp.asarray(targets), mask)
    return jax.jit(learner.adapt)(KEY, params, support)


def predicted(learner, memory, inputs):
    return jax.jit(learner.predict)(memory, inputs)


def started(learner, inputs, targets):
    batch = Batch(jnp.asarray(inputs), jnp.asarray(targets))
    return jax.jit(learner.init)(KEY, Task(batch, batch))


# --- matching networks --------------------------------------------------------------------


def test_matching_sums_the_attention_of_each_class():
    support, labels = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], [0, 1, 1]
    learner = matching(IDENTITY, cross_entropy, ways=3, temperature=2.0)
    params = started(learner, support, labels)
    found = predicted(learner, adapted(learner, params, support, labels), jnp.array([[5.0, 0.0]]))
    weights = np.exp(2.0 * np.array([1.0, 0.0, 0.6]))  # cosines by hand
    expected = np.array([weights[0], weights[1] + weights[2]]) / weights.sum()
    np.testing.assert_allclose(np.exp(found[0, :2]), expected, rtol=1e-5)
    assert float(found[0, 2]) == pytest.approx(np.log(1e-12), rel=1e-5)  # a class of none


def test_a_class_far_away_has_a_gradient():
    """The query is just like an example of the other class, and attention is sharp."""
    learner = matching(IDENTITY, cross_entropy, ways=2, temperature=60.0)
    support, labels = jnp.array([[1.0, 0.0], [-1.0, 0.1]]), jnp.array([0, 1])
    params = started(learner, support, labels)
    task = Task(Batch(support, labels), Batch(jnp.array([[1.0, 0.0]]), jnp.array([1])))

    def loss_at(temperature):
        return learner.loss(KEY, {**params, "log_temperature": jnp.log(temperature)}, task)[0]

    # −log P is all but τ (1 − cos), the gap of the two scores.
    gap = 1 + 1 / np.hypot(1.0, 0.1)
    loss, slope = jax.jit(jax.value_and_grad(loss_at))(60.0)
    np.testing.assert_allclose([loss, slope], [60 * gap, gap], rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(6)))
def test_attention_sums_to_one_and_knows_no_order(seed, order):
    random = np.random.default_rng(seed)
    support, query = random.normal(size=(6, 4)), jnp.asarray(random.normal(size=(3, 4)))
    labels, order = np.array([0, 1, 2, 0, 1, 2]), list(order)
    params = started(MATCHING, support, labels)
    found = predicted(MATCHING, adapted(MATCHING, params, support, labels), query)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)
    again = adapted(MATCHING, params, support[order], labels[order])
    np.testing.assert_allclose(predicted(MATCHING, again, query), found, rtol=1e-4, atol=1e-4)


@pytest.mark.full
def test_full_context_is_the_papers_equations(lstm, x64):
    random = np.random.default_rng(0)
    support, labels = random.normal(size=(4, 3)), np.array([0, 1, 0, 1])
    query = random.normal(size=(3,))
    learner = matching(IDENTITY, cross_entropy, ways=2, full_context=True, reads=3)
    params = jax.tree.map(lambda leaf: leaf.astype(float), started(learner, support, labels))
    memory = adapted(learner, params, support, labels)

    params = jax.device_get(params)
    forward, backward = np.zeros((4, 3)), np.zeros((4, 3))
    state = np.zeros(3), np.zeros(3)
    for index in range(4):
        state = lstm(params["support"]["forward"], state, support[index])
        forward[index] = state[1]
    state = np.zeros(3), np.zeros(3)
    for index in reversed(range(4)):
        state = lstm(params["support"]["backward"], state, support[index])
        backward[index] = state[1]
    embedded = support + forward + backward
    np.testing.assert_allclose(memory.keys_SD, embedded, rtol=1e-10)

    cells, hidden = np.zeros(3), np.zeros(3)
    for _ in range(3):
        attention = np.exp(embedded @ hidden)
        read = attention / attention.sum() @ embedded
        cells, output = lstm(
            params["query"]["cell"], (cells, hidden), np.concatenate([query, read])
        )
        hidden = output + query
    cosines = embedded @ hidden / np.linalg.norm(embedded, axis=1) / np.linalg.norm(hidden)
    weights = np.exp(10 * cosines) / np.exp(10 * cosines).sum()
    expected = np.log([weights[[0, 2]].sum(), weights[[1, 3]].sum()])
    found = predicted(learner, memory, jnp.asarray(query)[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # log 10 was made in float32


# --- relation networks --------------------------------------------------------------------


def test_relation_compares_with_the_sum_of_each_class():
    """A comparator of two weights: σ(a · C_w + b · f(x))."""
    linear = Model(
        lambda key, x: {},
        lambda params, maps, reference=None, key=None: 0.5 * maps[0].T + 0.25 * maps[1],
    )
    learner = relation(IDENTITY, linear, one_hot_squared_error, ways=2)
    memory = adapted(learner, RelationParams({}, {}), [[1.0], [2.0], [5.0]], [0, 0, 1])
    scores = predicted(learner, memory, jnp.array([[4.0], [-2.0]]))
    logits = np.array([[1.5 + 1.0, 2.5 + 1.0], [1.5 - 0.5, 2.5 - 0.5]])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-6)


@pytest.mark.full
def test_probabilities_of_relation_with_a_class_that_has_no_example():
    """Its score is below 0, which is no probability."""
    outputs = jnp.array([[0.9, 0.1, -1e-6], [0.0, 0.5, 1.0]])
    found = find_learner("relation")().probabilities(outputs)
    np.testing.assert_allclose(found, [[0.9, 0.1, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)


def test_relation_of_maps():
    images, labels = jax.random.uniform(KEY, (4, 16, 16, 1)), jnp.array([0, 1, 0, 1])
    learner = relation(conv_maps(width=4), comparator(width=4), one_hot_squared_error, ways=2)
    params = started(learner, images, labels)
    memory = adapted(learner, params, images, labels)
    assert memory.maps_W.shape == (2, 4, 4, 4)
    assert predicted(learner, memory, images).shape == (4, 2)
    # The comparison of each pair by itself, its two maps side by side under one kernel.
    compare, maps_Q = comparator(width=4), jax.random.normal(KEY, (3, 4, 4, 4))
    kernels = (params.comparator["conv_0"], params.comparator["conv_1"]["kernel"])

    def of_pairs(params, pairs, reference=None, key=None):
        values = pairs
        for index, kernel in enumerate(kernels):
            scale_and_shift = {"params": params[f"norm_{index}"]}
            values = convolve(values, kernel)
            values = nn.relu(Normalisation("batch").apply(scale_and_shift, values, 0, pool=2))
        dense = [
            nn.Dense(width).bind({"params": params[name]})
            for width, name in ((8, "hidden"), (1, "head"))
        ]
        return dense[1](nn.relu(dense[0](values.reshape(values.shape[0], -1))))

    one_by_one = pairwise(Model(compare.init, of_pairs))
    found, expected = (
        jax.jit(model.apply)(params.comparator, (memory.maps_W, maps_Q))
        for model in (compare, one_by_one)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"shapes \(4, 4, 4\) and \(4, 4, 1\)"):
        one_by_one.apply(params.comparator, (memory.maps_W, maps_Q[..., :1]))
    with pytest.raises(ValueError, match="a pair of maps has no support set"):
        comparator(query_statistics="support")


# --- siamese networks ---------------------------------------------------------------------


def test_siamese_starts_undecided_at_a_mean_distance_of_a_tenth():
    learner = siamese(IDENTITY, ways=2)
    params = started(learner, jnp.zeros((2, 400)), [0, 1])
    apart = jnp.stack([jnp.zeros(400), jnp.full(400, np.log(0.6 / 0.4))])  # σ: 0.5 and 0.6
    found = predicted(learner, adapted(learner, params, apart, [0, 1]), apart[:1])
    np.testing.assert_allclose(found, [[1.0, 0.0]], atol=0.02)


def test_siamese_verifies_pairs_and_classifies_by_the_likeness():
    learner = siamese(IDENTITY, ways=2)
    params = SiameseParams({}, jnp.array([3.0, -1.0]), jnp.asarray(0.5))
    support = Batch(jnp.array([[0.0, 0.0], [1.0, -1.0], [2.0, 0.0]]), jnp.array([0, 1, 1]))
    query = Batch(jnp.array([[0.0, 1.0]]), jnp.array([1]))
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x)))  # noqa: E731
    distances = np.abs(sigmoid(query.inputs) - sigmoid(support.inputs))
    logits = 0.5 - distances @ [3.0, -1.0]
    found = predicted(learner, adapted(learner, params, *support), query.inputs)
    np.testing.assert_allclose(found[0], [logits[0], logits[1:].mean()], rtol=1e-5)
    loss, info = jax.jit(learner.loss)(KEY, params, Task(support, query))
    # Two pairs are of one class, one is not; each kind counts for a half.
    expected = -(np.log(sigmoid(logits[1:])).mean() + np.log(1 - sigmoid(logits[0]))) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(info.metrics["accuracy"]) == float(found[0].argmax() == 1)


# --- the order of the support -------------------------------------------------------------


@pytest.mark.full
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize(
    "learner",
    [
        relation(IDENTITY, DIFFERENCES, one_hot_squared_error, ways=3),
        siamese(IDENTITY, ways=3),
        semi_supervised_prototypical(IDENTITY, cross_entropy, ways=3, refinements=2),
        semi_supervised_prototypical(IDENTITY, cross_entropy, ways=3, distractor_cluster=True),
        prototypical(IDENTITY, cross_entropy, ways=3),
        prototypical(IDENTITY, cross_entropy, ways=3, distance="cosine"),
        conditional_neural_process_classifier(IDENTITY, BY_CLASS, cross_entropy, ways=3),
    ],
    ids=[
        *("relation", "siamese", "semi-supervised", "semi-supervised-cluster"),
        *("prototypical", "prototypical-cosine", "conditional-neural-process"),
    ],
)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(8)))
def test_the_support_has_no_order(learner, seed, order):
    random = np.random.default_rng(seed)
    support, query = random.normal(size=(8, 4)), jnp.asarray(random.normal(size=(3, 4)))
    labels, order = np.array([0, 1, 2, 0, 1, 2, -1, -1]), list(order)  # two without a label
    params = started(learner, support, labels)
    found = predicted(learner, adapted(learner, params, support, labels), query)
    again = predicted(learner, adapted(learner, params, support[order], labels[order]), query)
    assert np.abs(np.diff(found)).max() > 1e-3
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-4)


# --- semi-supervised prototypes -----------------------------------------------------------


def test_refinement_by_hand():
    """Two classes at 0 and 4, unlabelled points at 1 and 4: one step of soft k-means."""
    learner = semi_supervised_prototypical(IDENTITY, cross_entropy, ways=2)
    inputs, targets = [[0.0], [4.0], [1.0], [4.0]], [0, 1, -1, -1]
    found = adapted(learner, {"encoder": {}}, inputs, targets).prototypes_WD[:, 0]
    of_first = 1 / (1 + np.exp(-9.0 + 1.0)), 1 / (1 + np.exp(16.0))  # of the point at 1, at 4
    expected = [
        (0.0 + of_first[0] * 1 + of_first[1] * 4) / (1 + sum(of_first)),
        (4.0 + (1 - of_first[0]) * 1 + (1 - of_first[1]) * 4) / (3 - sum(of_first)),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_cluster_takes_what_belongs_to_no_class():
    """A distractor at 0, far from both classes, moves the prototypes without the cluster alone."""
    inputs, targets = [[10.0], [-10.5], [0.1]], [0, 1, -1]
    plain = semi_supervised_prototypical(IDENTITY, cross_entropy, ways=2)
    moved = adapted(plain, {"encoder": {}}, inputs, targets).prototypes_WD
    assert abs(float(moved[0, 0]) - 10) > 1
    robust = semi_supervised_prototypical(IDENTITY, cross_entropy, ways=2, distractor_cluster=True)
    params = {"encoder": {}, "log_radius": jnp.log(2.0)}
    kept = adapted(robust, params, inputs, targets).prototypes_WD
    np.testing.assert_allclose(kept[:, 0], [10.0, -10.5], atol=1e-6)


def test_without_unlabelled_examples_it_is_the_supervised_one():
    inputs, targets = [[0.0], [4.0], [1.0], [4.0]], [0, 1, -1, 1]
    mask = jnp.array([True, True, False, True])  # the unlabelled one is not real
    query = jnp.array([[1.0], [3.0]])
    params = {"encoder": {}}
    semi = semi_supervised_prototypical(IDENTITY, cross_entropy, ways=2, refinements=3)
    plain = prototypical(IDENTITY, cross_entropy, ways=2)
    results = [
        predicted(learner, adapted(learner, params, inputs, targets, mask), query)
        for learner in (semi, plain)
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: matching(IDENTITY, cross_entropy, ways=1),
        lambda: matching(IDENTITY, cross_entropy, ways=5, reads=0),
        lambda: matching(IDENTITY, cross_entropy, ways=5, temperature=0.0),
        lambda: relation(IDENTITY, IDENTITY, one_hot_squared_error, ways=1),
        lambda: siamese(IDENTITY, ways=0),
        lambda: semi_supervised_prototypical(IDENTITY, cross_entropy, ways=5, refinements=-1),
    ],
)
def test_errors_name_the_value(build):
    with pytest.raises(ValueError, match=r"give at least|requires at least 2"):
        build()
