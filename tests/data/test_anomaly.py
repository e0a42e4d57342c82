"""Anomalies: ADBench's files, supports of known and unlabelled rows, and scores of any columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import pairwise_distances

from jaxmeta.core import Batch, Task
from jaxmeta.data.identity import Seen
from jaxmeta.data.pool_sets import describe_pools, load_pools, unseen_pools
from jaxmeta.data.pool_sets.anomaly import (
    FOLDS,
    MOST_COLUMNS,
    RELATED,
    anomaly,
    folds_of,
    read_set,
)
from jaxmeta.data.pool_sets.anomaly_scores import anomaly_scores, ranked, standardised
from jaxmeta.data.pool_sets.baselines import (
    isolation_forest,
    linear,
    local_outlier_factor,
    neighbour_distance,
    random_forest,
    standardising,
)
from jaxmeta.data.pool_sets.known import known_tasks, most_known, whole_known
from jaxmeta.data.pools import identified, pools_by, select_pools

SETS = ("1_a", "2_annthyroid", "3_c", "38_thyroid", "4_d", "5_e", "6_f", "7_g")


def write_sets(folder, names=SETS, *, rows: int = 60):
    """Sets of 3 to 10 columns in units of their own; every sixth row is far off in column 0."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng(len(name) + number)
        labels = (np.arange(rows) % 6 == 0).astype(np.int64)
        values = rng.normal(size=(rows, 3 + number % 8))
        values[:, 0] += 6 * labels
        np.savez(folder / f"{name}.npz", X=1000 * values + 7, y=labels)
    return folder


def task(columns: int = 5, known: int = 3, *, seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    labels = (np.arange(40) < known).astype(np.int32)
    rows = rng.normal(size=(60, columns)).astype(np.float32)
    rows[:known] += 4
    rows[40:45] += 4
    truth = (np.arange(20) < 5).astype(np.int32)
    return Task(Batch(rows[:40], labels, np.ones(40, bool)), Batch(rows[40:], truth))


def changed(given: Task, change) -> Task:
    return Task(*(own._replace(inputs=change(own.inputs)) for own in given))


# --- the files ----------------------------------------------------------------------------


def test_sets_have_one_shape_and_families_one_fold(tmp_path):
    write_sets(tmp_path)
    tested = []
    for fold in range(FOLDS):
        found = anomaly(tmp_path, fold)
        names = [name for part in found.parts.values() for name in part.names]
        assert sorted(names) == sorted(SETS)
        assert found.train.inputs.shape == (60 * len(SETS), MOST_COLUMNS)
        tested += found.test.names
        twins = [part for part in found.parts.values() if {*part.names} & {*RELATED[0]}]
        assert len(twins) == 1 and {*RELATED[0]} <= {*twins[0].names}
    assert sorted(tested) == sorted(SETS)
    assert {*folds_of(SETS).tolist()} == {0, 1, 2, 3}


def test_a_set_keeps_its_rows_and_its_columns_of_largest_variance(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (50, 140)).astype(float)
    rows[:, :20] = 0
    rows[0, :20] = 1  # rare: the smallest variance
    labels = rng.integers(0, 2, 50)
    np.savez(tmp_path / "wide.npz", X=rows, y=labels)
    inputs, found = read_set(tmp_path / "wide.npz")
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(found, labels[order])
    # Of the rare columns, 8 are kept to have 128.
    for column in range(8, 128):
        expected = rows[order, 12 + column]
        assert np.corrcoef(inputs[:, column], expected)[0, 1] == pytest.approx(1)
    np.savez(tmp_path / "long.npz", X=np.arange(4000.0)[:, None], y=np.arange(4000) % 2)
    inputs, found = read_set(tmp_path / "long.npz")
    assert inputs.shape == (3000, 128) and len(np.unique(inputs[:, 0])) == 3000
    assert (inputs[:, 1:] == 0).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.ones((3, 2))}, "is no set of ADBench"),
        ({"X": np.ones(3), "y": np.ones(3)}, r"X of shape \(3,\) and y of shape \(3,\)"),
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, r"y of shape \(2,\)"),
        ({"X": np.full((3, 2), np.nan), "y": np.ones(3)}, "a value of X is NaN or infinite"),
        ({"X": np.ones((3, 2)), "y": np.full(3, 2)}, "one of y is neither 0 nor 1"),
    ],
)
def test_files_that_are_no_set(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_set(tmp_path / "set.npz")


def test_a_missing_folder_and_a_wrong_fold(tmp_path):
    with pytest.raises(FileNotFoundError, match="put the .npz files of https://github.com"):
        anomaly(tmp_path)
    with pytest.raises(ValueError, match="fold 4; give a number from 0 to 3"):
        anomaly(tmp_path, 4)


def test_a_file_and_a_folder_are_read_by_their_suffix(tmp_path):
    folder = write_sets(tmp_path / "sets")
    for path in (folder, folder / "1_a.npz"):
        own = describe_pools(str(path))
        assert own.kind == "classification" and own.test_support == (1, 5, 10)
    assert load_pools(str(folder), fold=1).protocol["split"] == "by set, fold 1 of 4"
    found = load_pools(str(folder / "1_a.npz"))
    assert found.whole is not None and found.whole.names == ("1_a",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="unknown dataset"):
        describe_pools(str(tmp_path / "empty"))


def test_a_run_is_tested_on_all_sets_that_are_new_to_it(tmp_path):
    found = anomaly(write_sets(tmp_path), 0)
    seen = Seen("", tuple(identified("anomaly", found.parts[own]) for own in PARTS_SEEN))
    again = unseen_pools(found, seen)
    assert again.test.names == found.test.names and again.protocol == found.protocol
    # Another folder: a copy of a set is recognised, and so is the twin of a set.
    other = write_sets(tmp_path / "other", ("38_thyroid", "50_new", "51_new"), rows=66)
    own = select_pools(found.whole, [found.whole.names.index("2_annthyroid")])
    left = unseen_pools(anomaly(other), Seen("", (identified("anomaly", own),)))
    assert left.test.names == ("50_new", "51_new")
    with pytest.raises(ValueError, match="trained or validated on all of its test pools"):
        unseen_pools(anomaly(other / "38_thyroid.npz"), Seen("", (identified("x", own),)))


PARTS_SEEN = ("train", "validation")


# --- tasks --------------------------------------------------------------------------------


def rare_pools():
    """Two pools whose inputs are the row numbers; 12 of 60 and 4 of 20 rows are of class 1."""
    labels = (np.arange(80) % 5 == 0).astype(np.int64)
    return pools_by(np.arange(80.0)[:, None], labels, np.array(["a"] * 60 + ["b"] * 20))


def test_a_support_has_known_rows_and_unlabelled_ones():
    pools = rare_pools()
    sample = jax.jit(known_tasks(pools, support=(1, 6), queries=10, unlabelled=20))
    sizes, shares, hidden = set(), [], 0
    for number in range(60):
        support, query = jax.tree.map(np.asarray, sample(jax.random.key(number)))
        known = support.targets[support.mask] == 1
        rows = support.inputs[support.mask, 0].astype(int)
        assert (pools.targets[rows[known]] == 1).all() and known[: known.sum()].all()
        hidden += (pools.targets[rows[~known]] == 1).sum()
        asked = query.inputs[query.mask, 0].astype(int)
        assert not {*rows} & {*asked} and len({*rows}) == len(rows)
        np.testing.assert_array_equal(query.targets[query.mask], pools.targets[asked])
        small = rows[0] >= 60
        assert (~known).sum() == ((20 - known.sum()) // 2 if small else 20)
        sizes.add(int(known.sum()))
        shares += [] if small else [query.targets[query.mask].mean()]
    assert sizes == {1, 2, 3, 4, 5, 6} and hidden > 0
    # Balanced: a fifth of the rows, but nearly half of the query, until they are used up.
    assert np.mean(shares) > 0.3


def test_whole_pools_have_all_other_rows_as_query():
    pools = rare_pools()
    whole = whole_known(pools, support=4, draws=3, unlabelled=20)
    assert whole.pools.tolist() == [0] and most_known(pools) == 7  # b has 4 of class 1
    (stream,) = whole.source.streams
    support, query = jax.tree.map(np.asarray, jax.vmap(stream.prepare)(stream.tasks[0]))
    assert support.targets.shape == (3, 24) and query.targets.shape == (3, 36)
    for draw in range(3):
        rows = support.inputs[draw, :, 0].astype(int)
        assert (pools.targets[rows[:4]] == 1).all()
        np.testing.assert_array_equal(support.targets[draw], np.arange(24) < 4)
        assert sorted([*rows, *query.inputs[draw, :, 0].astype(int)]) == [*range(60)]
    fewer = whole_known(pools, support=1, draws=3, unlabelled=20)
    np.testing.assert_array_equal(fewer.places[0][:, 0], whole.places[0][:, 0])
    with pytest.raises(ValueError, match="none of 2 pools has 15 examples of class 1"):
        whole_known(pools, support=10)
    with pytest.raises(ValueError, match="0 to 2 known"):
        known_tasks(pools, support=(0, 2), queries=1)
    with pytest.raises(ValueError, match="none of 2 pools has more than 12 examples of class 1"):
        known_tasks(pools, support=(12, 12), queries=1)


# --- scores -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores():
    return jax.jit(anomaly_scores)


def test_scores_do_not_depend_on_order_number_unit_and_offset_of_columns(scores):
    given = task()
    expected = scores(given)
    units = np.array([1, 10, 100, 0.5, 3], np.float32)
    for change in (
        lambda rows: rows[:, ::-1],
        lambda rows: rows * units + 5,
        lambda rows: np.pad(rows, ((0, 0), (0, 3))),
    ):
        found = scores(changed(given, change))
        for one, two in zip(expected, found):
            # Rounding may change the rank of a score that is nearly equal to another.
            assert np.isclose(one.inputs, two.inputs, atol=0.01).mean() > 0.99


def test_a_row_of_the_support_has_the_scores_of_a_query(scores):
    """The scores of an unlabelled row are those that it has if it is asked, and not given."""
    given = task()
    out = given._replace(
        support=given.support._replace(mask=np.arange(40) != 39),
        query=Batch(given.support.inputs[[39, *range(19)]], given.query.targets),
    )
    known = given._replace(query=out.query)
    asked, itself = (np.asarray(scores(own).query.inputs[0]) for own in (out, known))
    own = scores(given).support.inputs[39]
    nearest = 3  # of z, after three scores of tails
    assert abs(own[nearest] - asked[nearest]) < 0.2 < abs(itself[nearest] - asked[nearest])
    np.testing.assert_allclose(own[:3], asked[:3], atol=0.4)


def test_padding_changes_no_score(scores):
    given = task()
    support, query = given
    rows = np.concatenate([support.inputs, np.full((6, 5), 1e3, np.float32)])
    padded = Batch(rows, np.pad(support.targets, (0, 6), constant_values=1), np.arange(46) < 40)
    found = scores(Task(padded, query))
    np.testing.assert_allclose(found.query.inputs, scores(given).query.inputs, atol=1e-3)
    np.testing.assert_allclose(found.support.inputs[:40], scores(given).support.inputs, atol=1e-3)


def test_anomalies_score_higher_and_one_known_row_is_enough(scores):
    for known in (1, 3):
        found = scores(task(known=known)).query.inputs
        assert np.isfinite(found).all()
        higher = (found[:5].mean(axis=0) > found[5:].mean(axis=0))[:-2]
        assert higher.mean() > 0.85


def test_ranks_and_standard_values_by_hand():
    rows = jnp.array([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0], [3.0, 6.0]])
    chosen = jnp.array([True, True, True])
    found = standardised(rows, chosen)
    expected = stats.zscore([1.0, 3.0, 5.0])
    np.testing.assert_allclose(found[:3, 0], expected, rtol=1e-3)
    assert found[:, 1].tolist() == [0, 0, 0, 8]
    others = chosen[None] & (jnp.arange(4)[:, None] != jnp.arange(3)[None])
    ranks = ranked(rows, others)
    np.testing.assert_allclose(ranks[:, 0], [0.5 / 3, 1.5 / 3, 2.5 / 3, 2 / 4])
    np.testing.assert_allclose(ranks[3, 1], 3.5 / 4)


# --- baselines ----------------------------------------------------------------------------


def test_baselines_find_anomalies_and_only_the_supervised_use_labels():
    given = task(known=5)
    support, query = given
    for make in (isolation_forest, local_outlier_factor, neighbour_distance):
        outputs = make()(support.inputs, support.targets, query.inputs, 0)
        margin = outputs[:, 1] - outputs[:, 0]
        assert margin[:5].min() > np.median(margin[5:])
        # The known rows only shift the scale: they are no neighbours.
        assert outputs.shape == (20, 2)
    free = support.inputs[support.targets == 0]
    mean, std = support.inputs.mean(axis=0), support.inputs.std(axis=0)
    far = pairwise_distances((query.inputs - mean) / std, (free - mean) / std)
    found = neighbour_distance()(support.inputs, support.targets, query.inputs, 0)
    np.testing.assert_allclose(found[:, 1], np.sort(far, axis=1)[:, 4], rtol=1e-4)
    for learn in (standardising(linear(2, balanced=True)), random_forest(2, balanced=True)):
        outputs = learn(support.inputs, support.targets, query.inputs, 0)
        assert (outputs[:5, 1] > outputs[:5, 0]).all()
