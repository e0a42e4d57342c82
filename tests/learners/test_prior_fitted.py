"""Prior-fitted networks: what must not matter, the exact posterior of a small prior, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, prior_fitted
from jaxmeta.learners.process import members_of_tables
from jaxmeta.training import train


@pytest.fixture(scope="module")
def fitted():
    """A learner with random weights, its meta-parameters, a support set and query inputs."""
    learner = prior_fitted(classes=4, width=16, layers=2, heads=4)
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (9, 5)).at[2, 1].set(jnp.nan)
    support = Batch(inputs, jnp.array([0, 1, 2, 0, 1, 2, 0, 1, 2]))
    params = jax.jit(learner.init)(keys[1], Task(support, support))
    return learner, params, support, jax.random.normal(keys[2], (6, 5)).at[0, 0].set(jnp.nan)


def outputs_of(fitted, support=None, inputs=None):
    learner, params, own, asked = fitted
    adapt, predict = jax.jit(learner.adapt), jax.jit(learner.predict)
    adapted = adapt(jax.random.key(0), params, own if support is None else support)
    return np.asarray(predict(adapted, asked if inputs is None else inputs))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_orders_of_rows_and_columns_do_not_matter(fitted):
    _, _, (inputs, targets, _), asked = fitted
    expected = outputs_of(fitted)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the outputs depend on the query
    rows = jnp.array([4, 2, 8, 0, 1, 3, 7, 6, 5])
    close(outputs_of(fitted, Batch(inputs[rows], targets[rows])), expected)
    columns = jnp.array([3, 0, 4, 1, 2])
    close(outputs_of(fitted, Batch(inputs[:, columns], targets), asked[:, columns]), expected)


def test_units_do_not_matter(fitted):
    _, _, (inputs, targets, _), asked = fitted
    scale, shift = jnp.array([[2.0, 0.1, 7.0, 1.0, 30.0]]), jnp.array([[1.0, -3.0, 0.0, 5.0, 9.0]])
    found = outputs_of(fitted, Batch(inputs * scale + shift, targets), asked * scale + shift)
    close(found, outputs_of(fitted))


def test_padding_and_columns_without_values_do_not_matter(fitted):
    _, _, (inputs, targets, _), asked = fitted
    expected = outputs_of(fitted)
    padded = Batch(
        jnp.concatenate([inputs, jnp.full((3, 5), 1e6)]),
        jnp.concatenate([targets, jnp.full(3, 3)]),
        jnp.arange(12) < 9,
    )
    close(outputs_of(fitted, padded), expected)
    for filling in (jnp.nan, 4.0):  # missing throughout, or constant
        wider = (
            jnp.concatenate([own, jnp.full((len(own), 2), filling)], 1) for own in (inputs, asked)
        )
        wide_support, wide_asked = wider
        close(outputs_of(fitted, Batch(wide_support, targets), wide_asked), expected)


def test_a_missing_value_is_not_a_mean(fitted):
    _, _, support, asked = fitted
    mean = jnp.nanmean(support.inputs[:, 0])
    found = outputs_of(fitted, inputs=asked.at[0, 0].set(mean))
    assert np.abs(found[0] - outputs_of(fitted)[0]).max() > 1e-3
    close(found[1:], outputs_of(fitted)[1:])


def test_a_column_whose_spread_has_no_square_is_no_column(fitted):
    _, _, (inputs, targets, _), asked = fitted
    tiny = inputs.at[:, 3].set(1e-25 * jnp.arange(9))
    found = outputs_of(fitted, Batch(tiny, targets), asked)
    assert np.isfinite(found).all()
    constant = Batch(inputs.at[:, 3].set(0), targets)
    close(found, outputs_of(fitted, constant, asked))


def test_a_large_offset_does_not_hide_a_column(fitted):
    """Identifiers and times: 40 different values near 5 million are 40 different values."""
    learner, params, _, _ = fitted
    rows = jnp.arange(40.0)[:, None]
    targets = (rows[:, 0] >= 20).astype(jnp.int32)
    plain = outputs_of((learner, params, Batch(rows, targets), rows))
    moved = outputs_of((learner, params, Batch(rows + 5e6, targets), rows + 5e6))
    np.testing.assert_allclose(moved, plain, atol=1e-4)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("label", [-1, 4])
def test_a_target_that_is_no_class_is_refused(fitted, label, members):
    network, params, support, asked = fitted
    learner = members_of_tables(network, classes=4, members=members)
    wrong = support._replace(targets=support.targets.at[0].set(label))
    with pytest.raises(ValueError, match=f"{label}"):
        learner.adapt(jax.random.key(0), params, wrong)
    traced = jax.jit(learner.adapt)(jax.random.key(0), params, wrong)
    assert np.isnan(learner.predict(traced, asked)).all()
    hidden = wrong._replace(mask=jnp.arange(len(wrong.targets)) > 0)
    assert np.isfinite(
        learner.predict(learner.adapt(jax.random.key(0), params, hidden), asked)
    ).all()


def test_missing_values_have_finite_gradients(fitted):
    learner, params, support, asked = fitted
    task = Task(support, Batch(asked, jnp.array([0, 1, 2, 0, 1, 2])))
    gradient_of = jax.jit(jax.grad(lambda p, t: learner.loss(jax.random.key(0), p, t)[0]))
    for shown in (jnp.ones(9, bool), jnp.zeros(9, bool)):
        gradient = gradient_of(params, Task(support._replace(mask=shown), task.query))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def _coins(key):
    """Labels with a rate that is uniform; the inputs say nothing."""
    rate_key, label_key, key = jax.random.split(key, 3)
    rate = jax.random.uniform(rate_key)
    labels = jax.random.bernoulli(label_key, rate, (12,)).astype(jnp.int32)
    inputs = jax.random.normal(key, (12, 1))
    return Task(Batch(inputs[:6], labels[:6]), Batch(inputs[6:], labels[6:]))


@pytest.mark.full
def test_it_learns_the_posterior_predictive_of_its_prior():
    """Of a uniform rate, n labels of which s are 1: (s + 1) / (n + 2), Laplace's rule."""
    learner = prior_fitted(classes=2, width=16, layers=1, heads=2)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 800))
    trained, _ = train(learner, _coins, jax.random.key(0), 800, optimizer, task_batch=32)
    found = []
    for ones in range(7):
        labels = (jnp.arange(6) < ones).astype(jnp.int32)
        support = Batch(jnp.linspace(-1, 1, 6)[:, None], labels)
        adapted = learner.adapt(jax.random.key(0), trained.meta_params, support)
        found.append(jax.nn.softmax(learner.predict(adapted, jnp.zeros((1, 1))))[0, 1])
    np.testing.assert_allclose(found, (np.arange(7) + 1) / 8, atol=0.06)


def test_classes_without_a_support_row_may_be_ruled_out(fitted):
    _, params, support, asked = fitted
    learner = prior_fitted(classes=4, width=16, layers=2, heads=4, only_seen_classes=True)
    found = outputs_of((learner, params, support, asked))
    close(found[:, :3], outputs_of(fitted)[:, :3])
    assert jax.nn.softmax(found)[:, 3].max() == 0


@pytest.mark.parametrize("sizes", [{"width": 10, "heads": 4}, {"layers": 0}, {"classes": 0}])
def test_nonsense_is_refused(sizes):
    with pytest.raises(ValueError, match="give at least 1 each, and a width that is a multiple"):
        prior_fitted(**sizes)
