"""Tasks with a few known examples of class 1, such as anomalies, among unlabelled ones.

The support has k known examples, and unlabelled ones drawn from all others, which it has as class
0 although some may be of class 1. The query is the rest.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree, Task
from jaxmeta.data._whole_pools import WholePools, generator_of, padded_batch, shared_shapes
from jaxmeta.data.pool_sets.dataset import Drawing
from jaxmeta.data.pools import (
    Pools,
    batch_of,
    draw_pool,
    pool_sampler,
    select_pools,
    with_inputs,
)
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.stream import Streams, TaskStream

UNLABELLED = 128
"""Largest number of unlabelled support examples; at most half of a pool."""
LEAST_LEFT = 5
"""Smallest number of examples of class 1 in the query of a whole pool."""


def known_tasks(
    pools: Pools,
    *,
    support: int | tuple[int, int],
    queries: int,
    unlabelled: int = UNLABELLED,
    **_: Any,
) -> Sampler:
    """A sampler of tasks, each from one pool: `sample(key) -> Task`.

    A pool is drawn uniformly, then k, then the examples. The query examples are drawn without
    replacement and with equal probability of both classes, so that rare ones are among them.

    Args:
      pools: class indices 0 and 1 as targets; pools with too few examples of class 1 are left out.
      support: k, the number of known examples, or its smallest and largest value; reduced where a
        pool has not one more.
      queries: largest number of query examples.
      unlabelled: largest number of unlabelled support examples, at most half of the pool.

    Raises:
      ValueError: a number is below its bound, or all pools are too small.

    >>> from jaxmeta.data.pools import pools_by
    >>> pools = pools_by(np.zeros((30, 2)), (np.arange(30) % 5 == 0).astype(int), ["a"] * 30)
    >>> task = known_tasks(pools, support=(1, 2), queries=8, unlabelled=6)(jax.random.key(0))
    >>> task.support.inputs.shape, int(task.support.mask.sum() - task.support.targets.sum())
    ((8, 2), 6)
    """
    low, high = (support, support) if isinstance(support, int) else support
    if not 1 <= low <= high or queries < 1 or unlabelled < 1:
        raise ValueError(
            f"known_tasks: {low} to {high} known and {unlabelled} unlabelled support examples, "
            f"{queries} queries; give at least 1 of each, and the smaller number first"
        )
    enough = positives(pools) > low
    if not enough.any():
        raise ValueError(
            f"known_tasks: none of {len(pools.names)} pools has more than {low} examples of class 1"
        )
    kept = select_pools(pools, np.flatnonzero(enough))
    return pool_sampler(
        _draw_task,
        kept,
        support=(low, high),
        queries=queries,
        unlabelled=unlabelled,
    )


def positives(pools: Pools) -> np.ndarray:
    """The number of examples of class 1 of each pool, int `[pools]`.

    >>> from jaxmeta.data.pools import pools_by
    >>> positives(pools_by(np.zeros((3, 1)), np.array([0, 1, 1]), np.array(["a", "b", "b"])))
    array([0, 2])
    """
    each = range(len(pools.names))
    return np.array([(pools.targets[pools.places(own)] == 1).sum() for own in each], np.int64)


def _draw_task(
    arrays: tuple[PyTree, Array, Array, Array, Array],
    key: Key,
    *,
    support: tuple[int, int],
    queries: int,
    unlabelled: int,
    largest: int,
) -> Task:
    inputs, rows, targets, starts, counts = arrays
    start, count, size, order_key = draw_pool(starts, counts, key, support)
    high = support[1]
    within = jnp.arange(largest)
    valid_N = within < count
    rare_N = valid_N & (targets[jnp.minimum(start + within, targets.shape[0] - 1)] == 1)
    size = jnp.minimum(size, rare_N.sum() - 1)
    free = jnp.minimum(unlabelled, (count - size) // 2)
    uniform_2N = jax.random.uniform(order_key, (2, largest), minval=1e-7)
    places_N = known_order(uniform_2N[0], rare_N, valid_N, size)
    # The others again: the smallest of exponential times of rate 1 / (number of the class).
    left_N = jnp.where(jnp.argsort(places_N) < size + free, False, valid_N)
    number_N = jnp.where(rare_N, (left_N & rare_N).sum(), (left_N & ~rare_N).sum())
    times_N = jnp.where(left_N, -jnp.log(uniform_2N[1]) * number_N, jnp.inf)
    asked = jnp.argsort(times_N)[:queries]
    used = jnp.arange(high + unlabelled)

    batch = functools.partial(batch_of, rows, targets, start)
    known = batch(places_N[jnp.minimum(used, largest - 1)], used < size + free)
    query = batch(asked, jnp.arange(asked.shape[0]) < left_N.sum())
    known = known._replace(targets=(used < size).astype(jnp.int32))
    return with_inputs(inputs, Task(known, query))


def known_order(uniform_N: Any, rare_N: Any, valid_N: Any, size: Any) -> Any:
    """A random order of examples whose first `size` are rare; padding comes last.

    Args:
      uniform_N: uniform in [0, 1).
      rare_N: bool, which examples are of class 1.
      valid_N: bool, which examples are no padding.
      size: number of known examples.

    Returns:
      int `[N]`, the indices of the examples in their order; NumPy arrays for NumPy arrays.

    >>> known_order(np.array([0.1, 0.4, 0.3, 0.2]), np.array([0, 1, 1, 0], bool),
    ...             np.ones(4, bool), 1).tolist()
    [2, 0, 3, 1]
    """
    xp: Any = np if isinstance(uniform_N, np.ndarray) else jnp
    rank_N = xp.argsort(xp.argsort(xp.where(rare_N, uniform_N, 2)))
    first_N = rare_N & (rank_N < size)
    return xp.argsort(xp.where(valid_N, uniform_N - first_N, xp.inf))


class _Draws(Sequence):
    """The draws of some pools; a `Task` has row numbers as inputs, and draws as its first axis."""

    def __init__(
        self, pools: Pools, places: list[np.ndarray], size: int, free: list[int], shape: int
    ):
        self._pools, self._places, self._size = pools, places, size
        self._free, self._shape = free, shape

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Task:
        places, given = self._places[index], self._size + self._free[index]
        batch = functools.partial(padded_batch, self._pools, places[0, 0])
        known = batch(places[:, :given], self._size + max(self._free))
        first = np.broadcast_to(np.arange(known.targets.shape[1]) < self._size, known.targets.shape)
        known = known._replace(targets=first.astype(np.int32))
        return Task(known, batch(places[:, given:], self._shape))


def whole_known(
    pools: Pools,
    *,
    support: int,
    draws: int = 10,
    seed: int = 0,
    most: int | None = None,
    shapes: int = 1,
    unlabelled: int = UNLABELLED,
    **_: Any,
) -> WholePools:
    """Enumerates pools for evaluation: k known and some unlabelled examples, all others as query.

    As `jaxmeta.data.whole_pools`, with `support` the number k of known examples. Pools with fewer
    than k + 5 examples of class 1 are left out, so that five are left for the query.

    Raises:
      ValueError: all pools have too few examples of class 1; a number is out of its range.

    >>> from jaxmeta.data.pools import pools_by
    >>> pools = pools_by(np.zeros((40, 2)), (np.arange(40) % 5 == 0).astype(int), ["a"] * 40)
    >>> (stream,) = whole_known(pools, support=2, draws=3, unlabelled=6).source.streams
    >>> stream.tasks[0].support.targets[0].tolist(), stream.tasks[0].query.targets.shape
    ([1, 1, 0, 0, 0, 0, 0, 0], (3, 32))
    """
    if support < 1 or draws < 1 or unlabelled < 1:
        raise ValueError(
            f"whole_known: {support} known examples, {unlabelled} unlabelled, {draws} draws; give "
            "at least 1 of each"
        )
    chosen = np.flatnonzero(positives(pools) >= support + LEAST_LEFT)[:most]
    if not chosen.size:
        raise ValueError(
            f"whole_known: none of {len(pools.names)} pools has {support + LEAST_LEFT} examples of "
            f"class 1, {LEAST_LEFT} more than are known; give fewer known examples"
        )
    free = np.minimum(unlabelled, (pools.counts[chosen] - support) // 2)
    queries = pools.counts[chosen] - support - free
    order = np.argsort(queries, kind="stable")
    chosen, free, queries = chosen[order], free[order], queries[order]
    places = [_orders(pools, own, support, draws, seed) for own in chosen.tolist()]
    padded = shared_shapes(queries, shapes)
    inputs = jax.tree.map(jnp.asarray, pools.inputs)
    streams = []
    for shape in np.unique(padded).tolist():
        members = np.flatnonzero(padded == shape).tolist()
        tasks = _Draws(
            pools, [places[own] for own in members], support, free[members].tolist(), shape
        )
        streams.append(TaskStream(tasks, jax.tree_util.Partial(with_inputs, inputs)))
    return WholePools(Streams(tuple(streams)), chosen, places, support)


def _orders(pools: Pools, pool: int, size: int, draws: int, seed: int) -> np.ndarray:
    """The positions of a pool's examples in the order of each draw, int `[draws, examples]`."""
    places = pools.places(pool)
    rng = generator_of(pools.names[pool], seed)
    rare, valid = pools.targets[places] == 1, np.ones(len(places), bool)
    uniform = rng.uniform(size=(draws, len(places)))
    return np.stack([places[known_order(own, rare, valid, size)] for own in uniform])


def most_known(pools: Pools) -> int:
    """The largest number of known examples that a whole pool allows.

    >>> from jaxmeta.data.pools import pools_by
    >>> most_known(pools_by(np.zeros((7, 1)), np.ones(7, int), ["a"] * 7))
    2
    """
    return int(positives(pools).max(initial=0)) - LEAST_LEFT


KNOWN = Drawing(known_tasks, whole_known, most_known)
