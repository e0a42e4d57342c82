"""Ratings: the files, what a film is described by, and the baselines of a new user."""

import jax
import numpy as np
import pytest

from jaxmeta.core import Batch
from jaxmeta.data.pool_sets.movielens import movielens
from jaxmeta.data.pool_sets.ratings import (
    Ratings,
    bias_penalty,
    describe_films,
    factorised,
    ratings,
    ratings_new_films,
    read_ratings,
)
from jaxmeta.data.pools import pools_by

FILMS, USERS = 30, 44


def write_files(folder, *, encoding: str = "utf-8", seed: int = 0):
    """Users with a bias of their own rate 20 of 30 films; four users rate one film each."""
    rng = np.random.default_rng(seed)
    lines, quality, bias = [], rng.normal(size=FILMS), rng.normal(size=USERS)
    for user in range(USERS):
        for film in rng.permutation(FILMS)[: 20 if user >= 4 else 1]:
            value = np.clip(np.round(6 + quality[film] + bias[user] + 0.3 * rng.normal()), 1, 10)
            lines.append(f"{user + 1}::{film:07}::{int(value)}::{1_000_000 + user}")
    (folder / "ratings.dat").write_text("\n".join(lines))
    kinds = ("Drama", "Drama|War", "")
    films = [f"{film:07}::Café {film} ({1950 + film})::{kinds[film % 3]}" for film in range(FILMS)]
    (folder / "movies.dat").write_text("\n".join(films), encoding=encoding)
    return folder


def test_the_files_are_read(tmp_path):
    write_files(tmp_path)
    found = read_ratings(tmp_path / "ratings.dat", tmp_path / "movies.dat", "utf-8")
    assert found.genres[:3].tolist() == [[True, False], [True, True], [False, False]]
    assert found.years[:2].tolist() == [1950, 1951]
    assert len(found.values) == 4 + 40 * 20 and found.values.min() >= 1
    assert len(np.unique(found.users)) == USERS


def test_users_are_in_one_part_and_films_are_described_by_others(tmp_path):
    found = ratings(write_files(tmp_path))
    names = [name for part in found.parts.values() for name in part.names]
    assert len(names) == len({*names}) == 30  # a quarter of 40 describes the films
    assert [len(part.names) for part in found.parts.values()] == [16, 6, 8]
    raw = read_ratings(tmp_path / "ratings.dat", tmp_path / "movies.dat", "utf-8")
    known = ~np.isin(raw.users, np.array(names, int))
    assert found.protocol["background_users"] == 14
    centre = raw.values[known].mean()
    for film in range(FILMS):
        own = raw.values[known & (raw.films == film)]
        mean = centre + (own - centre).sum() / (len(own) + 5)
        places = np.flatnonzero(found.test.rows == film)
        pool = np.searchsorted(found.test.starts, places, side="right") - 1
        for place, user in zip(places, pool):
            given = raw.users == int(found.test.names[user])
            (value,) = raw.values[given & (raw.films == film)]
            assert found.test.targets[place, 0] == pytest.approx(value - mean, abs=1e-5)
    assert {*found.columns[:3]} == {"mean", "log count", "year"}
    assert found.test.inputs.shape == (FILMS, len(found.columns))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_new_films_are_only_asked_about(tmp_path, part):
    """No rating of a new film describes it, or is in a support; those of the test are its own."""
    path = write_files(tmp_path)
    found = ratings_new_films(path)
    pools, column = getattr(found, part), found.columns.index("new")
    flags = pools.inputs[pools.rows, column] == 1
    others = [own for name, own in found.parts.items() if name != part and "test" in (name, part)]
    for own in others:
        theirs = own.inputs[own.rows, column] == 1
        assert not {*pools.rows[flags].tolist()} & {*own.rows[theirs].tolist()}
    task = found.drawing.sample(pools, support=(2, 4), queries=5)(jax.random.key(0))
    assert (task.support.inputs[task.support.mask][:, column] == 0).all()
    assert (task.query.inputs[task.query.mask][:, column] == 1).all()
    assert 2 <= task.support.mask.sum() <= 4 and task.query.mask.sum() >= 1
    whole = found.drawing.enumerate(pools, support=3, draws=2, seed=0)
    assert len({*whole.pools.tolist()}) == len(whole.pools) == len(whole.places)
    for pool, places in zip(whole.pools.tolist(), whole.places):
        asked = np.arange(places.shape[1]) >= 3
        assert (flags[places] == asked[None]).all() and len(places) == 2
        own = pools.places(pool)
        assert sorted(places[0, 3:].tolist()) == own[flags[own]].tolist()


def test_the_mean_of_a_new_film_is_that_of_its_genres_and_year(tmp_path):
    """Ratings that are linear in the genre are met for films without a rating."""
    genres = np.array([[True, False], [False, True]] * 20)
    users, films = (own.ravel() for own in np.meshgrid(np.arange(50), np.arange(40)))
    values = np.where(genres[films, 0], 8.0, 4.0)
    given = Ratings(users, films, values, genres, np.full(40, 2000.0))
    new = np.array([0, 1])
    described = describe_films(given, ~np.isin(films, new), new)
    np.testing.assert_allclose(described.means[:2], [8.0, 4.0], atol=0.05)
    plain = describe_films(given, ~np.isin(films, new))
    np.testing.assert_allclose(plain.means[:2], [6.0, 6.0], atol=1e-6)
    assert plain.inputs.shape[1] + 1 == described.inputs.shape[1]
    np.testing.assert_array_equal(described.inputs[:, 5], np.arange(40) < 2)


def test_ndcg_is_of_the_ratings_not_of_the_residuals(tmp_path):
    found = ratings(write_files(tmp_path))
    places = found.test.places(0)
    query = Batch(found.test.inputs[found.test.rows[places]], found.test.targets[places])
    exact = found.metrics(query.targets, query)
    assert float(exact["ndcg_5"]) == pytest.approx(1) and exact["mae"] == 0
    reversed_ = found.metrics(-9 * query.targets, query)
    assert reversed_["ndcg_5"] < 0.99


def test_baselines_of_a_new_user(tmp_path):
    found = ratings(write_files(tmp_path))
    inputs = found.test.inputs[:6]
    targets = np.array([[1.0], [2.0], [3.0]], np.float32)
    zero = np.zeros((0, 1), np.float32)
    for learn in found.baselines.values():
        np.testing.assert_array_equal(learn(inputs[:0], zero, inputs[3:], 0), 0)
    mean, bias, both = (own(inputs[:3], targets, inputs[3:], 0) for own in found.baselines.values())
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(bias, 6 / (3 + found.protocol["bias_penalty"]), rtol=1e-4)
    assert not np.allclose(both, bias)


def test_the_penalty_is_the_ratio_of_the_variances():
    rng = np.random.default_rng(0)
    biases = np.repeat(0.5 * rng.normal(size=4000), 20)
    values = biases + 1.5 * rng.normal(size=80_000)
    pools = pools_by(
        np.zeros((1, 1)), values, np.repeat(np.arange(4000), 20), rows=np.zeros(80_000, int)
    )
    assert bias_penalty(pools) == pytest.approx(9, rel=0.1)


def test_a_factorisation_finds_the_factors():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(300, 2)), rng.normal(size=(40, 2))
    rows, columns = (own.ravel() for own in np.mgrid[:300, :40])
    found = factorised(rows, columns, (3 * left @ right.T).ravel(), 40)
    # The true factors are linear in those found.
    weights, *_ = np.linalg.lstsq(found, right, rcond=None)
    assert np.abs(found @ weights - right).max() < 0.05


def test_movielens_has_the_same_form(tmp_path):
    found = movielens(write_files(tmp_path, encoding="latin-1"))
    assert found.name == "movielens" and "no commercial use" in (found.licence or "")
    with pytest.raises(ValueError, match="is not utf-8 text"):
        ratings(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::0000001::7", "does not have 4 fields"),
        ("1::9999999::7::0", "gives '7' to film 9999999, which is no number or no film"),
        ("1::0000001::bad::0", "gives 'bad' to film 0000001"),
        ("1::0000001::7::0", "0 users have 13 ratings; at least 20 are needed"),
        ("", "no lines"),
    ],
)
def test_ratings_that_can_t_be_used(tmp_path, line, message):
    write_files(tmp_path)
    (tmp_path / "ratings.dat").write_text(line)
    with pytest.raises(ValueError, match=message):
        ratings(tmp_path)
