"""Reliability, temperature and abstention, against scikit-learn, SciPy and sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from jaxmeta import calibration


def padded(seed, *, ways=4, valid=60, padding=9):
    """Logits and classes with padding in between that is NaN or absurd."""
    random = np.random.default_rng(seed)
    mask = random.permutation(np.arange(valid + padding) < valid)
    outputs = 3 * random.normal(size=(mask.size, ways)).astype(np.float32)
    targets = np.where(random.random(mask.size) < 0.6, outputs.argmax(axis=1), 0)
    outputs[~mask], targets[~mask] = np.nan, 77
    return outputs, targets, mask


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_the_minimum_of_the_cross_entropy(seed):
    outputs, targets, mask = padded(seed)
    found = float(jax.jit(calibration.temperature)(outputs, targets, mask))

    def loss(logarithm):
        probabilities = scipy.special.softmax(outputs[mask].astype(float) / np.exp(logarithm), 1)
        return log_loss(targets[mask], probabilities, labels=range(4))

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6})
    assert np.log(found) == pytest.approx(best.x, abs=2e-3)
    assert 0.1 < found < 10


def test_temperature_stays_within_its_bounds():
    outputs, targets = 5 * jnp.eye(3), jnp.arange(3)
    assert float(calibration.temperature(outputs, targets)) == pytest.approx(0.05, rel=1e-3)
    assert float(calibration.temperature(outputs, targets[::-1])) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_a_temperature_that_nothing_determines_is_1(known):
    mask = jnp.full(4, known)
    outputs = jnp.zeros((4, 3)) if known else jnp.eye(4)[:, :3]
    assert float(calibration.temperature(outputs, jnp.zeros(4, jnp.int32), mask)) == 1


def test_reliability_is_the_curve_of_scikit_learn():
    random = np.random.default_rng(0)
    probabilities = random.random(200).astype(np.float32)
    targets, mask = random.integers(0, 2, 200), random.random(200) < 0.8
    found = calibration.reliability(jnp.where(mask, probabilities, jnp.nan), targets, mask)
    true, predicted = calibration_curve(targets[mask], probabilities[mask], n_bins=10)
    np.testing.assert_allclose(found.targets_B / found.counts_B, true, atol=1e-5)
    np.testing.assert_allclose(found.probabilities_B / found.counts_B, predicted, atol=1e-5)
    assert float(found.counts_B.sum()) == mask.sum()


def test_risk_and_coverage_by_hand():
    probabilities = jnp.array([0.9, 0.8, 0.7, 0.6, jnp.nan])
    correct, mask = jnp.array([1, 0, 1, 0, 1]), jnp.arange(5) < 4
    thresholds = jnp.array([0.0, 0.65, 0.8, 0.95])
    coverage, risk = calibration.risk_coverage(probabilities, correct, mask, thresholds=thresholds)
    np.testing.assert_allclose(coverage, [1, 0.75, 0.5, 0])
    np.testing.assert_allclose(risk, [0.5, 1 / 3, 0.5, 0], rtol=1e-6)
