"""Metrics of predictions on one task; padding, which a mask marks, does not affect them.

Metrics of scores are of two classes. NaN among the valid scores makes the result NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.calibration import reliability
from jaxmeta.objectives import Array, fill_padding, masked_mean, valid_mask

__all__ = [
    "auroc",
    "average_precision",
    "average_precision_gain",
    "calibration_error",
    "frechet_distance",
    "mean_absolute_error",
    "multiclass_auroc",
    "multiclass_sensitivity",
    "ndcg",
    "qlike",
    "root_mean_squared_error",
    "sensitivity_at_specificity",
]


def average_precision(scores: Array, targets: Array, mask: Array | None = None) -> Array:
    """Average precision: the area under the precision-recall curve, as a sum of steps.

        AP = Σ_n (R_n − R_{n−1}) P_n,  P_n and R_n the precision and recall at the n-th largest
        score; equal scores are one step

    Args:
      scores: float `[examples]`, larger for class 1.
      targets: `[examples]`, 0 or 1.
      mask: None or bool `[examples]`.

    Without an example of class 1 it is 0.

    Source: `sklearn.metrics.average_precision_score`.

    >>> round(float(average_precision(jnp.array([0.9, 0.8, 0.1]), jnp.array([1, 0, 1]))), 4)
    0.8333
    """
    ranked = _ranked(-scores, targets, mask)
    found_Q, count_Q = (
        jnp.cumsum(own)[ranked.last_Q] for own in (ranked.targets_Q, ranked.valid_Q)
    )
    precision_Q = found_Q / jnp.maximum(count_Q, 1)
    total = ranked.targets_Q.sum()
    value = (ranked.targets_Q * precision_Q).sum() / jnp.maximum(total, 1)
    return _unless_nan(value, scores, mask)


def average_precision_gain(scores: Array, targets: Array, mask: Array | None = None) -> Array:
    """Average precision minus the fraction of class 1, which is that of random scores.

    Source: Stanley et al. 2021, "FS-Mol", section 4: ΔAUPRC.

    >>> float(average_precision_gain(jnp.array([0.9, 0.1]), jnp.array([1, 0])))
    0.5
    """
    chance = masked_mean(targets.astype(scores.dtype), mask)
    return average_precision(scores, targets, mask) - chance


def auroc(scores: Array, targets: Array, mask: Array | None = None) -> Array:
    """Area under the ROC curve: the probability that class 1 has the larger score, ties half.

    With examples of one class only it is 0.5. Arguments as in `average_precision`.

    Source: `sklearn.metrics.roc_auc_score`.

    >>> float(auroc(jnp.array([0.9, 0.8, 0.8, 0.1]), jnp.array([1, 0, 1, 0])))
    0.875
    """
    ranked = _ranked(scores, targets, mask)
    counts_Q = jnp.concatenate([jnp.zeros((1,), scores.dtype), jnp.cumsum(ranked.valid_Q)])
    # The mean rank, from 1, of the examples with an equal score.
    ranks_Q = (counts_Q[ranked.first_Q] + 1 + counts_Q[ranked.last_Q + 1]) / 2
    positive = ranked.targets_Q.sum()
    negative = ranked.valid_Q.sum() - positive
    pairs = positive * negative
    wins = (ranked.targets_Q * ranks_Q).sum() - positive * (positive + 1) / 2
    return _unless_nan(jnp.where(pairs > 0, wins / jnp.maximum(pairs, 1), 0.5), scores, mask)


def multiclass_auroc(outputs: Array, targets: Array, mask: Array | None = None) -> Array:
    """Area under the ROC curve of each class against all others, the mean over classes.

    Args:
      outputs: logits `[examples, classes]`; the score of a class is its probability.
      targets: int `[examples]`, the classes.
      mask: None or bool `[examples]`.

    Classes without an example do not count. With examples of one class only it is 0.5.

    Source: `sklearn.metrics.roc_auc_score` with `multi_class="ovr"`.

    >>> outputs = jnp.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 4.0]])
    >>> float(multiclass_auroc(outputs, jnp.array([0, 1, 2])))
    1.0
    """
    return _against_the_rest(auroc, outputs, targets, mask)


def sensitivity_at_specificity(
    scores: Array, targets: Array, mask: Array | None = None, *, specificity: float = 0.95
) -> Array:
    """The largest sensitivity of a threshold on the scores with at least this specificity.

        max_t TP(t) / P  over t with  FP(t) / N ≤ 1 − specificity;  score ≥ t predicts class 1

    Without an example of class 1 it is 0; without one of class 0 it is 1.

    Args:
      scores: float `[examples]`, larger for class 1.
      targets: `[examples]`, 0 or 1.
      mask: None or bool `[examples]`.
      specificity: the least fraction of class 0 that is predicted as 0.

    Source: the largest true positive rate of `sklearn.metrics.roc_curve` where the false positive
    rate is at most 1 − specificity.

    >>> scores, targets = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 0, 1, 0])
    >>> float(sensitivity_at_specificity(scores, targets, specificity=0.5))
    1.0
    >>> float(sensitivity_at_specificity(scores, targets))
    0.5
    """
    ranked = _ranked(-scores, targets, mask)
    found_Q = jnp.cumsum(ranked.targets_Q)[ranked.last_Q]
    false_Q = jnp.cumsum(ranked.valid_Q)[ranked.last_Q] - found_Q
    positive = ranked.targets_Q.sum()
    allowed = (1 - specificity) * (ranked.valid_Q.sum() - positive)
    # Counts are whole numbers; the margin is for the rounding of `allowed`.
    best = jnp.where((false_Q <= allowed + 1e-3) & (ranked.valid_Q > 0), found_Q, 0).max()
    return _unless_nan(best / jnp.maximum(positive, 1), scores, mask)


def multiclass_sensitivity(
    outputs: Array, targets: Array, mask: Array | None = None, *, specificity: float = 0.95
) -> Array:
    """`sensitivity_at_specificity` of each class against all others, the mean over classes.

    Arguments as in `multiclass_auroc`. Classes without an example do not count.

    >>> outputs = jnp.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 4.0]])
    >>> float(multiclass_sensitivity(outputs, jnp.array([0, 1, 2])))
    1.0
    """

    def metric(scores: Array, targets: Array, mask: Array | None) -> Array:
        return sensitivity_at_specificity(scores, targets, mask, specificity=specificity)

    return _against_the_rest(metric, outputs, targets, mask)


def _against_the_rest(
    metric: Callable[[Array, Array, Array | None], Array],
    outputs: Array,
    targets: Array,
    mask: Array | None,
) -> Array:
    """The mean of a metric over the classes that have examples, each against all others."""
    logarithms_QW = jax.nn.log_softmax(outputs)
    classes_W = jnp.arange(outputs.shape[1])
    own_QW = (targets[:, None] == classes_W[None]).astype(jnp.int32)
    each_W = jax.vmap(metric, in_axes=(1, 1, None))(logarithms_QW, own_QW, mask)
    present_W = (own_QW * valid_mask(mask, len(targets))[:, None]).sum(axis=0) > 0
    return jnp.where(present_W, each_W, 0).sum() / jnp.maximum(present_W.sum(), 1)


def ndcg(scores: Array, targets: Array, mask: Array | None = None, *, top: int = 5) -> Array:
    """Normalised discounted cumulative gain of the `top` examples of largest score.

        DCG = Σ_{i ≤ top} y_i / log₂(i + 1), in the order of the scores,  nDCG = DCG / largest DCG

    Examples of equal score share the mean of their gains. If all targets are 0 it is 0.

    Args:
      scores: float `[examples]`.
      targets: float `[examples]`, the gains, at least 0.
      mask: None or bool `[examples]`.
      top: the number of examples that count.

    Source: Järvelin, Kekäläinen 2002; `sklearn.metrics.ndcg_score`.

    >>> round(float(ndcg(jnp.array([3.0, 2.0, 1.0]), jnp.array([0.0, 1.0, 0.0]))), 4)
    0.6309
    """
    places = jnp.arange(scores.shape[0])
    discounts_Q = jnp.where(places < top, 1 / jnp.log2(places + 2.0), 0)

    def gained(by: Array) -> Array:
        ranked = _ranked(-by, targets, mask)
        sums_Q, counts_Q = (
            jnp.concatenate([jnp.zeros((1,), scores.dtype), jnp.cumsum(own)])
            for own in (ranked.targets_Q, ranked.valid_Q)
        )
        of_equal_Q = (own[ranked.last_Q + 1] - own[ranked.first_Q] for own in (sums_Q, counts_Q))
        total_Q, count_Q = of_equal_Q
        return (discounts_Q * ranked.valid_Q * total_Q / jnp.maximum(count_Q, 1)).sum()

    best = gained(targets.astype(scores.dtype))
    found = gained(scores) / jnp.where(best > 0, best, 1)
    return _unless_nan(jnp.where(best > 0, found, 0), scores, mask)


def calibration_error(
    probabilities: Array, targets: Array, mask: Array | None = None, *, bins: int = 10
) -> Array:
    """Expected calibration error of the probabilities of class 1, in `bins` of equal width.

        ECE = Σ_b n_b / n · |mean target of bin b − mean probability of bin b|

    Args:
      probabilities: float `[examples]`, of class 1.
      targets: `[examples]`, 0 or 1.
      mask: None or bool `[examples]`.
      bins: number of bins of [0, 1].

    Source: Naeini, Cooper, Hauskrecht 2015; the bins of `sklearn.calibration.calibration_curve`.

    >>> float(calibration_error(jnp.array([0.75, 0.75]), jnp.array([1, 0])))
    0.25
    """
    found = reliability(probabilities, targets, mask, bins=bins)
    gaps_B = jnp.abs(found.targets_B - found.probabilities_B)
    error = gaps_B.sum() / jnp.maximum(found.counts_B.sum(), 1)
    return _unless_nan(error, probabilities, mask)


def mean_absolute_error(outputs: Array, targets: Array, mask: Array | None = None) -> Array:
    """The mean of |output − target|, over the valid examples, in the targets' unit.

    >>> float(mean_absolute_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 3.0])))
    0.5
    """
    outputs, targets = fill_padding((outputs, targets), mask)
    return masked_mean(jnp.abs(outputs - targets), mask)


def root_mean_squared_error(outputs: Array, targets: Array, mask: Array | None = None) -> Array:
    """The square root of the mean of (output − target)², in the targets' unit.

    >>> round(float(root_mean_squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 5.0]))), 4)
    1.4142
    """
    outputs, targets = fill_padding((outputs, targets), mask)
    return jnp.sqrt(masked_mean(jnp.square(outputs - targets), mask))


def qlike(forecasts: Array, realised: Array, mask: Array | None = None) -> Array:
    """The quasi-likelihood loss of forecasts of a variance; 0 if all are exact.

        mean_i r_i / f_i − log(r_i / f_i) − 1,  f the forecast variance, r the realised variance

    Args:
      forecasts, realised: float `[examples]`, positive variances in the same unit.
      mask: None or bool `[examples]`.

    Source: Patton 2011, "Volatility forecast comparison using imperfect volatility proxies",
    equation 24, in the form that is 0 at its minimum.

    >>> round(float(qlike(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))), 4)
    0.0966
    """
    forecasts, realised = fill_padding((forecasts, realised), mask)
    ratio = realised / forecasts
    return masked_mean(ratio - jnp.log(ratio) - 1, mask)


class _Ranked(NamedTuple):
    """Examples in ascending order of a key, the padding last.

    Attributes:
      targets_Q: the targets; 0 for padding.
      valid_Q: 1 for valid examples, 0 for padding.
      first_Q, last_Q: the first and the last position with the same key.
    """

    targets_Q: Array
    valid_Q: Array
    first_Q: Array
    last_Q: Array


def _ranked(keys_Q: Array, targets_Q: Array, mask: Array | None) -> _Ranked:
    chex.assert_rank([keys_Q, targets_Q], 1)
    chex.assert_equal_shape([keys_Q, targets_Q])
    valid_Q = valid_mask(mask, keys_Q.shape[0])
    keys_Q = jnp.where(valid_Q, keys_Q, jnp.inf)
    order_Q = jnp.lexsort((~valid_Q, keys_Q))  # after valid keys that are infinite, too
    keys_Q, valid_Q = keys_Q[order_Q], valid_Q[order_Q]
    dtype = keys_Q.dtype
    last_Q = jnp.searchsorted(keys_Q, keys_Q, side="right") - 1
    return _Ranked(
        jnp.where(valid_Q, targets_Q[order_Q], 0).astype(dtype),
        valid_Q.astype(dtype),
        jnp.searchsorted(keys_Q, keys_Q),
        jnp.where(valid_Q, jnp.minimum(last_Q, valid_Q.sum() - 1), last_Q),
    )


def _unless_nan(value: Array, scores: Array, mask: Array | None) -> Array:
    """The value; NaN if a valid score is NaN, whose rank would be arbitrary."""
    lost = jnp.isnan(scores) & valid_mask(mask, scores.shape[0])
    return jnp.where(lost.any(), jnp.nan, value)


def frechet_distance(first: Array, second: Array) -> Array:
    """The Fréchet distance of Gaussians that are fitted to two sets of features.

        ‖μ_1 − μ_2‖² + tr(Σ_1 + Σ_2 − 2 (Σ_1^½ Σ_2 Σ_1^½)^½)

    Args:
      first, second: float `[N, D]` and `[M, D]`, at least two rows each. With fewer rows than
        features, the covariances are singular, and the distance of two samples of one distribution
        is large: compare with that of two real samples.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local
    Nash equilibrium", equation 6 (there with Inception's features).

    >>> points = jnp.array([[0.0], [2.0]])
    >>> float(frechet_distance(points, 2 * points + 3).round(4))  # 4² + (√2 − √8)²
    18.0
    """
    chex.assert_rank([first, second], 2)
    means = [features.mean(axis=0) for features in (first, second)]
    spreads = [jnp.atleast_2d(jnp.cov(features, rowvar=False)) for features in (first, second)]
    values, vectors = jnp.linalg.eigh(spreads[0])
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T
    crossed = jnp.linalg.eigvalsh(root @ spreads[1] @ root)
    shared = jnp.sqrt(jnp.maximum(crossed, 0)).sum()
    traces = jnp.trace(spreads[0]) + jnp.trace(spreads[1])
    return jnp.square(means[0] - means[1]).sum() + traces - 2 * shared
