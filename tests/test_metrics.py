"""Metrics of one task equal scikit-learn's, with padding, ties and single classes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from jaxmeta import metrics


def random_case(seed: int, *, ties: bool = False, valid: int = 40, padding: int = 13):
    """Scores, classes, gains and probabilities, with padding in between that is NaN or absurd."""
    rng = np.random.default_rng(seed)
    mask = rng.permutation(np.arange(valid + padding) < valid)
    scores = rng.normal(size=mask.size)
    scores = np.round(scores, 0) if ties else scores
    targets = rng.integers(0, 2, mask.size)
    targets[np.flatnonzero(mask)[:2]] = (0, 1)
    scores[~mask], targets[~mask] = rng.choice([np.nan, np.inf, -np.inf, 5.0], (~mask).sum()), 7
    return scores.astype(np.float32), targets, mask


def sklearn_calibration(targets, probabilities, bins=10):
    """Its curve, weighted by the sizes of the bins."""
    true, predicted = calibration_curve(targets, probabilities, n_bins=bins)
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    counts = np.bincount(np.searchsorted(inner, probabilities), minlength=bins)
    return (counts[counts > 0] / len(targets)) @ np.abs(true - predicted)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_scores_equal_those_of_scikit_learn(seed, ties):
    scores, targets, mask = random_case(seed, ties=ties)
    kept, labels = scores[mask], targets[mask]
    expected = {
        "average_precision": reference.average_precision_score(labels, kept),
        "average_precision_gain": reference.average_precision_score(labels, kept) - labels.mean(),
        "auroc": reference.roc_auc_score(labels, kept),
    }
    for name, value in expected.items():
        found = jax.jit(getattr(metrics, name))(scores, targets, mask)
        assert found == pytest.approx(value, abs=2e-6), name
        assert getattr(metrics, name)(jnp.array(kept), jnp.array(labels)) == pytest.approx(
            value, abs=2e-6
        )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("top", [1, 5, 100])
def test_ndcg_equals_that_of_scikit_learn(ties, top):
    scores, targets, mask = random_case(3, ties=ties)
    gains = np.where(mask, targets * np.arange(targets.size) % 5, np.nan).astype(np.float32)
    found = jax.jit(partial(metrics.ndcg, top=top))(scores, gains, mask)
    expected = reference.ndcg_score([gains[mask]], [scores[mask]], k=top)
    assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("padded", [0, 1, 2])
def test_padding_has_no_place_before_a_score_of_minus_infinity(padded):
    """Such as the logarithm of a probability of 0."""
    scores = np.insert(np.array([-np.inf, 1.0], np.float32), padded, 3)
    gains = np.insert(np.ones(2, np.float32), padded, 0)
    mask = np.insert(np.ones(2, bool), padded, False)
    assert metrics.ndcg(scores, gains, mask, top=2) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_equals_that_of_scikit_learn_s_curve(seed):
    scores, targets, mask = random_case(seed)
    probabilities = np.asarray(jax.nn.sigmoid(2 * scores))
    found = jax.jit(metrics.calibration_error)(probabilities, targets, mask)
    expected = sklearn_calibration(targets[mask], probabilities[mask])
    assert found == pytest.approx(expected, abs=2e-6)


def test_errors_of_numbers_equal_those_of_scikit_learn():
    scores, targets, mask = random_case(0)
    numbers = np.where(mask, targets * 1.5, np.nan).astype(np.float32)
    found = metrics.mean_absolute_error(scores, numbers, mask)
    assert found == pytest.approx(
        reference.mean_absolute_error(numbers[mask], scores[mask]), rel=1e-6
    )
    found = metrics.root_mean_squared_error(scores, numbers, mask)
    expected = reference.root_mean_squared_error(numbers[mask], scores[mask])
    assert found == pytest.approx(expected, rel=1e-6)


def test_qlike_is_half_of_the_gamma_deviance():
    """scikit-learn's gamma deviance is 2 (log(f / r) + r / f − 1)."""
    rng = np.random.default_rng(0)
    forecast, realised = np.exp(rng.normal(size=(2, 20))).astype(np.float32)
    mask = np.arange(20) < 15
    realised[~mask] = -1
    found = metrics.qlike(forecast, realised, mask)
    deviance = reference.mean_gamma_deviance(realised[mask], forecast[mask])
    assert found == pytest.approx(deviance / 2, rel=1e-5)


def test_of_one_class_only():
    scores, zeros, ones = jnp.arange(3.0), jnp.zeros(3, int), jnp.ones(3, int)
    assert metrics.average_precision(scores, zeros) == 0
    assert metrics.average_precision(scores, ones) == 1
    assert metrics.auroc(scores, zeros) == metrics.auroc(scores, ones) == 0.5
    assert metrics.ndcg(scores, jnp.zeros(3)) == 0


def test_a_score_that_is_nan_makes_the_metric_nan():
    scores, targets = jnp.array([0.0, jnp.nan, 1.0]), jnp.array([0, 1, 1])
    for name in ("average_precision", "auroc", "ndcg"):
        assert np.isnan(getattr(metrics, name)(scores, targets))
        padded = getattr(metrics, name)(scores, targets, jnp.array([True, False, True]))
        assert padded == 1


def test_tasks_are_mapped():
    drawn = [random_case(seed) for seed in range(3)]
    scores, targets, mask = map(np.stack, zip(*drawn))
    found = jax.vmap(metrics.average_precision)(scores, targets, mask)
    each = [metrics.average_precision(*map(jnp.asarray, own)) for own in drawn]
    np.testing.assert_allclose(found, each, rtol=1e-6)


def test_multiclass_auroc_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    outputs = outputs.round(1)  # ties
    mask = rng.random(60) < 0.8
    found = metrics.multiclass_auroc(jnp.asarray(outputs), jnp.asarray(targets), jnp.asarray(mask))
    scores = np.asarray(jax.nn.log_softmax(jnp.asarray(outputs[mask])))
    each = [reference.roc_auc_score(targets[mask] == own, scores[:, own]) for own in range(3)]
    assert float(found) == pytest.approx(np.mean(each), abs=1e-6)  # the fourth has no example


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("specificity", [0.95, 0.8, 0.5])
def test_sensitivity_is_that_of_the_curve_of_scikit_learn(ties, specificity):
    scores, targets, mask = random_case(5, ties=ties)

    def expected(labels, kept):
        false, true, _ = reference.roc_curve(labels, kept, drop_intermediate=False)
        return true[false <= 1 - specificity + 1e-9].max()

    sensitivity = partial(metrics.sensitivity_at_specificity, specificity=specificity)
    found = jax.jit(sensitivity)(scores, targets, mask)
    assert found == pytest.approx(expected(targets[mask], scores[mask]), abs=1e-6)
    rng = np.random.default_rng(1)
    outputs, classes = rng.normal(size=(mask.size, 3)).astype(np.float32), targets % 3
    classes = np.where(mask, classes, 9)
    each = jax.nn.log_softmax(outputs[mask])
    present = np.unique(classes[mask])
    several = partial(metrics.multiclass_sensitivity, specificity=specificity)
    found = jax.jit(several)(outputs, classes, mask)
    of_classes = [expected(classes[mask] == own, each[:, own]) for own in present]
    assert found == pytest.approx(np.mean(of_classes), abs=1e-6)


def test_sensitivity_without_one_of_the_classes():
    scores = jnp.array([0.1, 0.9])
    assert metrics.sensitivity_at_specificity(scores, jnp.array([1, 1])) == 1
    assert metrics.sensitivity_at_specificity(scores, jnp.array([0, 0])) == 0


def test_frechet_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 2))
    points = np.linalg.solve(np.linalg.cholesky(np.cov(points.T)), (points - points.mean(0)).T).T
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    first = points * [1.0, 2.0] @ turn.T
    second = points[::-1] * [3.0, 1.0] @ turn.T + [1.0, -2.0]
    # Covariances that commute: the squares of the differences of their standard deviations.
    found = metrics.frechet_distance(jnp.asarray(first), jnp.asarray(second))
    assert found == pytest.approx(5 + (1 - 3) ** 2 + (2 - 1) ** 2, rel=1e-4)
    assert metrics.frechet_distance(jnp.asarray(first), jnp.asarray(first)) == pytest.approx(
        0, abs=1e-4
    )
