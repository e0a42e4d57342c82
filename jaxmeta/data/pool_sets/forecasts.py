"""Tests of forecasts: Diebold and Mariano's of two forecasts, and Kupiec's of a risk."""

import math
from typing import NamedTuple

import numpy as np


class Tested(NamedTuple):
    """A test statistic and its p-value.

    Attributes:
      statistic: of the test.
      p_value: the probability of a statistic as extreme under the null hypothesis.
    """

    statistic: float
    p_value: float


def diebold_mariano(differences: np.ndarray, lags: int | None = None) -> Tested:
    """Diebold and Mariano's test that two forecasts have the same expected loss.

        DM = d̄ / √(V / T),  V = γ_0 + 2 Σ_{l ≤ L} (1 − l / (L + 1)) γ_l,  DM ~ N(0, 1)

    with d_t the loss of the first minus that of the second, and γ_l its autocovariance. A negative
    statistic favours the first.

    Args:
      differences: float `[T]`, d in the order of time.
      lags: L, of the variance of Newey and West. Defaults to the integer part of T^(1/3).

    Raises:
      ValueError: fewer than two differences, or all are equal.

    Source: Diebold, Mariano 1995, "Comparing predictive accuracy", section 1.1; Newey, West 1987.

    >>> found = diebold_mariano(np.array([1.0, -1.0, 1.0, 3.0]), lags=0)
    >>> round(found.statistic, 4), round(found.p_value, 4)
    (1.4142, 0.1573)
    """
    count = len(differences)
    lags = int(count ** (1 / 3) + 1e-9) if lags is None else lags
    if count < 2 or not np.ptp(differences) > 0:
        raise ValueError(
            f"diebold_mariano: {count} differences; give at least two that are not all equal"
        )
    centred = np.asarray(differences, float) - np.mean(differences)
    variance = centred @ centred / count
    for lag in range(1, min(lags, count - 1) + 1):
        covariance = centred[lag:] @ centred[:-lag] / count
        variance += 2 * (1 - lag / (lags + 1)) * covariance
    statistic = float(np.mean(differences)) / math.sqrt(variance / count)
    return Tested(statistic, math.erfc(abs(statistic) / math.sqrt(2)))


def kupiec(exceedances: int, count: int, probability: float) -> Tested:
    """Kupiec's test that a value at risk is exceeded with its probability.

        LR = −2 log [ (1 − p)^(n − x) p^x / ((1 − x/n)^(n − x) (x/n)^x) ] ~ χ²(1)

    Args:
      exceedances: x, the number of days with a larger loss.
      count: n, the number of days.
      probability: p.

    Raises:
      ValueError: a number is out of its range.

    Source: Kupiec 1995, "Techniques for verifying the accuracy of risk measurement models".

    >>> found = kupiec(9, 250, 0.01)
    >>> round(found.statistic, 2), round(found.p_value, 4)
    (10.23, 0.0014)
    """
    if not (0 <= exceedances <= count and count > 0 and 0 < probability < 1):
        raise ValueError(
            f"kupiec: {exceedances} of {count} days, probability {probability}; give 0 ≤ x ≤ n, "
            "n > 0 and 0 < p < 1"
        )

    def log_likelihood(rate: float) -> float:
        return sum(
            number * math.log(chance)
            for number, chance in ((exceedances, rate), (count - exceedances, 1 - rate))
            if number
        )

    ratio = 2 * (log_likelihood(exceedances / count) - log_likelihood(probability))
    return Tested(max(ratio, 0.0), math.erfc(math.sqrt(max(ratio, 0.0) / 2)))
