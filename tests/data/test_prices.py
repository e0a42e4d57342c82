"""The volatility of stocks: what is known the evening before, and the parts in order of time."""

import jax
import numpy as np
import pytest

from jaxmeta.data.cache import data_folder
from jaxmeta.data.prices import load_volatilities, volatility_streams


@pytest.fixture
def folder(tmp_path):
    """Two stocks over three years of 60 days; one price is missing."""
    rng = np.random.default_rng(0)
    days = [f"{year}-{1 + day // 28:02}-{1 + day % 28:02}" for year in range(2015, 2018)
            for day in range(60)]  # fmt: skip
    close = np.exp(np.cumsum(0.01 * rng.normal(size=(2, 180)), axis=1))
    spread = np.exp(0.01 * (1 + rng.uniform(size=(2, 180))))
    prices = np.stack([close, close * spread, close / spread, close, close], axis=-1)
    prices[1, 40] = np.nan
    np.savez(
        tmp_path / "sp500_5yr.npz",
        ohlcv=prices.astype(np.float32),
        ticker=np.array(["A", "B"]),
        date=np.array(days),
    )
    return tmp_path


def test_inputs_are_of_the_days_before(folder):
    parts = load_volatilities(10, data_dir=folder)
    with np.load(folder / "sp500_5yr.npz") as stored:
        high, low, close = (stored["ohlcv"][..., i].astype(np.float64) for i in (1, 2, 3))
    volatility = np.log(np.log(high / low) / (2 * np.sqrt(np.log(2))))
    own = parts["validation"]  # days 60 to 119
    expected = np.stack(
        [
            [volatility[0, day - 1] for day in range(60, 120)],
            [volatility[0, day - 5 : day].mean() for day in range(60, 120)],
            [volatility[0, day - 22 : day].mean() for day in range(60, 120)],
            [np.log(close[0, day - 1] / close[0, day - 2]) for day in range(60, 120)],
        ],
        axis=-1,
    )
    for column in range(4):  # scaled, so up to a line
        found = np.corrcoef(own.inputs[0, :, column], expected[:, column])[0, 1]
        assert found > 1 - 1e-6
    assert np.corrcoef(own.targets[0, :, 0], volatility[0, 60:120])[0, 1] > 1 - 1e-6


def test_windows_have_no_gap_and_stay_in_their_part(folder):
    parts = load_volatilities(10, data_dir=folder)
    assert [own.inputs.shape for own in parts.values()] == [(2, 60, 4)] * 3
    first = {stock: set(parts["train"].starts[:, 1][parts["train"].starts[:, 0] == stock])
             for stock in (0, 1)}  # fmt: skip
    assert first[0] == set(range(22, 51))
    assert first[1] == set(range(22, 31))  # day 40 is in the inputs of 22 days
    assert len(parts["test"].starts) == 2 * 51
    sample = volatility_streams(parts["test"], length=10)
    tasks = jax.vmap(sample)(jax.random.split(jax.random.key(0), 5))
    assert tasks.query.inputs.shape == (5, 10, 4)
    assert tasks.query.targets.shape == (5, 10, 1)
    assert tasks.support.targets.shape == (5, 0, 1)


def test_the_published_csv_file_is_read_too(folder, tmp_path):
    """`all_stocks_5yr.csv`, made of the same prices: the same volatilities."""
    with np.load(folder / "sp500_5yr.npz") as stored:
        prices, dates = stored["ohlcv"], stored["date"]
    rows = [
        ",".join([date, *(f"{value!r}" for value in map(float, row)), name])
        for name, own in zip("AB", prices)
        for date, row in zip(dates, own)
        if np.isfinite(row).all()
    ]
    lines = ["date,open,high,low,close,volume,Name", *rows]
    other = tmp_path / "other"
    other.mkdir()
    (other / "all_stocks_5yr.csv").write_text("\n".join(lines) + "\n")
    ours, theirs = (load_volatilities(10, data_dir=own) for own in (folder, other))
    for part, own in ours.items():
        np.testing.assert_array_equal(own.targets, theirs[part].targets)
        np.testing.assert_array_equal(own.starts, theirs[part].starts)


def test_what_is_missing_is_told(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no prices; put all_stocks_5yr\.csv of"):
        load_volatilities(10, data_dir=tmp_path / "nothing")
    with pytest.raises(ValueError, match="length 61: the part train has 60 days"):
        load_volatilities(61, data_dir=folder)
    np.savez(folder / "sp500_5yr.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold ohlcv, ticker and date"):
        load_volatilities(10, data_dir=folder)
    few = {"ticker": np.array(["A", "B"]), "date": np.array(["2015-01-01"])}
    np.savez(folder / "sp500_5yr.npz", ohlcv=np.zeros((2, 3, 5)), **few)
    with pytest.raises(ValueError, match=r"ohlcv is \(2, 3, 5\); give \[stocks, 1 days, 5\]"):
        load_volatilities(10, data_dir=folder)


@pytest.mark.skipif(
    not (data_folder("sp500_5yr") / "sp500_5yr.npz").exists(), reason="no prices here"
)
def test_the_real_prices():
    parts = load_volatilities(60)
    assert parts["train"].inputs.shape[0] == 505
    assert all(np.isfinite(own.inputs).all() for own in parts.values())
    training = parts["train"]
    rows = training.targets[np.abs(training.inputs).sum(axis=2) > 0]
    np.testing.assert_allclose([rows.mean(), rows.std()], [0, 1], atol=0.02)
