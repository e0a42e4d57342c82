"""MetaHIN's division: who rates what, which ratings describe the films, and the ten queries."""

import json

import jax
import numpy as np
import pytest

from jaxmeta.data import load_pools
from jaxmeta.data.pool_sets.metahin import metahin

FILMS, KNOWN, USERS, NEW_USERS = 160, 120, 40, 12
SCENARIOS = ("user_cold", "item_cold", "user_and_item_cold")


@pytest.fixture
def folder(tmp_path):
    """Users and new users rate 70 known films and 20 new ones, two of them only two."""
    rng = np.random.default_rng(0)
    (tmp_path / "original").mkdir()
    kinds = ("Drama", "Drama|War", "")
    films = [
        f"{film}::Film {film} ({1950 + film % 50})::{kinds[film % 3]}" for film in range(FILMS)
    ]
    (tmp_path / "original/movies.dat").write_text("\n".join(films))

    def write(stem, users, films, most):
        counts = {user: most if user % 20 else 2 for user in users}
        chosen = {str(u): rng.permutation(films)[:n].tolist() for u, n in counts.items()}
        values = {u: rng.integers(1, 6, len(own)).tolist() for u, own in chosen.items()}
        (tmp_path / f"{stem}.json").write_text(json.dumps(chosen))
        (tmp_path / f"{stem}_y.json").write_text(json.dumps(values))

    old, fresh = range(USERS), range(USERS, USERS + NEW_USERS)
    write("meta_training", old, np.arange(KNOWN), 70)
    write("user_cold_testing", fresh, np.arange(KNOWN), 70)
    write("item_cold_testing", old, np.arange(KNOWN, FILMS), 20)
    write("user_and_item_cold_testing", fresh, np.arange(KNOWN, FILMS), 20)
    return tmp_path


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_who_is_tested_on_what(folder, scenario):
    found = metahin(scenario, folder)
    users, films = np.array(found.test.names, int), found.test.rows
    assert (users >= USERS).all() if scenario != "item_cold" else (users < USERS).all()
    assert (films < KNOWN).all() if scenario == "user_cold" else (films >= KNOWN).all()
    assert not {0, 20, 40} & {*users.tolist()}  # too few ratings
    trained = [*found.train.names, *found.validation.names]
    assert len(trained) == len({*trained}) and max(map(int, trained)) < USERS
    for part in found.parts.values():
        assert 13 <= part.counts.min() <= part.counts.max() <= 100
    if scenario == "user_cold":
        assert "new" not in found.columns and "matrix factorisation + ridge" in found.baselines
    else:
        column = found.columns.index("new")
        for part in found.parts.values():
            assert (part.inputs[part.rows, column] == 1).all()
        assert {*found.train.rows.tolist()}.isdisjoint(films.tolist())
        assert [*found.baselines][2:] == ["genres + ridge"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_rating_of_a_pool_is_in_an_input(folder, scenario):
    """The inputs stay as they are when all ratings of validation and test change."""
    before = metahin(scenario, folder)
    for stem in ("meta_training", f"{scenario}_testing"):
        path = folder / f"{stem}_y.json"
        values = json.loads(path.read_text())
        changed = before.validation.names if stem == "meta_training" else before.test.names
        for user in changed:
            values[user] = [6 - value for value in values[user]]
        path.write_text(json.dumps(values))
    after = metahin(scenario, folder)
    np.testing.assert_array_equal(before.test.inputs, after.test.inputs)
    assert not np.array_equal(before.test.targets, after.test.targets)


def test_ten_queries_that_stay_the_same(folder):
    found = metahin("user_cold", folder)
    few, all_others = (
        found.drawing.enumerate(found.test, support=support, draws=2, seed=0) for support in (3, 90)
    )
    assert few.pools.tolist() == all_others.pools.tolist()
    for pool, small, large in zip(few.pools.tolist(), few.places, all_others.places):
        assert small.shape == (2, 13) and large.shape == (2, found.test.counts[pool])
        np.testing.assert_array_equal(small[:, -10:], large[:, -10:])
        np.testing.assert_array_equal(small[:, :3], large[:, :3])
        assert sorted(large[0].tolist()) == found.test.places(pool).tolist()
    task = all_others.source.streams[0].tasks[0]
    assert task.query.targets.shape == (2, 10, 1)
    assert task.support.mask.sum(axis=1).tolist() == [60, 60]
    drawn = found.drawing.sample(found.train, support=(0, 90), queries=10)(jax.random.key(0))
    assert drawn.query.mask.sum() >= 1


def test_a_set_is_found_by_its_name(folder, monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(folder.parent))
    (folder.parent / "metahin").symlink_to(folder)
    found = load_pools("metahin_user_item_cold")
    assert found.protocol["split"] == "MetaHIN, user and item cold; ten queries of a user"
    assert found.protocol["pools"]["test"] == NEW_USERS - 1


@pytest.mark.parametrize(
    "content", ["[]", '{"0": [1]}', '{"0": ["one"]}', '{"0": 1}', "{"], ids=range(5)
)
def test_a_damaged_file_is_named(folder, content):
    (folder / "meta_training_y.json").write_text(content)
    with pytest.raises(ValueError, match=r"meta_training_y\.json"):
        metahin("user_cold", folder)
