"""A Bayesian last layer beside dense Gaussian processes and ALPaCA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import ALPaCAParams, alpaca, bayesian_last_layer
from jaxmeta.learners.process import LastLayerParams

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
SCALE, LENGTH, NOISE, LEAST = 1.7, 0.6, 0.4, 0.03


def params() -> LastLayerParams:
    return LastLayerParams({}, jnp.log(SCALE), jnp.log(LENGTH), jnp.log(jnp.asarray(NOISE - LEAST)))


def dense_kernel(kind: str, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    size = one.shape[1]
    if kind == "linear":
        return SCALE * one @ other.T / size
    squares = np.square(one[:, None] - other[None]).sum(axis=2)
    return SCALE * np.exp(-squares / (2 * LENGTH**2 * size))


def drawn(rows: int, targets: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 3)), rng.normal(size=(rows, targets))


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_regression_is_a_gaussian_process(x64, kind):
    """Rasmussen, Williams 2006, equations 2.25 and 2.26; padded rows are NaN."""
    (x, y), (new, _) = drawn(7, 2, 0), drawn(4, 2, 1)
    valid = np.array([True, False, True, True, True, False, True])
    learner = bayesian_last_layer(IDENTITY, feature_kernel=kind)
    support = Batch(*(jnp.where(valid[:, None], own, jnp.nan) for own in (x, y)), valid)
    found = learner.predict(learner.adapt(KEY, params(), support), jnp.asarray(new))
    x, y = x[valid], y[valid]
    inverse = np.linalg.inv(dense_kernel(kind, x, x) + NOISE**2 * np.eye(len(x)))
    cross = dense_kernel(kind, new, x)
    np.testing.assert_allclose(found.mean, cross @ inverse @ y, rtol=1e-9)
    variance = np.diag(dense_kernel(kind, new, new) - cross @ inverse @ cross.T) + NOISE**2
    np.testing.assert_allclose(found.std, np.sqrt(variance)[:, None] * np.ones(2), rtol=1e-9)


def test_the_linear_kernel_is_alpaca_with_a_plain_prior(x64):
    """w ~ N(0, s / D I), which is ALPaCA's prior of precision D σ² / s and mean 0."""
    (x, y), (new, _) = drawn(6, 2, 0), drawn(4, 2, 1)
    learner = bayesian_last_layer(IDENTITY)
    found = learner.predict(learner.adapt(KEY, params(), Batch(x, y)), jnp.asarray(new))
    factor = np.eye(3) * np.log(np.sqrt(3 * NOISE**2 / SCALE))
    noise = jnp.full((2,), jnp.log(NOISE - 1e-3))
    given = ALPaCAParams({}, jnp.zeros((3, 2)), jnp.asarray(factor), noise)
    other = alpaca(IDENTITY)
    expected = other.predict(other.adapt(KEY, given, Batch(x, y)), jnp.asarray(new))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_marginal_loss_is_the_evidence_of_all_labels(x64, kind):
    (x, y), (new, asked) = drawn(5, 2, 0), drawn(4, 2, 1)
    valid = np.array([True, True, False, True])
    learner = bayesian_last_layer(IDENTITY, feature_kernel=kind, training_loss="marginal")
    query = Batch(*(jnp.where(valid[:, None], own, jnp.nan) for own in (new, asked)), valid)
    loss, info = learner.loss(KEY, params(), Task(Batch(x, y), query))
    every, labels = np.concatenate([x, new[valid]]), np.concatenate([y, asked[valid]])
    covariance = dense_kernel(kind, every, every) + NOISE**2 * np.eye(8)
    evidence = multivariate_normal(cov=covariance).logpdf(labels.T).sum()
    np.testing.assert_allclose(loss, -evidence / 16, rtol=1e-9)
    predictive, _ = bayesian_last_layer(IDENTITY, feature_kernel=kind).loss(
        KEY, params(), Task(Batch(x, y), query)
    )
    np.testing.assert_allclose(info.metrics["predictive_loss"], predictive, rtol=1e-12)


def test_two_classes_have_the_probability_of_the_sign(x64):
    """The labels are ±1, and the probability of a class is that of a positive function value."""
    x, _ = drawn(6, 1, 0)
    new, _ = drawn(4, 1, 1)
    labels = np.array([0, 1, 1, 0, 1, 0])
    learner = bayesian_last_layer(IDENTITY, cross_entropy, 2, feature_kernel="rbf")
    adapted = learner.adapt(KEY, params(), Batch(jnp.asarray(x), jnp.asarray(labels)))
    found = jax.nn.softmax(learner.predict(adapted, jnp.asarray(new)))
    inverse = np.linalg.inv(dense_kernel("rbf", x, x) + NOISE**2 * np.eye(6))
    cross = dense_kernel("rbf", new, x)
    variance = SCALE + NOISE**2 - np.einsum("qs,st,qt->q", cross, inverse, cross)
    expected = norm.cdf(cross @ inverse @ (2 * labels - 1) / np.sqrt(variance))
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-9)
    np.testing.assert_allclose(found[:, 0], 1 - expected, rtol=1e-9)


def test_an_example_without_a_label_changes_nothing(x64):
    x, _ = drawn(5, 1, 0)
    learner = bayesian_last_layer(IDENTITY, cross_entropy, 2)
    labels = jnp.array([0, 1, 1, -1, -1])
    all_five = learner.adapt(KEY, params(), Batch(jnp.asarray(x), labels))
    three = learner.adapt(KEY, params(), Batch(jnp.asarray(x[:3]), labels[:3]))
    outputs = [learner.predict(own, jnp.asarray(x)) for own in (all_five, three)]
    np.testing.assert_allclose(*outputs, rtol=1e-12)


def test_distances_do_not_depend_on_the_place():
    (x, y), (new, _) = drawn(7, 1, 0), drawn(4, 1, 1)
    learner, found = bayesian_last_layer(IDENTITY, feature_kernel="rbf"), []
    for offset in (0, 1000):
        support = Batch(jnp.asarray(x + offset, jnp.float32), jnp.asarray(y, jnp.float32))
        adapted = learner.adapt(KEY, params(), support)
        found.append(learner.predict(adapted, jnp.asarray(new + offset, jnp.float32)))
    np.testing.assert_allclose(found[1].mean, found[0].mean, atol=2e-3)
    np.testing.assert_allclose(found[1].std, found[0].std, atol=2e-3)


def test_without_examples_it_is_the_prior():
    learner = bayesian_last_layer(IDENTITY, feature_kernel="rbf")
    empty = Batch(jnp.full((4, 3), jnp.nan), jnp.ones((4, 2)), jnp.zeros((4,), bool))
    found = learner.predict(learner.adapt(KEY, params(), empty), jnp.ones((5, 3)))
    np.testing.assert_array_equal(found.mean, 0)
    np.testing.assert_allclose(found.std, np.sqrt(SCALE + NOISE**2), rtol=1e-6)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="unknown 'cubic'; give linear or rbf"):
        bayesian_last_layer(IDENTITY, feature_kernel="cubic")  # pyright: ignore
    with pytest.raises(ValueError, match="unknown 'both'; give predictive or marginal"):
        bayesian_last_layer(IDENTITY, training_loss="both")  # pyright: ignore
    with pytest.raises(ValueError, match="noise_std 0.01, least_std 0.03"):
        bayesian_last_layer(IDENTITY, noise_std=0.01)
    with pytest.raises(ValueError, match="1 ways"):
        bayesian_last_layer(IDENTITY, cross_entropy, 1)


@pytest.mark.parametrize("scale", [30.0, 1e3, 1e5])
def test_large_features_stay_finite(scale):
    """K has a rank of at most 8 for 50 rows, and σ² is far below what float32 rounds of it."""
    learner = bayesian_last_layer(IDENTITY, feature_kernel="linear")
    rng = np.random.default_rng(0)
    x, new = (jnp.asarray(scale * rng.normal(size=(rows, 8)), jnp.float32) for rows in (50, 3))
    weights = rng.normal(size=(8, 1)) / scale
    least = LastLayerParams({}, jnp.zeros(()), jnp.zeros(()), jnp.asarray(-20.0))
    adapted = learner.adapt(KEY, least, Batch(x, x @ weights))
    found = learner.predict(adapted, new)
    np.testing.assert_allclose(found.mean, new @ weights, atol=0.05)
    assert np.isfinite(found.std).all()
