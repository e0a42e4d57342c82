"""Daily prices of stocks as streams: tomorrow's volatility from that of the days before.

The prices are the members of the S&P 500 index in 2018, from 2013 to 2018, in the folder
`sp500_5yr` of `JAXMETA_DATA_DIR`: `all_stocks_5yr.csv` of Kaggle (camnugent/sandp500), the CSV
files of `individual_stocks_5yr`, also at https://github.com/CNuge/kaggle-code (MIT), or a smaller
form, `sp500_5yr.npz` with `ohlcv`, float `[stocks, days, 5]` (open, high, low, close, volume; NaN
where absent), `ticker` and `date`. Companies that left the index are missing, so that results on it
flatter.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.table import numbers, read_columns
from jaxmeta.data.reading import listed, regular
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.files import shown

SOURCE = "https://github.com/CNuge/kaggle-code"
PARTS = {"train": ("", "2016"), "validation": ("2016", "2017"), "test": ("2017", "9")}
"""The first date of each part, and the first one after it."""
COLUMNS = ("day before", "mean of 5 days", "mean of 22 days", "return of the day before")
_MONTH = 22  # trading days
_LARGEST = 10.0  # of a scaled input, in standard deviations
_LEAST = 1e-4  # lower bound of a day's volatility: its high may equal its low


class Volatilities(NamedTuple):
    """One part of the data, in order of time.

    Attributes:
      inputs: float32 `[stocks, days, 4]`, see `COLUMNS`; known the evening before the day.
      targets: float32 `[stocks, days, 1]`, the logarithm of the day's volatility. Inputs and
        targets are scaled by mean and standard deviation over the training days. Inputs are
        clipped to ± 10.
      starts: int32 `[windows, 2]`, the stock and the first day of each window without a gap.
    """

    inputs: np.ndarray
    targets: np.ndarray
    starts: np.ndarray


def load_volatilities(
    length: int, *, data_dir: str | Path | None = None
) -> dict[str, Volatilities]:
    """The volatility of stocks by part, and where windows of `length` days may start.

        target_t = log σ_t,  σ_t = max(1e-4, log(high_t / low_t) / (2 √log 2))
        inputs_t = log σ_{t−1}, their means over 5 and over 22 days, log(close_{t−1} / close_{t−2})

    Training is before 2016, validation in 2016, the test after it; inputs of the first days of a
    part reach back into the one before.

    Args:
      length: days of a window.
      data_dir: the folder of the prices, see `read_prices`. Defaults to `sp500_5yr` in
        `JAXMETA_DATA_DIR`.

    Raises:
      FileNotFoundError: there are no prices; with their source.
      ValueError: a file has another content; or a part has no window of this length.

    Source of the volatility: Parkinson 1980, "The extreme value method for estimating the variance
    of the rate of return"; of the inputs: Corsi 2009, "A simple approximate long-memory model of
    realized volatility".
    """
    prices = read_prices(data_folder("sp500_5yr", data_dir))
    return _parts(*_columns(prices), np.array(prices.dates), length)


class Prices(NamedTuple):
    """Daily prices; NaN where a stock has none.

    Attributes:
      names: of the stocks.
      dates: `YYYY-MM-DD`, in order.
      high, low, close: float `[stocks, dates]`.
    """

    names: list[str]
    dates: list[str]
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray


def read_prices(place: Path) -> Prices:
    """Reads the prices in a folder, in one of the three forms.

    They are `sp500_5yr.npz`, `all_stocks_5yr.csv`, or CSV files in `individual_stocks_5yr`.

    Raises:
      OSError, ValueError: files are missing or damaged.
    """
    if (place / "sp500_5yr.npz").is_file():
        return _read_ohlcv(place / "sp500_5yr.npz")
    folders = [own for own in (place, place / "individual_stocks_5yr") if own.is_dir()]
    paths = [own / name for own in folders for name in listed(own) if name.endswith(".csv")]
    if (place / "all_stocks_5yr.csv").is_file():
        paths = [place / "all_stocks_5yr.csv"]
    if not paths:
        raise FileNotFoundError(
            f"{shown(place)} holds no prices; put all_stocks_5yr.csv of "
            "https://www.kaggle.com/datasets/camnugent/sandp500 there, or set JAXMETA_DATA_DIR to "
            "the folder that has sp500_5yr"
        )
    stocks, dates, rows = [], [], []
    for path in paths:
        columns = read_columns(path)
        if missing := {"date", "high", "low", "close", "Name"} - columns.keys():
            raise ValueError(
                f"{shown(path)} has no column {min(missing)!r}; give date, high, low, close, Name"
            )
        stocks += columns["Name"]
        dates += columns["date"]
        rows.append(numbers(path, {name: columns[name] for name in ("high", "low", "close")}))
    names, own = np.unique(stocks, return_inverse=True)
    days, when = np.unique(dates, return_inverse=True)
    table = np.full((len(names), len(days), 3), np.nan)
    table[own, when] = np.concatenate(rows)
    return Prices(names.tolist(), days.tolist(), *np.moveaxis(table, 2, 0))


def _read_ohlcv(path: Path) -> Prices:
    """The prices of `sp500_5yr.npz`.

    Raises:
      OSError, ValueError: the file can't be read, or has another content.
    """
    regular(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            prices = np.asarray(stored["ohlcv"], np.float64)
            names, dates = (np.asarray(stored[name], str) for name in ("ticker", "date"))
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{shown(path)} does not hold ohlcv, ticker and date ({error})."
        ) from error
    if prices.ndim != 3 or prices.shape[1:] != (len(dates), 5):
        raise ValueError(
            f"{shown(path)}: ohlcv is {prices.shape}; give [stocks, {len(dates)} days, 5]."
        )
    return Prices(names.tolist(), dates.tolist(), *np.moveaxis(prices[..., 1:4], 2, 0))


def _columns(prices: Prices) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `[stocks, days, 4]` and targets `[stocks, days, 1]`, NaN where a price is missing."""
    high, low, close = prices.high, prices.low, prices.close
    with np.errstate(invalid="ignore", divide="ignore"):
        volatility = np.log(high / low) / (2 * np.sqrt(np.log(2)))
        log_volatility = np.log(np.maximum(volatility, _LEAST))
        returns = np.diff(np.log(close), axis=1, prepend=np.nan)

    def mean_before(days: int) -> np.ndarray:
        rows = np.full(log_volatility.shape, np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(log_volatility, days, axis=1)
        rows[:, days:] = windows[:, :-1].mean(axis=-1)
        return rows

    before = np.full(returns.shape, np.nan)
    before[:, 1:] = returns[:, :-1]
    columns = [mean_before(1), mean_before(5), mean_before(_MONTH), before]
    return np.stack(columns, axis=-1), log_volatility[..., None]


def _parts(
    inputs: np.ndarray, targets: np.ndarray, dates: np.ndarray, length: int
) -> dict[str, Volatilities]:
    known = np.isfinite(inputs).all(axis=-1) & np.isfinite(targets[..., 0])
    training = known & (dates < PARTS["train"][1])[None]
    scaled = []
    for values in (inputs, targets):
        rows = values[training]
        scaled.append(((values - rows.mean(axis=0)) / rows.std(axis=0)).astype(np.float32))
    parts = {}
    for part, (first, end) in PARTS.items():
        chosen = (dates >= first) & (dates < end)
        own = [np.nan_to_num(values[:, chosen]) for values in scaled]
        own[0] = np.clip(own[0], -_LARGEST, _LARGEST)
        if chosen.sum() < length:
            raise ValueError(
                f"length {length}: the part {part} has {chosen.sum()} days; give a smaller number."
            )
        windows = np.lib.stride_tricks.sliding_window_view(known[:, chosen], length, axis=1)
        parts[part] = Volatilities(
            own[0], own[1], np.argwhere(windows.all(axis=-1)).astype(np.int32)
        )
    return parts


def volatility_streams(part: Volatilities, *, length: int) -> Sampler:
    """A sampler of streams: the days of a window of one stock, `sample(key) -> Task`.

    A task has an empty support; its query are the days in their order, inputs float32
    `[length, 4]`, targets `[length, 1]`. Stock and first day are drawn uniformly from all windows
    without a gap.

    Args:
      part: as `load_volatilities` returns it for this length.
      length: days of a window.

    >>> days = np.zeros((2, 9, 4), np.float32), np.zeros((2, 9, 1), np.float32)
    >>> part = Volatilities(*days, np.array([[0, 0], [1, 3]], np.int32))
    >>> volatility_streams(part, length=5)(jax.random.key(0)).query.inputs.shape
    (5, 4)
    """
    return sampler(_draw_window, *map(jnp.asarray, part), length=length)


def _draw_window(inputs: Array, targets: Array, starts: Array, key: Key, *, length: int) -> Task:
    stock, first = starts[jax.random.randint(key, (), 0, len(starts))]
    window = [
        jax.lax.dynamic_slice(leaf, (stock, first, 0), (1, length, leaf.shape[2]))[0]
        for leaf in (inputs, targets)
    ]
    stream = Batch(window[0], window[1])
    return Task(jax.tree.map(lambda leaf: leaf[:0], stream), stream)
