"""MovieLens-1M in the division of MetaHIN (Lu, Fang, Shi 2020) for users and films that are new.

https://github.com/rootlu/MetaHIN has the division; GroupLens' terms hold for the ratings: no
redistribution, no commercial use. Its folder `data/movielens` is `metahin` in
`JAXMETA_DATA_DIR`. In `metahin_user_cold` the users of the test are new, in `metahin_item_cold`
its films, in `metahin_user_item_cold` both.

A pool is a user with 13 to 100 ratings in a part. The test asks for ten of them, always the same,
after up to 0, 1, 3, 10 or 90 of the others: with 90, after all others, as in the published figures.
Half of the training users describe the films, as in `ratings`. To learn about new films, half of
the training films have no known ratings, and the tasks are of these alone.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta import files
from jaxmeta.data._whole_pools import whole_pools
from jaxmeta.data.cache import data_folder
from jaxmeta.data.pool_sets.dataset import Drawing, PoolSet
from jaxmeta.data.pool_sets.ratings import LEAST_RATINGS, Ratings, rated_by, read_films
from jaxmeta.data.pool_sets.registry import pool_source
from jaxmeta.data.pools import pool_tasks
from jaxmeta.files import shown

_MOST_RATINGS = 100
_QUERIES = 10
_KNOWN_USERS = 0.5  # of the training users describe the films
_VALIDATION_USERS = 0.1
_NEW_FILMS = 0.5  # of the training films, for tests with new films
_SUPPORTS: Any = {
    "kind": "regression",
    "test_support": (0, 1, 3, 10, _MOST_RATINGS - _QUERIES),
    "train_support": (0, _MOST_RATINGS - _QUERIES),
}


@pool_source("metahin_user_cold", **_SUPPORTS)
def metahin_user_cold(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `metahin`: new users rate known films."""
    return metahin("user_cold", folder, seed)


@pool_source("metahin_item_cold", **_SUPPORTS)
def metahin_item_cold(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `metahin`: known users rate new films."""
    return metahin("item_cold", folder, seed)


@pool_source("metahin_user_item_cold", **_SUPPORTS)
def metahin_user_item_cold(folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """As `metahin`: new users rate new films."""
    return metahin("user_and_item_cold", folder, seed)


def metahin(scenario: str, folder: str | Path | None = None, seed: int = 0) -> PoolSet:
    """Reads a division of MovieLens-1M from `folder`; see the module.

    Args:
      scenario: user_cold, item_cold or user_and_item_cold, the beginning of the name of the files.
      folder: has `meta_training.json`, `meta_training_y.json`, likewise two files of the scenario,
        and `original/movies.dat`.
      seed: of the division of the training users and films.

    Raises:
      OSError, ValueError: a file is missing or damaged.
    """
    place = data_folder("metahin", folder)
    names, genres, years = read_films(place / "original/movies.dat", "latin-1")
    trained, tested = (
        _read(place, stem, names) for stem in ("meta_training", f"{scenario}_testing")
    )
    users, films, values = (np.concatenate(both) for both in zip(trained, tested))
    found = Ratings(users, films, values, genres, years)
    of_test = np.arange(len(found.users)) >= len(trained[0])
    of_users, of_films = (_shuffled(own, seed + at) for at, own in enumerate(trained[:2]))
    background, validated, _ = _cut(of_users, (_KNOWN_USERS, _KNOWN_USERS + _VALIDATION_USERS))
    known = np.isin(found.users, background) & ~of_test
    parts = {
        "train": ~np.isin(found.users, np.concatenate([background, validated])) & ~of_test,
        "validation": np.isin(found.users, validated) & ~of_test,
        "test": of_test,
    }
    new = None
    if scenario != "user_cold":
        of_training, _ = _cut(of_films, (_NEW_FILMS,))
        new = np.union1d(of_training, tested[1])
        parts = {part: own & np.isin(found.films, new) for part, own in parts.items()}
    queries = functools.partial(whole_pools, queries=_QUERIES)
    return rated_by(
        found,
        f"metahin_{scenario}",
        seed,
        {part: own & _of_13_to_100(found.users, own) for part, own in parts.items()},
        known,
        new=new,
        drawing=Drawing(pool_tasks, queries, lambda pools: _MOST_RATINGS - _QUERIES),
        split=f"MetaHIN, {scenario.replace('_', ' ')}; ten queries of a user",
    )._replace(
        licence="GroupLens: no redistribution, no commercial use",
        source="https://github.com/rootlu/MetaHIN",
    )


def _read(place: Path, stem: str, names: dict[str, int]) -> tuple[np.ndarray, ...]:
    """Users, films as indices, and ratings, of `STEM.json` and `STEM_y.json`.

    Both have a list for each user: of the films, and of the ratings.
    """
    paths = [place / f"{stem}{end}.json" for end in ("", "_y")]
    try:
        films, values = (files.read_json(own) for own in paths)
        rows = [
            (int(user), names[str(film)], float(value))
            for user, own in films.items()
            for film, value in zip(own, values[user], strict=True)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{shown(paths[0])} and {paths[1].name} have no lists of films and of their ratings by "
            f"user ({error!r})"
        ) from error
    return tuple(map(np.array, zip(*rows)))


def _shuffled(values: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.unique(values))


def _cut(values: np.ndarray, ends: tuple[float, ...]) -> list[np.ndarray]:
    """The values in parts that end at these shares."""
    return np.split(values, [round(end * len(values)) for end in ends])


def _of_13_to_100(users: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Whether the user of each rating has so many of those that are used."""
    names, counts = np.unique(users[used], return_counts=True)
    return np.isin(users, names[(counts >= LEAST_RATINGS) & (counts <= _MOST_RATINGS)])
