"""Ratings of films by users who are new: MovieTweetings (Dooms, De Pessemier, Martens 2013).

A pool is a user with at least 13 ratings, who is in one part only (user-cold). A target is a rating
minus the film's mean rating, shrunk towards the mean of all films, so that a prediction of 0 is the
film's mean. The inputs describe the film by the ratings of *other* users, who are in no part: all
users with fewer ratings, and a quarter of the others.

MovieTweetings is at https://github.com/sidooms/MovieTweetings (MIT): `ratings.dat` and `movies.dat`
of a snapshot in the folder `movietweetings_100k` of `JAXMETA_DATA_DIR`. MovieLens' files of these
names have the same form, see `movielens`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta import metrics
from jaxmeta.core import Array, Batch
from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.dataset import (
    PARTS,
    PLAIN,
    Baseline,
    Drawing,
    PoolSet,
    number_metrics,
)
from jaxmeta.data.pool_sets.new_films import split_drawing
from jaxmeta.data.pool_sets.registry import pool_source
from jaxmeta.data.pools import Pools, pools_by
from jaxmeta.data.reading import regular
from jaxmeta.files import shown

LEAST_RATINGS = 13  # of a user, as in MeLU (Lee et al. 2019)
SUPPORTS: Any = {"kind": "regression", "test_support": (0, 1, 2, 5, 10), "train_support": (0, 10)}
_SHARES = (0.25, 0.65, 0.80)  # ends of background, training and validation users
_FACTORS = 8  # of the matrix factorisation
_PLAIN_COLUMNS = 3  # mean, log count and year, before the genres
_ROUNDS = 10  # of alternating least squares
_FILM_PENALTY = 5.0  # ratings: the mean of a film with fewer is mostly that of all films
_NEW = 0.2  # of the films are new in training and validation, as many others at test
_PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class Ratings(NamedTuple):
    """Ratings and films.

    Attributes:
      users, films: int `[ratings]`; films are indices into the rows of `genres`.
      values: float `[ratings]`.
      genres: bool `[films, genres]`.
      years: float `[films]`, NaN if unknown.
    """

    users: np.ndarray
    films: np.ndarray
    values: np.ndarray
    genres: np.ndarray
    years: np.ndarray


@pool_source("ratings_new_films", **SUPPORTS)
def ratings_new_films(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `ratings`, with `new_films`."""
    return ratings(folder, seed, new_films=True)


@pool_source("ratings", **SUPPORTS)
def ratings(folder: str | Path | None = None, seed: int = 0, *, new_films: bool = False) -> PoolSet:
    """Reads MovieTweetings from `folder`; see the module.

    Args:
      folder: has `ratings.dat` and `movies.dat`.
      seed: of the division of the users.
      new_films: as in `ratings_set`.

    Raises:
      OSError, ValueError: a file is missing or damaged; there are too few users.
    """
    place = data_folder("movietweetings_100k", folder)
    found = read_ratings(place / "ratings.dat", place / "movies.dat", "utf-8")
    return ratings_set(found, "ratings", seed, new_films=new_films)._replace(
        licence="MIT", source="https://github.com/sidooms/MovieTweetings"
    )


def read_ratings(ratings_path: Path, films_path: Path, encoding: str) -> Ratings:
    """Reads `user::film::rating::time` and `film::title (year)::genre|genre`.

    Raises:
      OSError, ValueError: a file is missing, or a line has another form.
    """
    films, members, years = read_films(films_path, encoding)
    rows = []
    for user, film, value, _ in _lines(ratings_path, 4, encoding):
        if film not in films or not re.fullmatch(r"\d+(\.\d+)?", value):
            raise ValueError(
                f"{shown(ratings_path)}: user {user} gives {value!r} to film {film}, which is no "
                f"number or no film of {shown(films_path.name)}"
            )
        rows.append((int(user), films[film], float(value)))
    users, indices, values = map(np.array, zip(*rows))
    return Ratings(users, indices, values, members, years)


def read_films(path: Path, encoding: str) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Reads `film::title (year)::genre|genre`: the index of each film, and genres and years.

    Genres and years are as in `Ratings`.

    Raises:
      OSError, ValueError: the file is missing, or a line has another form.
    """
    films: dict[str, int] = {}
    years, genres = [], []
    for film, title, kinds in _lines(path, 3, encoding):
        films[film] = len(films)
        year = re.search(r"\((\d{4})\)\s*$", title)
        years.append(float(year[1]) if year else np.nan)
        genres.append({*kinds.split("|")} - {""})
    names = sorted(set().union(*genres))
    members = np.array([[name in own for name in names] for own in genres], bool)
    return films, members.reshape(len(films), -1), np.array(years)


def _lines(path: Path, fields: int, encoding: str) -> list[list[str]]:
    regular(path)
    try:
        text = path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} is not {encoding} text ({error})") from error
    found = [line.split("::") for line in text.splitlines() if line]
    wrong = next((number for number, line in enumerate(found) if len(line) != fields), None)
    if wrong is not None or not found:
        where = "no lines" if not found else f"line {wrong} does not have {fields} fields"
        raise ValueError(f"{shown(path)}: {where}, separated by '::'")
    return found


def ratings_set(found: Ratings, name: str, seed: int, *, new_films: bool = False) -> PoolSet:
    """The users of some ratings as pools; see the module.

    With `new_films`, the query has films that nobody has rated. A fifth of the films is new in
    training and validation, another fifth at test; no other ratings of these films are used. The
    mean of a new film is that of its genres and its year, by ridge regression on other films.

    Raises:
      ValueError: fewer than 20 users have enough ratings.
    """
    names, counts = np.unique(found.users, return_counts=True)
    several = np.random.default_rng(seed).permutation(names[counts >= LEAST_RATINGS])
    if len(several) < 20:
        raise ValueError(
            f"{name}: {len(several)} users have {LEAST_RATINGS} ratings; at least 20 are needed"
        )
    ends = [round(share * len(several)) for share in _SHARES]
    _, *users = np.split(several, ends)
    known = ~np.isin(found.users, np.concatenate(users))
    parts = {part: np.isin(found.users, own) for part, own in zip(PARTS, users)}
    split = f"users at random, seed {seed}; films are described by other users"
    if not new_films:
        return rated_by(found, name, seed, parts, known, split=split)
    total = len(found.genres)
    shuffled = np.random.default_rng(seed + 2).permutation(total)
    of_training, of_test, _ = np.split(shuffled, [round(_NEW * total), round(2 * _NEW * total)])
    for part, mask in parts.items():
        mask &= ~np.isin(found.films, of_training if part == "test" else of_test)
    return rated_by(
        found,
        name,
        seed,
        parts,
        known,
        new=np.union1d(of_training, of_test),
        drawing=split_drawing(_PLAIN_COLUMNS + found.genres.shape[1]),
        split=f"{split}; the films of the query are new",
    )


def rated_by(
    found: Ratings,
    name: str,
    seed: int,
    parts: Mapping[str, np.ndarray],
    known: np.ndarray,
    *,
    new: np.ndarray | None = None,
    drawing: Drawing = PLAIN,
    split: str,
) -> PoolSet:
    """The users of each part as pools, with the film's mean, the user's bias and factors beside.

    Args:
      found: the ratings.
      name: of the set.
      seed: of the order of each user's ratings.
      parts: bool `[ratings]` by part, the ratings of its pools.
      known: bool `[ratings]`, those that describe the films.
      new: indices of films that have no known ratings.
      drawing: how tasks are drawn.
      split: how users and films are divided, in words.
    """
    described = known if new is None else known & ~np.isin(found.films, new)
    films = describe_films(found, described, new)
    targets = (found.values - films.means[found.films])[:, None]
    order = np.random.default_rng(seed + 1).permutation(len(targets))  # not by time or film

    def pools(part: str) -> Pools:
        own = order[parts[part][order]]
        return pools_by(films.inputs, targets[own], found.users[own], rows=found.films[own])

    train, validation, test = map(pools, PARTS)
    bias = bias_penalty(train)
    columns = (
        *("mean", "log count", "year"),
        *(f"genre {number}" for number in range(found.genres.shape[1])),
        *(() if new is None else ("new",)),
        *(f"factor {number}" for number in range(_FACTORS)),
    )
    numbered = range(len(columns))
    kinds = ("fac",) if new is None else ("fac", "genre")
    of = {kind: [n for n in numbered if columns[n].startswith(kind)] for kind in kinds}
    penalties = {
        kind: min(_PENALTIES, key=lambda own: _error(validation, _ridge(bias, own, places)))
        for kind, places in of.items()
    }

    def judged(outputs: Array, query: Batch) -> Mapping[str, Array]:
        of_films = query.inputs[:, 0] * films.mean_scale + films.mean_centre
        scores = outputs[:, 0] + of_films
        # The gains, from 0: padding may be anything.
        gains = query.targets[:, 0] + of_films
        return {**number_metrics(outputs, query), "ndcg_5": metrics.ndcg(scores, gains, query.mask)}

    baselines: dict[str, Baseline] = {
        "film mean": lambda inputs, targets, asked, seed: np.zeros((len(asked), 1), np.float32),
        "film mean + user bias": _ridge(bias),
    }
    if not np.isin(test.rows, [] if new is None else new).all():  # new films have no factors
        baselines["matrix factorisation + ridge"] = _ridge(bias, penalties["fac"], of["fac"])
    if new is not None:
        baselines["genres + ridge"] = _ridge(bias, penalties["genre"], of["genre"])
    return PoolSet(
        name,
        "regression",
        train,
        validation,
        test,
        judged,
        "mae",
        higher=False,
        baselines=baselines,
        drawing=drawing,
        columns=columns,
        protocol={
            "split": split,
            "least_ratings": LEAST_RATINGS,
            "background_users": len(np.unique(found.users[known])),
            "bias_penalty": round(bias, 4),
            "factor_penalty": penalties["fac"],
        },
    )


class Films(NamedTuple):
    """Films as other users see them.

    Attributes:
      means: float `[films]`, the shrunk mean ratings.
      inputs: float32 `[films, features]`, standardised; the first is the mean, the last eight are
        the factors of a matrix factorisation of the residuals.
      mean_centre, mean_scale: `means = inputs[:, 0] · mean_scale + mean_centre`.
    """

    means: np.ndarray
    inputs: np.ndarray
    mean_centre: float
    mean_scale: float


def describe_films(found: Ratings, known: np.ndarray, new: np.ndarray | None = None) -> Films:
    """Describes the films by the ratings where `known` is True.

    mean_i = μ + Σ_u (r_ui − μ) / (n_i + 5), with the residuals r − mean factorised as p_uᵀ q_i
    by alternating least squares. Films that are `new` have the mean μ + wᵀx_i of a ridge
    regression of the ratings on genres and year, penalty 5, and a column that is 1.
    """
    users, films, values = (own[known] for own in (found.users, found.films, found.values))
    total = len(found.genres)
    counts = np.bincount(films, minlength=total)
    centre = values.mean()
    sums = np.bincount(films, weights=values - centre, minlength=total)
    means = centre + sums / (counts + _FILM_PENALTY)
    residuals = values - means[films]
    _, rows = np.unique(users, return_inverse=True)
    by_user = np.bincount(rows, weights=residuals) / (np.bincount(rows) + _FILM_PENALTY)
    factors = factorised(rows, films, residuals - by_user[rows], total)
    years = np.where(np.isnan(found.years), np.nanmean(found.years), found.years)
    if new is not None:
        age = (years - years.mean()) / max(years.std(), 1e-6)
        about = np.concatenate([np.ones((total, 1)), found.genres, age[:, None]], axis=1)
        gram = (about * counts[:, None]).T @ about + _FILM_PENALTY * np.eye(about.shape[1])
        means[new] = centre + about[new] @ np.linalg.solve(gram, about.T @ sums)
    plain = np.stack([means, np.log1p(counts), years], axis=1)
    scale = np.maximum(plain.std(axis=0), 1e-6)
    scaled = (plain - plain.mean(axis=0)[None]) / scale[None]
    spread = np.sqrt(np.square(factors).mean()) or 1.0
    flags = [] if new is None else [np.isin(np.arange(total), new)[:, None]]
    inputs = np.concatenate([scaled, found.genres, *flags, factors / spread], axis=1)
    return Films(means, inputs.astype(np.float32), float(plain[:, 0].mean()), float(scale[0]))


def factorised(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, total: int) -> np.ndarray:
    """Factors of the columns, `[total, 8]`, by alternating least squares with a ridge penalty.

    min Σ (v − p_rowᵀ q_column)² + 5 (Σ ‖p‖² + Σ ‖q‖²)
    """
    rng = np.random.default_rng(0)
    right = 0.1 * rng.normal(size=(total, _FACTORS))
    left = np.zeros((rows.max() + 1, _FACTORS))
    for _ in range(_ROUNDS):
        for own, where, other, of_other in (
            (left, rows, right, columns),
            (right, columns, left, rows),
        ):
            gathered = other[of_other]
            grams = np.zeros((len(own), _FACTORS, _FACTORS))
            np.add.at(grams, where, gathered[:, :, None] * gathered[:, None])
            sums = np.zeros((len(own), _FACTORS))
            np.add.at(sums, where, gathered * values[:, None])
            penalty = _FILM_PENALTY * np.eye(_FACTORS)[None]
            own[:] = np.linalg.solve(grams + penalty, sums[:, :, None])[:, :, 0]
    return right


def bias_penalty(pools: Pools) -> float:
    """The penalty of a user's bias: the variance within users over that between users.

    With it, Σ residuals / (n + penalty) is the best linear prediction of the bias. The variances
    are those of a one-way analysis of variance.

    Source: Searle, Casella, McCulloch 1992, "Variance components", section 3.6.
    """
    of_user = [pools.targets[pools.places(own), 0].astype(float) for own in range(len(pools.names))]
    counts = np.array([len(own) for own in of_user], float)
    means = np.array([own.mean() for own in of_user])
    total = counts.sum()
    within = sum(np.square(own - own.mean()).sum() for own in of_user) / (total - len(counts))
    spread = (counts * np.square(means - counts @ means / total)).sum() / (len(counts) - 1)
    size = (total - np.square(counts).sum() / total) / (len(counts) - 1)
    return float(within / max((spread - within) / size, 1e-6))


def _ridge(bias: float, penalty: float = 1.0, columns: Sequence[int] = ()) -> Baseline:
    """Ridge regression of a user's residuals on 1 and columns of the film, such as its factors."""

    def of_user(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        def features(rows: np.ndarray) -> np.ndarray:
            ones = np.ones((len(rows), 1))
            return np.concatenate([ones, rows[:, [*columns]]], axis=1)

        known = features(inputs)
        gram = known.T @ known + np.diag([bias, *[penalty] * len(columns)])
        weights = np.linalg.solve(gram, known.T @ targets)
        return (features(asked) @ weights).astype(np.float32)

    return of_user


def _error(pools: Pools, learn: Baseline, size: int = 5) -> float:
    """The mean absolute error after the first `size` ratings of each user."""
    errors = []
    for own in range(len(pools.names)):
        places = pools.places(own)
        inputs, targets = pools.inputs[pools.rows[places]], pools.targets[places]
        found = learn(inputs[:size], targets[:size], inputs[size:], 0)
        errors.append(np.abs(found - targets[size:]).mean())
    return float(np.mean(errors))
