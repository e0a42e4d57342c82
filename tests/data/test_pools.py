"""Pools: what a task holds, how its examples are drawn, and whole pools for evaluation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import Batch, Task
from jaxmeta.data._whole_pools import shared_shapes, whole_pools
from jaxmeta.data.identity import names_seen
from jaxmeta.data.pools import (
    identified,
    pool_tasks,
    pools_by,
    select_pools,
    stratified_order,
)
from jaxmeta.training.estimates import per_task

SIZES = {"c": 7, "a": 40, "b": 21, "tiny": 2}


def numbered(*, classes: bool = True):
    """Pools whose inputs name their pool and example, so that a task shows what was drawn."""
    owners = np.repeat(list(SIZES), list(SIZES.values()))
    order = np.random.default_rng(0).permutation(len(owners))
    owners = owners[order]
    inputs = np.stack([np.unique(owners, return_inverse=True)[1], np.arange(len(owners))], axis=1)
    targets = (np.arange(len(owners)) % 3 == 0).astype(int)
    return pools_by(inputs.astype(np.float32), targets if classes else 1.0 * inputs[:, 1], owners)


def draw(sample, seeds: int = 64) -> Task:
    return jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(0), seeds))


def taken(tasks: Task, row: int) -> Task:
    return jax.tree.map(lambda leaf: np.asarray(leaf[row]), tasks)


def test_pools_are_sorted_by_name_and_keep_their_order():
    pools = numbered()
    assert pools.names == ("a", "b", "c", "tiny")
    assert pools.counts.tolist() == [40, 21, 7, 2]
    for pool, _ in enumerate(pools.names):
        rows = pools.rows[pools.places(pool)]
        assert (np.diff(rows) > 0).all()
        assert (pools.inputs[rows, 0] == pool).all()
        assert (pools.targets[pools.places(pool)] == (rows % 3 == 0)).all()
    two = select_pools(pools, [2, 0])
    assert two.names == ("c", "a")
    assert (two.inputs[two.rows[two.places(0)], 0] == 2).all()


@pytest.mark.parametrize("order", ["random", "stratified", "time"])
def test_a_task_has_different_examples_of_one_pool(order):
    sample = pool_tasks(numbered(), support=(2, 10), queries=12, least_queries=3, order=order)
    tasks = draw(sample)
    assert tasks.support.inputs.shape == (64, 10, 2)
    assert tasks.query.inputs.shape == (64, 12, 2)
    sizes, owners = set(), set()
    for row in range(64):
        support, query = taken(tasks, row)
        chosen = [own.inputs[own.mask] for own in (support, query)]
        both = np.concatenate(chosen)
        assert len({*both[:, 0].tolist()}) == 1  # one pool
        assert len({*both[:, 1].tolist()}) == len(both)  # no example twice
        for own in (support, query):
            assert (own.targets[own.mask] == (own.inputs[own.mask, 1] % 3 == 0)).all()
        pool = int(both[0, 0])
        count = list(map(len, chosen))
        assert 2 <= count[0] <= 10 and 3 <= count[1] <= 12
        # The query is as large as the pool allows.
        assert count[1] == min(12, [40, 21, 7, 2][pool] - count[0])
        if order == "stratified":
            assert {*support.targets[support.mask].tolist()} == {0, 1}
        if order == "time":
            assert (np.diff(both[:, 1]) > 0).all()
        sizes.add(count[0])
        owners.add(pool)
    assert owners == {0, 1, 2}  # the tiny one is left out
    assert sizes >= {*range(2, 11)} - {10}


def test_random_draws_are_uniform():
    """Each of 7 examples is as often in the support of 3."""
    pools = select_pools(numbered(), [2])
    tasks = draw(pool_tasks(pools, support=3, queries=4), 4000)
    places = np.searchsorted(pools.rows, np.asarray(tasks.support.inputs[..., 1]).astype(int))
    frequency = np.bincount(places.ravel(), minlength=7) / 4000
    np.testing.assert_allclose(frequency, 3 / 7, atol=0.035)  # 4.5 standard deviations


@pytest.mark.parametrize("numpy", [True, False])
def test_every_beginning_of_a_stratified_order_is_stratified(numpy):
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    valid = np.arange(130) < 100
    uniform, offsets = rng.uniform(size=130), rng.uniform(size=3)
    labels = np.concatenate([labels, np.full(30, 2)])
    given = (uniform, offsets, labels, valid)
    given = given if numpy else tuple(map(jnp.asarray, given))
    order = np.asarray(stratified_order(*given))
    assert sorted(order[:100]) == [*range(100)]  # the padding is last
    for size in (3, 10, 37, 64):
        counts = np.bincount(labels[order[:size]], minlength=3)
        assert (counts >= 1).all()
        assert (np.abs(counts - size * np.array([0.6, 0.3, 0.1])) <= 2).all()


def test_counts_are_scaled_and_shared_examples_stay_one():
    inputs = np.array([[0, 3], [255, 0]], np.uint8)
    pools = pools_by(inputs, np.array([0, 1, 1]), np.array(["x", "x", "y"]), rows=[1, 0, 1])
    task = draw(pool_tasks(select_pools(pools, [0]), support=1, queries=1), 8)
    both = np.concatenate([task.support.inputs, task.query.inputs], axis=1)
    assert both.dtype == np.float32
    for row, targets in zip(both, np.concatenate([task.support.targets, task.query.targets], 1)):
        expected = np.log1p(inputs.astype(np.float32))[np.where(targets == 0, 1, 0)]
        np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_whole_pools_use_every_example_once():
    pools = numbered()
    found = whole_pools(pools, support=4, draws=3, order="stratified", shapes=2)
    assert found.pools.tolist() == [2, 1, 0]  # by size
    streams = found.source.streams
    assert [len(stream.tasks) for stream in streams] == [2, 1]
    tasks = [task for stream in streams for task in stream.tasks]
    for pool, places, task in zip(found.pools, found.places, tasks):
        assert places.shape == (3, pools.counts[pool])
        for draw_ in range(3):
            assert sorted(places[draw_]) == pools.places(pool).tolist()
            support, query = taken(task, draw_)
            assert support.mask.all() and len(support.mask) == 4
            rows = np.concatenate([support.inputs, query.inputs[query.mask]])
            np.testing.assert_array_equal(rows, pools.rows[places[draw_]])
        assert len({tuple(own) for own in places}) == 3
    # The support of a smaller size is a part of a larger one; other seeds are other draws.
    small = whole_pools(pools, support=2, draws=3, order="stratified")
    by_pool = dict(zip(small.pools.tolist(), small.places))
    for pool, places in zip(found.pools.tolist(), found.places):
        np.testing.assert_array_equal(by_pool[pool], places)
    other = whole_pools(pools, support=4, draws=3, order="stratified", seed=1)
    assert not np.array_equal(other.places[0], found.places[0])


def test_an_evaluation_reads_all_streams_in_order():
    pools = numbered(classes=False)
    found = whole_pools(pools, support=0, draws=2)
    assert not any(stream.tasks[0].support.mask.any() for stream in found.source.streams)

    def judge(key, given, task: Task):
        query: Batch = task.query
        total = jnp.where(query.mask, query.targets[..., 0], 0).sum()
        return total * given, {"pool": query.inputs[0, 0, 0], "key": jax.random.uniform(key)}

    values = per_task(judge, 4)(jnp.asarray(1.0), found.source, jax.random.key(0))
    expected = [2 * pools.targets[pools.places(own)].sum() for own in found.pools]
    np.testing.assert_allclose(values["loss"], expected)
    assert values["pool"].tolist() == found.pools.tolist()
    assert len({*values["key"].tolist()}) == 4
    some = per_task(judge, 3)(jnp.asarray(1.0), found.source, jax.random.key(0))
    for name, own in some.items():
        np.testing.assert_array_equal(own, values[name][:3])
    with pytest.raises(ValueError, match="num_tasks is 5, but the source has 4 tasks"):
        per_task(judge, 5)(jnp.asarray(1.0), found.source, jax.random.key(0))


def test_shapes_have_the_least_padding():
    sizes = np.array([1, 2, 3, 50, 51, 200, 1000, 1001])
    for shapes in range(1, 6):
        found = shared_shapes(sizes, shapes)
        assert (found >= sizes).all() and len({*found.tolist()}) <= shapes
        best = min(
            sum(min(end for end in (*ends, 1001) if end >= size) for size in sizes)
            for ends in itertools.combinations(sizes.tolist(), shapes - 1)
        )
        assert found.sum() == best


def test_pools_are_identified_by_name_and_content():
    pools, other = numbered(), numbered()
    renamed = other._replace(names=("x", "b", "z", "w"))
    found = names_seen(identified("other", renamed), [identified("set", select_pools(pools, [0]))])
    assert found == ["x"]  # the same examples under another name
    assert names_seen(identified("set", renamed), [identified("set", pools)]) == [*"xbzw"]
    changed = other._replace(targets=1 - other.targets)
    assert names_seen(identified("other", changed), [identified("set", pools)]) == []


def test_what_can_t_be_drawn():
    pools = numbered()
    with pytest.raises(ValueError, match="no pool has 40 support and 1 query examples"):
        pool_tasks(pools, support=40, queries=5)
    with pytest.raises(ValueError, match="3 to 2 support examples"):
        pool_tasks(pools, support=(3, 2), queries=5)
    with pytest.raises(ValueError, match="stratified requires classes"):
        pool_tasks(numbered(classes=False), support=2, queries=5, order="stratified")
    with pytest.raises(ValueError, match="no pool has more than 40 examples; the largest of 4"):
        whole_pools(pools, support=40)
    with pytest.raises(ValueError, match="a target is NaN"):
        pools_by(np.zeros((2, 1)), np.array([0.0, np.nan]), np.array(["a", "a"]))
    with pytest.raises(ValueError, match="2 targets, 1 pools of examples"):
        pools_by(np.zeros((2, 1)), np.array([0, 1]), np.array(["a"]))
