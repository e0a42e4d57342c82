"""Probabilities of predictions: reliability, temperature, and abstaining from unsure predictions.

The functions are of one task; padding, which a mask marks, does not affect them.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.objectives import Array, fill_padding, masked_mean, valid_mask

__all__ = ["Reliability", "reliability", "risk_coverage", "temperature"]


class Reliability(NamedTuple):
    """Sums over the examples whose probability is in each of several bins of [0, 1].

    Sums of several tasks may be added; `targets_B / counts_B` over `probabilities_B / counts_B`
    is a reliability diagram.

    Attributes:
      counts_B: number of examples.
      probabilities_B: sum of the probabilities.
      targets_B: sum of the targets.
    """

    counts_B: Array
    probabilities_B: Array
    targets_B: Array


def reliability(
    probabilities: Array, targets: Array, mask: Array | None = None, *, bins: int = 10
) -> Reliability:
    """The sums of a reliability diagram, in bins of equal width.

    For several classes, give the largest probability of each example, and whether its class is
    right.

    Args:
      probabilities, targets, mask, bins: as in `calibration_error`.

    Source: DeGroot, Fienberg 1983; the bins of `sklearn.calibration.calibration_curve`.

    >>> found = reliability(jnp.array([0.7, 0.9, 0.2]), jnp.array([1, 0, 0]), bins=2)
    >>> found.counts_B.tolist(), found.targets_B.tolist()
    ([1.0, 2.0], [0.0, 1.0])
    """
    chex.assert_rank([probabilities, targets], 1)
    valid_Q = valid_mask(mask, probabilities.shape[0])
    edges = jnp.linspace(0, 1, bins + 1, dtype=probabilities.dtype)[1:-1]
    bins_Q = jnp.searchsorted(edges, probabilities)

    def summed(values_Q: Array) -> Array:
        values_Q = jnp.where(valid_Q, values_Q.astype(probabilities.dtype), 0)
        return jax.ops.segment_sum(values_Q, bins_Q, bins)

    return Reliability(summed(jnp.ones_like(probabilities)), summed(probabilities), summed(targets))


def risk_coverage(
    probabilities: Array, correct: Array, mask: Array | None = None, *, thresholds: Array
) -> tuple[Array, Array]:
    """Coverage and risk of a classifier that abstains below a threshold, for each threshold.

        coverage(t) = fraction of examples with probability ≥ t,
        risk(t) = fraction of these that are wrong; 0 if there are none

    Args:
      probabilities: float `[examples]`, of the predicted classes.
      correct: `[examples]`, 1 where the predicted class is right.
      mask: None or bool `[examples]`.
      thresholds: float `[thresholds]`.

    Returns:
      coverage and risk, float `[thresholds]` each.

    Source: El-Yaniv, Wiener 2010, "On the foundations of noise-free selective classification".

    >>> both = jnp.array([0.9, 0.6]), jnp.array([1, 0])
    >>> coverage, risk = risk_coverage(*both, thresholds=jnp.array([0.0, 0.7]))
    >>> coverage.tolist(), risk.tolist()
    ([1.0, 0.5], [0.5, 0.0])
    """
    chex.assert_rank([probabilities, correct, thresholds], 1)
    valid_Q = valid_mask(mask, probabilities.shape[0])
    answered_TQ = (probabilities[None] >= thresholds[:, None]) & valid_Q[None]
    wrong_TQ = answered_TQ & (correct[None] == 0)
    answered_T = answered_TQ.sum(axis=1)
    coverage_T = answered_T / jnp.maximum(valid_Q.sum(), 1)
    return coverage_T, wrong_TQ.sum(axis=1) / jnp.maximum(answered_T, 1)


def temperature(outputs: Array, targets: Array, mask: Array | None = None) -> Array:
    """The temperature of the softmax with the smallest cross-entropy, between 0.05 and 20.

        T = argmin_T mean_i −log softmax(z_i / T)[y_i]

    The cross-entropy is convex in 1 / T, so its derivative has one root, found by bisection. Where
    it does not depend on T, as for equal logits or without examples, T is 1.

    Args:
      outputs: logits z `[examples, classes]`.
      targets: int `[examples]`, the classes y.
      mask: None or bool `[examples]`.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2.

    >>> outputs = jnp.array([[2.0, 0.0]] * 4)  # with three of four right, log 3 is best
    >>> round(float(2.0 / temperature(outputs, jnp.array([0, 0, 0, 1]))), 3)
    1.099
    """
    chex.assert_rank([outputs, targets], [2, 1])
    outputs, targets = fill_padding((outputs, targets), mask)
    own_Q = jnp.take_along_axis(outputs, targets[:, None], axis=1)[:, 0]

    def slope(logarithm: Array) -> Array:
        """The derivative of the cross-entropy with respect to 1 / T, at 1 / T = e^logarithm."""
        expected_Q = (jax.nn.softmax(jnp.exp(logarithm) * outputs) * outputs).sum(axis=1)
        return masked_mean(expected_Q - own_Q, mask)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        above = slope(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    widest = jnp.log(jnp.asarray(20, outputs.dtype))
    low, high = jax.lax.fori_loop(0, 40, halve, (-widest, widest))
    undetermined = (slope(-widest) == 0) & (slope(widest) == 0)
    return jnp.where(undetermined, 1, jnp.exp(-(low + high) / 2))
