"""Learners of streams: their steps by hand, both forms of a head, replay, new classes, gates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Task, cross_entropy
from jaxmeta.inner import first_order, second_order
from jaxmeta.learners import OnlineParams, anml, oml, online
from jaxmeta.learners.continual import gated
from jaxmeta.learners.continual._online import _examples_of_steps
from jaxmeta.learners.continual.head import _of_examples, _of_weights, with_new_classes
from jaxmeta.models import mlp, on_features

KEY = jax.random.key(0)


def stream(ways: int = 3, shots: int = 2, size: int = 4) -> Batch:
    inputs = jax.random.normal(KEY, (ways * shots, size), float)
    return Batch(inputs, jnp.repeat(jnp.arange(ways), shots))


def by_hand(head, batch: Batch, rate: float, factors=(1.0, 1.0)) -> dict[str, np.ndarray]:
    """The equation of the docstring, one example after another, in NumPy."""
    kernel, bias = (np.array(head[name], np.float64) for name in ("kernel", "bias"))
    for x, y in zip(np.asarray(batch.inputs, np.float64), np.asarray(batch.targets)):
        outputs = x @ kernel + bias
        slopes = np.exp(outputs - outputs.max())
        slopes /= slopes.sum()
        slopes[y] -= 1
        kernel -= rate * np.asarray(factors[0]) * np.outer(x, slopes)
        bias -= rate * np.asarray(factors[1]) * slopes
    return {"kernel": kernel, "bias": bias}


def test_one_step_for_each_example_in_its_order(x64):
    learner = oml(on_features(), cross_entropy, classes=5, rate=0.3, ways=3)
    batch, head_key = stream(), jax.random.split(KEY, 3)[0]
    params = learner.init(KEY, Task(batch, batch))
    start, known = with_new_classes(head_key, params.head, batch, 3)
    state = learner.adapt(KEY, params, batch)
    expected = by_hand(start, batch, 0.3)
    for name, values in expected.items():
        np.testing.assert_allclose(state.head[name], values, rtol=1e-6)
    assert known.tolist() == [True] * 3
    backwards = jax.tree.map(lambda leaf: leaf[::-1], batch)
    other = learner.adapt(KEY, params, backwards)
    assert not np.allclose(other.head["kernel"], state.head["kernel"])


@pytest.mark.full
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("replay", [0, 2])
def test_both_forms_of_the_steps_are_equal(x64, learned, replay):
    batch = stream()._replace(mask=jnp.array([True, True, False, True, True, True]))
    keys = jax.random.split(KEY, 3)
    head = {"kernel": jax.random.normal(keys[0], (4, 3), float), "bias": jnp.ones(3)}
    factors = {"kernel": jax.random.uniform(keys[1], (4, 1), float), "bias": jnp.array([0.5])}
    rows = _examples_of_steps(keys[2], 6, replay)

    def loss(form, way, head, inputs, factors):
        features = batch._replace(inputs=inputs)
        given = (head, features, rows, 0.3, factors if learned else (), way)
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(form(cross_entropy, *given)))

    for way in (second_order, first_order):
        one, other = (
            jax.value_and_grad(loss, argnums=(2, 3, 4))(form, way, head, batch.inputs, factors)
            for form in (_of_weights, _of_examples)
        )
        chex.assert_trees_all_close(one, other, rtol=1e-9, atol=1e-12)


def test_learned_factors_scale_the_steps(x64):
    learner = oml(on_features(), cross_entropy, classes=3, rate=0.3, ways=3, learns_rates=True)
    batch = stream()
    params = learner.init(KEY, Task(batch, batch))
    assert jax.tree.map(jnp.shape, params.factors) == {"kernel": (4, 1), "bias": (1,)}
    factors = {"kernel": jnp.array([[1.0], [2.0], [-1.0], [0.5]]), "bias": jnp.array([0.0])}
    state = learner.adapt(KEY, params._replace(factors=factors), batch)
    start, _ = with_new_classes(jax.random.split(KEY, 3)[0], params.head, batch, 3)
    expected = by_hand(start, batch, 0.3, ([[1.0], [2.0], [0.0], [0.5]], 0.0))
    np.testing.assert_allclose(state.head["kernel"], expected["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(state.head["bias"], 0)


def test_only_the_classes_of_the_stream_are_new():
    head = {"kernel": jnp.full((4, 5), 7.0), "bias": jnp.full((5,), 7.0)}
    batch = Batch(jnp.ones((3, 4)), jnp.array([3, 1, 3]))
    new, known = with_new_classes(KEY, head, batch, None)
    changed = np.any(np.asarray(new["kernel"]) != 7, axis=0)
    assert changed.tolist() == [False, True, False, True, False]
    assert new["bias"].tolist() == [7, 0, 7, 0, 7]
    assert len({*np.asarray(new["kernel"])[0, [1, 3]].tolist()}) == 2
    assert known.all()


def test_a_class_without_an_example_is_not_predicted():
    learner = oml(on_features(), cross_entropy, classes=9, ways=4)
    batch = stream()
    params = learner.init(KEY, Task(batch, batch))
    outputs = learner.predict(learner.adapt(KEY, params, batch), 9 * batch.inputs)
    assert outputs.shape == (6, 4)
    assert (outputs.argmax(axis=1) < 3).all()


def test_replay_repeats_what_has_been_seen():
    rows = np.asarray(_examples_of_steps(KEY, 200, 3))
    steps = np.arange(200)
    assert (rows[:, 0] == steps).all()
    assert (rows <= steps[:, None]).all()
    assert len(np.unique(rows[150:, 1:])) > 80  # all of the past, not the last ones
    assert _examples_of_steps(KEY, 5, 0).shape == (5, 1)


def test_online_trains_on_the_query_and_learns_a_stream():
    model, batch = mlp((8,), 4), stream()
    training = online(model, cross_entropy, classes=5)
    params = training.init(KEY, Task(batch, batch))
    loss, info = training.loss(KEY, params, Task(batch, batch))
    features = model.apply(params.encoder, batch.inputs)
    outputs = features @ params.head["kernel"] + params.head["bias"][None]
    assert loss == info.loss == cross_entropy(outputs, batch.targets)[0]
    test = online(model, cross_entropy, classes=5, ways=3, rate=0.5, replay=4, whole=True)
    before = test.loss(KEY, params._replace(rate=jnp.array(1e-6)), Task(batch, batch))[0]
    assert test.loss(KEY, params, Task(batch, batch))[0] < before


def test_from_scratch_the_whole_network_learns_online_and_nothing_is_trained():
    model, batch = mlp((8,), 4), stream()
    learner = online(model, cross_entropy, classes=3, ways=3, whole=True)
    params = learner.init(KEY, Task(batch, batch))
    state = learner.adapt(KEY, params, batch)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.encoder, params.encoder)
    assert all(jax.tree.leaves(moved))
    training = online(model, cross_entropy, classes=3, whole=True)
    grads = jax.grad(lambda own: training.loss(KEY, own, Task(batch, batch))[0])(params)
    assert not any(bool(leaf.any()) for leaf in jax.tree.leaves(grads))


def test_the_gate_multiplies_the_features_by_hand():
    model, inputs = gated(mlp((4,), 3), mlp((4,), 3)), jnp.ones((2, 5))
    params = model.init(KEY, inputs)
    features = mlp((4,), 3).apply(params["features"], inputs)
    openings = mlp((4,), 3).apply(params["gate"], inputs)
    expected = np.asarray(features) / (1 + np.exp(-np.asarray(openings)))
    np.testing.assert_allclose(model.apply(params, inputs), expected, rtol=1e-6)
    with pytest.raises(AssertionError):
        gated(mlp((4,), 3), mlp((4,), 2)).apply(
            {"features": params["features"], "gate": mlp((4,), 2).init(KEY, inputs)}, inputs
        )


def test_the_meta_gradient_knows_of_forgetting():
    """A head whose steps harm earlier classes has a loss that second order sees."""
    batch = stream()
    model = mlp((8,), 4)
    exact, constant = (
        anml(model, model, cross_entropy, 3, rate=1.0, differentiation=way)
        for way in (second_order, first_order)
    )
    params = exact.init(KEY, Task(batch, batch))
    grads = [
        jax.grad(lambda own, learner=learner: learner.loss(KEY, own, Task(batch, batch))[0])(params)
        for learner in (exact, constant)
    ]
    assert isinstance(params, OnlineParams)
    leaves = [jax.tree.leaves(own.encoder) for own in grads]
    assert not all(np.allclose(a, b) for a, b in zip(*leaves, strict=True))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="oml: 1 ways; classification requires at least 2"):
        oml(on_features(), cross_entropy, classes=9, ways=1)
    with pytest.raises(ValueError, match=r"online: rate -1, 0 replayed examples; give a positive"):
        online(on_features(), cross_entropy, classes=9, rate=-1)
