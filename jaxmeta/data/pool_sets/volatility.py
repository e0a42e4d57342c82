"""The volatility of stocks on the next day, from their prices before it.

A task is a stock and a window: the support is the days before, the query the days after, in the
order of time. Days before 2016 are for training, 2016 for validation, later ones for testing. The
variance of a day is Parkinson's (1980), from its highest and lowest price:

    P_t = (log(high / low))² / (4 log 2)

The target is log(P_t / h_t), with h_t the forecast of HAR (Corsi 2009): the regression of log P_t
on the logarithms of the means of P over the last day, week (5) and month (22 days), by least
squares on the training days of all stocks. A prediction of 0 is HAR's. A prediction o stands for
the variance κ h_t exp(o), with κ the mean of P_t / h_t on training days.

The prices are the five years to February 2018 of the stocks that were in the S&P 500 then: stocks
that left the index or failed are absent, which flatters every method. The public form is "S&P 500
stock data" of Kaggle (camnugent/sandp500): `all_stocks_5yr.csv`, or the CSV files of
`individual_stocks_5yr`, in the folder `sp500_5yr` of `JAXMETA_DATA_DIR`. A smaller form,
`sp500_5yr.npz`, is read too.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmeta import metrics
from jaxmeta.core import Array, Batch
from jaxmeta.data._whole_pools import WholePools, whole_pools
from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.dataset import Baseline, Drawing, Outputs, PoolSet
from jaxmeta.data.pool_sets.forecasts import diebold_mariano, kupiec
from jaxmeta.data.pool_sets.registry import pool_source
from jaxmeta.data.pools import Pools, pool_tasks, pools_by
from jaxmeta.data.prices import Prices, read_prices

COLUMNS = ("day", "week", "month", "ewma", "shock")
VALIDATION, TEST = "2016-01-01", "2017-01-01"  # the first days of these parts
SUPPORT, QUERY = 60, 55  # days of a test window; the test has five times 55 days
_MONTH = 22
_DECAY = 0.94  # RiskMetrics 1996
_LEAST_RANGE = 1e-4  # of log(high / low): days without trade have no proxy and are left out
_RISKS = (0.01, 0.05)


class Days(NamedTuple):
    """The days of all stocks that have a proxy and a month before them, each stock in order.

    Attributes:
      stocks, dates: int `[days]`, indices into names and dates.
      inputs: float `[days, 5]`, the columns, of earlier days alone.
      log_variance: float `[days]`, log P.
      returns: float `[days]`, log(close / close of the last day).
    """

    stocks: np.ndarray
    dates: np.ndarray
    inputs: np.ndarray
    log_variance: np.ndarray
    returns: np.ndarray


@pool_source(
    "volatility", kind="regression", test_support=(SUPPORT,), train_support=(SUPPORT // 3, SUPPORT)
)
def volatility(folder: str | Path | None = None) -> PoolSet:
    """Reads the prices from `folder`; see the module.

    Raises:
      OSError, ValueError: files are missing or damaged; no stock has days in all three parts.
    """
    found = read_prices(data_folder("sp500_5yr", folder))
    days = describe_days(found)
    dates = np.array(found.dates)[days.dates]
    training = dates < VALIDATION
    if not training.any() or not (dates >= TEST).any():
        raise ValueError(
            f"volatility: prices from {found.dates[0]} to {found.dates[-1]}; give some before "
            f"{VALIDATION} and after {TEST}"
        )
    regressors = np.concatenate([np.ones((len(dates), 1)), days.inputs[:, :3]], axis=1)
    weights, *_ = np.linalg.lstsq(regressors[training], days.log_variance[training])
    targets = days.log_variance - regressors @ weights
    level = float(np.exp(targets[training]).mean())
    centre, scale = days.inputs[training].mean(axis=0), days.inputs[training].std(axis=0)
    inputs = ((days.inputs - centre) / scale).astype(np.float32)
    forecasts = level * np.exp(regressors @ weights)
    relative = days.returns[training] / np.sqrt(forecasts[training])
    quantiles = {risk: float(np.quantile(relative, risk)) for risk in _RISKS}
    names = np.array(found.names)[days.stocks]

    def part(chosen: np.ndarray, owners: np.ndarray) -> Pools:
        return pools_by(inputs, targets[chosen].astype(np.float32), owners, rows=chosen)

    of_validation = (dates >= VALIDATION) & (dates < TEST)
    rows, owners = test_windows(days.stocks, dates, names)
    test = part(rows, owners)

    def judged(outputs: Array, query: Batch) -> Mapping[str, Array]:
        ratio = jnp.exp(outputs[:, 0]) * level
        qlike = metrics.qlike(ratio, jnp.exp(query.targets[:, 0]), query.mask)
        return {
            "qlike": qlike,
            "rmse_log": metrics.root_mean_squared_error(outputs, query.targets, query.mask),
        }

    def column(at: int) -> Baseline:
        def of_task(
            known: np.ndarray, values: np.ndarray, asked: np.ndarray, seed: int
        ) -> np.ndarray:
            raw = asked * scale + centre
            own = raw[:, at] - weights[0] - raw[:, :3] @ weights[1:] - np.log(level)
            return own[:, None].astype(np.float32)

        return of_task

    def further(whole: WholePools, outputs: Outputs) -> dict[str, Any]:
        used = np.stack([test.rows[own[0, whole.size :]] for own in whole.places])
        stocks = days.stocks[used]
        learner, *others = (
            (method, level * np.exp(own["outputs"])) for method, own in outputs.items()
        )
        realised = np.exp(targets[used])
        losses = {name: qlike_by_day(own, realised) for name, own in (learner, *others)}
        found = {}
        for name, _ in others:
            gap = by_date(losses[learner[0]] - losses[name], days.dates[used])
            found[name] = diebold_mariano(gap)._asdict() | {"days": len(gap)}
        har = np.exp(regressors[used] @ weights)
        risks = {
            name: {
                f"{risk:g}": exceedances(
                    days.returns[used], quantile * np.sqrt(own * har), stocks, risk
                )
                for risk, quantile in quantiles.items()
            }
            for name, own in (learner, *others)
        }
        return {"diebold_mariano": found, "value_at_risk": risks}

    return PoolSet(
        "volatility",
        "regression",
        part(np.flatnonzero(training), names[training]),
        part(
            np.flatnonzero(of_validation),
            np.array([f"{name} 2016" for name in names[of_validation]]),
        ),
        test,
        judged,
        "qlike",
        higher=False,
        order="time",
        drawing=Drawing(pool_tasks, partial(whole_pools, queries=QUERY), lambda pools: SUPPORT),
        details=lambda outputs, query: {"outputs": outputs[:, 0]},
        further=further,
        baselines={
            "HAR": lambda known, values, asked, seed: np.zeros((len(asked), 1), np.float32),
            "EWMA (0.94)": column(3),
            "last value": column(0),
        },
        columns=COLUMNS,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        protocol={
            "split": f"by time: train before {VALIDATION}, test from {TEST}",
            "test_window": [SUPPORT, QUERY],
            "har": [round(own, 6) for own in weights.tolist()],
            "kappa": round(level, 6),
            "stocks": len(found.names),
            "survivors": "the index members at the end of the data only",
        },
        source="https://www.kaggle.com/datasets/camnugent/sandp500",
    )


def describe_days(prices: Prices) -> Days:
    """The inputs and the variance of each day.

    day, week, month: the log of the mean of P over the last 1, 5 and 22 days; ewma: log E_t, with
    E_t = 0.94 E_{t−1} + 0.06 P_{t−1}, beginning with the mean of the first month; shock: the last
    return over the root of the month's mean of P, at most 8 in size.
    """
    found = []
    for stock in range(len(prices.names)):
        high, low, close = (own[stock] for own in (prices.high, prices.low, prices.close))
        with np.errstate(invalid="ignore", divide="ignore"):
            span = np.log(high / low)
        (dates,) = np.nonzero((span > _LEAST_RANGE) & np.isfinite(span) & (close > 0))
        if len(dates) <= _MONTH:
            continue
        variance = np.square(span[dates]) / (4 * np.log(2))
        returns = np.diff(np.log(close[dates]), prepend=np.nan)
        total = np.concatenate([[0.0], np.cumsum(variance)])
        at = np.arange(_MONTH, len(dates))
        means = [(total[at] - total[at - length]) / length for length in (1, 5, _MONTH)]
        average = np.empty(len(dates))
        average[_MONTH] = variance[:_MONTH].mean()
        for day in range(_MONTH + 1, len(dates)):
            average[day] = _DECAY * average[day - 1] + (1 - _DECAY) * variance[day - 1]
        shock = np.clip(returns[at - 1] / np.sqrt(means[2]), -8, 8)
        inputs = np.stack([*np.log(means), np.log(average[at]), shock], axis=1)
        found.append(
            (np.full(len(at), stock), dates[at], inputs, np.log(variance[at]), returns[at])
        )
    if not found:
        raise ValueError(f"volatility: no stock has prices of more than {_MONTH} days")
    return Days(*(np.concatenate(own) for own in zip(*found)))


def test_windows(
    stocks: np.ndarray, dates: np.ndarray, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the test windows, 60 days and the next 55, and the name of each row's window.

    The queries of a stock follow each other without overlap; an incomplete last one is left out.
    """
    rows, owners = [], []
    for stock in np.unique(stocks):
        (own,) = np.nonzero(stocks == stock)
        first = int((dates[own] < TEST).sum())
        if first < SUPPORT:
            continue
        for start in range(first, len(own) - QUERY + 1, QUERY):
            window = own[start - SUPPORT : start + QUERY]
            rows.append(window)
            owners += [f"{names[own[0]]} {dates[own[start]]}"] * len(window)
    if not rows:
        raise ValueError(
            f"volatility: no stock has {SUPPORT} days before {TEST} and {QUERY} days after"
        )
    return np.concatenate(rows), np.array(owners)


def qlike_by_day(forecasts: np.ndarray, realised: np.ndarray) -> np.ndarray:
    """r / f − log(r / f) − 1, of each day.

    >>> qlike_by_day(np.array([1.0]), np.array([1.0])).tolist()
    [0.0]
    """
    ratio = realised / forecasts
    return ratio - np.log(ratio) - 1


def by_date(values: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """The mean of the values of each date, in order.

    >>> by_date(np.array([1.0, 3.0, 5.0]), np.array([2, 1, 2])).tolist()
    [3.0, 3.0]
    """
    _, index = np.unique(dates.ravel(), return_inverse=True)
    return np.bincount(index, weights=values.ravel()) / np.bincount(index)


def exceedances(
    returns: np.ndarray, limits: np.ndarray, stocks: np.ndarray, risk: float
) -> dict[str, float]:
    """How often returns are below their value at risk, and Kupiec's test of each stock.

    >>> found = exceedances(np.array([-2.0, 0.0]), np.array([-1.0, -1.0]), np.zeros(2, int), 0.5)
    >>> found["rate"], found["stocks_rejected"]
    (0.5, 0.0)
    """
    below = (returns < limits).ravel()
    _, index = np.unique(stocks.ravel(), return_inverse=True)
    numbers, counts = np.bincount(index, weights=below), np.bincount(index)
    each = [kupiec(int(x), int(n), risk) for x, n in zip(numbers, counts)]
    whole = kupiec(int(below.sum()), below.size, risk)
    return {
        "rate": float(below.mean()),
        "kupiec_statistic": whole.statistic,
        "kupiec_p_value": whole.p_value,
        "stocks_rejected": float(np.mean([own.p_value < 0.05 for own in each])),
    }
