"""Volatility: both forms of prices, what a day knows, the split in time, and tests of forecasts."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxmeta.core import Batch
from jaxmeta.data._whole_pools import whole_pools
from jaxmeta.data.pool_sets.forecasts import diebold_mariano, kupiec
from jaxmeta.data.pool_sets.volatility import (
    QUERY,
    SUPPORT,
    describe_days,
    exceedances,
    volatility,
)
from jaxmeta.data.prices import read_prices

STOCKS = 4


def prices(seed: int = 0):
    """Prices of four stocks on the working days of four years, with clusters of volatility."""
    rng = np.random.default_rng(seed)
    days = np.arange(np.datetime64("2014-01-01"), np.datetime64("2018-01-01"))
    days = days[np.is_busday(days)]
    log_scale = np.zeros(len(days))
    for day in range(1, len(days)):
        log_scale[day] = 0.95 * log_scale[day - 1] + 0.2 * rng.normal()
    scale = 0.01 * np.exp(log_scale)
    close = 50 * np.exp(np.cumsum(scale * rng.normal(size=(STOCKS, len(days))), axis=1))
    spread = np.exp(scale * rng.uniform(0.5, 1.5, size=close.shape))
    high, low = close * spread, close / spread
    high[3, 5], low[3, 5] = low[3, 5], low[3, 5]  # a day without trade
    names = [f"S{number}" for number in range(STOCKS)]
    return names, [str(day) for day in days], high, low, close


def write_csv(folder):
    names, dates, high, low, close = prices()
    (folder / "individual_stocks_5yr").mkdir()
    for row, name in enumerate(names):
        lines = ["date,open,high,low,close,volume,Name"]
        for at, date in enumerate(dates):
            cells = [repr(float(own[row, at])) for own in (high, low, close)]
            lines.append(f"{date},,{','.join(cells)},1,{name}")
        path = folder / "individual_stocks_5yr" / f"{name}_data.csv"
        path.write_text("\n".join(lines))
    return folder


def write_npz(folder):
    names, dates, high, low, close = prices()
    table = np.stack([close, high, low, close, close], axis=2)
    np.savez(folder / "sp500_5yr.npz", ohlcv=table, ticker=names, date=dates)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return volatility(write_npz(tmp_path_factory.mktemp("prices")))


def test_both_forms_are_the_same_prices(found, tmp_path):
    other = volatility(write_csv(tmp_path))
    for part in ("train", "validation", "test"):
        one, two = found.parts[part], other.parts[part]
        assert one.names == two.names
        np.testing.assert_allclose(one.targets, two.targets, atol=1e-5)
        np.testing.assert_allclose(one.inputs[one.rows], two.inputs[two.rows], atol=1e-4)


def test_a_missing_folder_and_a_table_without_prices(tmp_path):
    with pytest.raises(FileNotFoundError, match="put all_stocks_5yr.csv of https://www.kaggle"):
        volatility(tmp_path)
    (tmp_path / "all_stocks_5yr.csv").write_text("date,high,low,Name\n2014-01-01,2,1,A")
    with pytest.raises(ValueError, match="has no column 'close'"):
        volatility(tmp_path)


def test_no_day_of_the_test_is_in_training(found, tmp_path):
    days = describe_days(read_prices(write_npz(tmp_path)))
    _, dates, *_ = prices()
    dates = np.array(dates)[days.dates]
    of_part = {part: sorted(dates[own.rows].tolist()) for part, own in found.parts.items()}
    assert of_part["train"][-1] < "2016" <= of_part["validation"][0]
    assert of_part["validation"][-1] < "2017"
    whole = whole_pools(found.test, support=SUPPORT, order="time")
    asked = []
    for pool, places in zip(whole.pools.tolist(), whole.places):
        (own,) = dates[found.test.rows[places]]
        assert (own[1:] > own[:-1]).all()  # never shuffled
        assert own[SUPPORT] >= "2017" and len(own) == SUPPORT + QUERY
        stock, first = found.test.names[pool].split()
        assert own[SUPPORT] == first
        asked += [(stock, day) for day in own[SUPPORT:]]
    assert len(asked) == len({*asked}) == len(whole.pools) * QUERY


def test_the_query_is_the_same_after_fewer_days(found):
    """The support is the days just before it."""
    long, short = (
        found.drawing.enumerate(found.test, support=size, order="time") for size in (SUPPORT, 10)
    )
    assert long.pools.tolist() == short.pools.tolist()
    for whole, few in zip(long.places, short.places):
        np.testing.assert_array_equal(few, whole[:, SUPPORT - 10 :])
    same = whole_pools(found.test, support=SUPPORT, order="time")
    chosen = dict(zip(same.pools.tolist(), same.places))
    for pool, places in zip(long.pools.tolist(), long.places):
        np.testing.assert_array_equal(places, chosen[pool])


def test_a_day_knows_the_days_before_it_alone(tmp_path):
    given = read_prices(write_npz(tmp_path))
    before = describe_days(given)
    at = 300
    for own in (given.high, given.low, given.close):
        own[:, at:] *= np.linspace(1, 2, own.shape[1] - at)
    given.high[:, at:] *= 1.1
    after = describe_days(given)
    early = before.dates <= at
    np.testing.assert_array_equal(before.inputs[early], after.inputs[early])
    changed = before.dates == at + 1
    assert (before.inputs[changed] != after.inputs[changed]).any(axis=1).all()


def test_the_columns_by_hand(tmp_path):
    given = read_prices(write_npz(tmp_path))
    days = describe_days(given)
    variance = np.log(given.high[0] / given.low[0]) ** 2 / (4 * np.log(2))
    (row,) = np.flatnonzero((days.stocks == 0) & (days.dates == 24))
    expected = [np.log(variance[24 - length : 24].mean()) for length in (1, 5, 22)]
    average = variance[:22].mean()
    for day in (22, 23):
        average = 0.94 * average + 0.06 * variance[day]
    shock = np.log(given.close[0, 23] / given.close[0, 22]) / math.sqrt(variance[2:24].mean())
    np.testing.assert_allclose(days.inputs[row], [*expected, np.log(average), shock], rtol=1e-9)
    assert days.log_variance[row] == pytest.approx(np.log(variance[24]))
    # The fourth stock has no range on its sixth day, which is left out.
    assert (days.stocks == 0).sum() == (days.stocks == 3).sum() + 1


def test_baselines_are_the_forecasts(found):
    raw = found.test.inputs[:7] * np.array(found.scale) + np.array(found.centre)
    weights, level = found.protocol["har"], found.protocol["kappa"]
    har = level * np.exp(weights[0] + raw[:, :3] @ weights[1:])
    for name, column in (("EWMA (0.94)", 3), ("last value", 0)):
        outputs = found.baselines[name](None, None, found.test.inputs[:7], 0)
        np.testing.assert_allclose(np.exp(outputs[:, 0]) * har, np.exp(raw[:, column]), rtol=1e-3)
    assert (found.baselines["HAR"](None, None, found.test.inputs[:7], 0) == 0).all()
    training = found.train.targets[:, 0]
    assert abs(training.mean()) < 1e-5 and np.exp(training).mean() == pytest.approx(level, rel=1e-4)
    query = Batch(None, np.log(np.array([[2.0], [3.0]], np.float32) * level))
    ratio = np.array([2.0, 3.0])
    judged = found.metrics(np.zeros((2, 1), np.float32), query)
    assert float(judged["qlike"]) == pytest.approx((ratio - np.log(ratio) - 1).mean(), rel=1e-5)


def test_further_results_compare_the_methods_day_by_day(found):
    whole = whole_pools(found.test, support=SUPPORT, order="time", shapes=1)
    places = np.stack([own[0, SUPPORT:] for own in whole.places])
    outputs = {}
    for name, values in (("best", found.test.targets[places][:, :, 0]), ("HAR", 0 * places)):
        outputs[name] = {"outputs": np.asarray(values, float)}
    results = found.further(whole, outputs)
    row = results["diebold_mariano"]["HAR"]
    assert row["statistic"] < -5 and row["p_value"] < 1e-6 and row["days"] >= QUERY
    for risk in ("0.01", "0.05"):
        own = results["value_at_risk"]["HAR"][risk]
        assert 0 <= own["rate"] < 0.2 and 0 <= own["stocks_rejected"] <= 1


# --- tests of forecasts -------------------------------------------------------------------


def test_diebold_mariano_is_the_t_test_without_lags():
    gaps = np.random.default_rng(0).normal(0.2, 1, 50)
    found = diebold_mariano(gaps, lags=0)
    statistic = gaps.mean() / (gaps.std() / math.sqrt(50))
    assert found.statistic == pytest.approx(statistic)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(statistic)))


def test_diebold_mariano_counts_correlated_days_less():
    gaps = np.array([1.0, 1.0, 3.0, 3.0])
    # γ_0 = 1 and γ_1 = 1/4: V = 1 + 2 (1 − 1/2) / 4.
    expected = 2 / math.sqrt(1.25 / 4)
    assert diebold_mariano(gaps, lags=1).statistic == pytest.approx(expected)
    assert diebold_mariano(gaps).statistic == pytest.approx(expected)  # 4^(1/3) is 1.6
    assert diebold_mariano(-gaps, lags=1).statistic == pytest.approx(-expected)
    for wrong in (np.ones(3), np.ones(1)):
        with pytest.raises(ValueError, match="at least two that are not all equal"):
            diebold_mariano(wrong)


def test_kupiec_is_the_likelihood_ratio():
    for exceeded, count, risk in ((9, 250, 0.01), (0, 100, 0.05), (5, 100, 0.05), (7, 7, 0.5)):
        own = stats.binom.logpmf(exceeded, count, exceeded / count)
        ratio = 2 * (own - stats.binom.logpmf(exceeded, count, risk))
        found = kupiec(exceeded, count, risk)
        assert found.statistic == pytest.approx(ratio, abs=1e-9)
        assert found.p_value == pytest.approx(stats.chi2.sf(max(ratio, 0), 1), abs=1e-9)
    with pytest.raises(ValueError, match="5 of 4 days"):
        kupiec(5, 4, 0.01)


def test_exceedances_are_counted_by_stock():
    returns = np.concatenate([np.full(50, -2.0), np.full(50, 2.0)])
    found = exceedances(returns, np.full(100, -1.0), np.repeat([0, 1], 50), 0.05)
    assert found["rate"] == 0.5 and found["stocks_rejected"] == 1
    assert found["kupiec_p_value"] < 1e-6
