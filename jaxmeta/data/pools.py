"""Pools of examples, of any sizes: assays, users, stocks. A task is drawn from one pool.

Tasks of all pools have one compiled shape: sizes vary by mask. `pool_tasks` draws them on the
device, for training; `jaxmeta.data.whole_pools` enumerates them, for evaluation.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, PyTree, Task
from jaxmeta.data.identity import Classes, classes_by
from jaxmeta.data.samplers import Sampler, sampler

Order = Literal["random", "stratified", "time"]
"""How the examples of a pool are drawn.

random: without replacement; stratified: likewise, in the proportions of the classes, each class at
least once; time: a support set and the query that follows it, in the order of the pool.
"""


class Pools(NamedTuple):
    """Examples by pool; pools may share examples, such as a film that several users rate.

    Attributes:
      inputs: PyTree of arrays `[examples, ...]`. Unsigned integers are counts; tasks have
        log(1 + count).
      rows: int32 `[total]`, sorted by pool: the index of each pool's examples into `inputs`.
      targets: `[total, ...]`, likewise: int32 class indices `[total]`, or float32 `[total, Y]`.
      starts: int32 `[pools]`, the position of the first example of each pool.
      counts: int32 `[pools]`, the number of examples of each pool.
      names: one name per pool.
    """

    inputs: PyTree
    rows: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]

    def places(self, pool: int) -> np.ndarray:
        """The positions of a pool's examples in `rows` and `targets`."""
        return self.starts[pool] + np.arange(self.counts[pool])


def pools_by(
    inputs: PyTree,
    targets: np.ndarray,
    owners: np.ndarray,
    *,
    rows: np.ndarray | None = None,
) -> Pools:
    """Sorts examples by pool; the examples of a pool stay in their order.

    Args:
      inputs: PyTree of arrays `[examples, ...]`.
      targets: integers `[total]`, classes from 0; or numbers `[total]` or `[total, Y]`.
      owners: text or numbers `[total]`, the pool of each example. Pools are sorted by name.
      rows: int `[total]`, indices into `inputs`. Defaults to one example for each target.

    Raises:
      ValueError: there are no examples; lengths differ; an index is out of range; a class is
        negative, or a number is not finite.

    >>> pools = pools_by(np.zeros((4, 2)), np.array([1, 0, 0, 1]), np.array(["b", "a", "b", "b"]))
    >>> pools.names, pools.counts.tolist(), pools.targets.tolist()
    (('a', 'b'), [1, 3], [0, 1, 0, 1])
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    targets, owners = np.asarray(targets), np.asarray(owners)
    examples = {len(leaf) for leaf in leaves}
    rows = np.arange(len(targets)) if rows is None else np.asarray(rows)
    if len(examples) != 1 or not len(targets) or not len(targets) == len(owners) == len(rows):
        raise ValueError(
            f"pools_by: {len(targets)} targets, {len(owners)} pools of examples and {len(rows)} "
            f"rows of inputs with {sorted(examples)} examples; give one of each for every example"
        )
    if rows.min() < 0 or rows.max() >= min(examples):
        raise ValueError(
            f"pools_by: rows from {rows.min()} to {rows.max()}; give indices of the "
            f"{min(examples)} inputs"
        )
    names, owners = np.unique(owners, return_inverse=True)
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners).astype(np.int32)
    return Pools(
        inputs,
        rows[order].astype(np.int32),
        _targets(targets)[order],
        (np.cumsum(counts) - counts).astype(np.int32),
        counts,
        tuple(map(str, names.tolist())),
    )


def _targets(targets: np.ndarray) -> np.ndarray:
    if np.issubdtype(targets.dtype, np.integer):
        if targets.min() < 0:
            raise ValueError(f"pools_by: the class {targets.min()}; give classes from 0")
        return targets.astype(np.int32)
    if not np.isfinite(targets).all():
        raise ValueError("pools_by: a target is NaN or infinite; leave the example out")
    return targets.astype(np.float32).reshape(len(targets), -1)


def select_pools(pools: Pools, indices: Sequence[int] | np.ndarray) -> Pools:
    """The pools at `indices`, in that order; `inputs` are shared.

    >>> pools = pools_by(np.zeros((3, 1)), np.array([0, 1, 1]), np.array(["a", "b", "b"]))
    >>> select_pools(pools, [1]).targets.tolist()
    [1, 1]
    """
    indices = np.asarray(indices, np.int64)
    places = np.concatenate([np.zeros(0, np.int64), *map(pools.places, indices.tolist())])
    counts = pools.counts[indices]
    return Pools(
        pools.inputs,
        pools.rows[places],
        pools.targets[places],
        (np.cumsum(counts) - counts).astype(np.int32),
        counts,
        tuple(pools.names[index] for index in indices.tolist()),
    )


def identified(source: str, pools: Pools) -> Classes:
    """What identifies the pools: the source, their names, and a digest of each pool's examples."""

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(pools.inputs)]

    def contents(pool: int) -> np.ndarray:
        places, total = pools.places(pool), hashlib.sha256()
        for leaf in leaves:
            total.update(np.ascontiguousarray(leaf[pools.rows[places]]).tobytes())
        total.update(pools.targets[places].tobytes())
        return np.frombuffer(total.digest(), np.uint8)

    return classes_by(source, {name: [contents(own)] for own, name in enumerate(pools.names)})


def pool_tasks(
    pools: Pools,
    *,
    support: int | tuple[int, int],
    queries: int,
    least_queries: int = 1,
    order: Order = "random",
) -> Sampler:
    """A sampler of tasks, each from one pool: `sample(key) -> Task`.

    A pool is drawn uniformly, then the number of support examples, then the examples. All tasks
    have one shape; masks mark the examples that belong to the task. Numbers that exceed what a
    small pool has are reduced for this task.

    Args:
      pools: the pools; those with fewer than the least number of support and query examples, or
        for `stratified` with fewer than two classes, are left out.
      support: number of support examples, or the smallest and the largest number.
      queries: largest number of query examples.
      least_queries: smallest number of query examples.
      order: see `Order`.

    Raises:
      ValueError: a number is below its bound, or all pools are too small.

    >>> pools = pools_by(np.zeros((30, 2)), np.arange(30) % 2, np.repeat(["a", "b"], 15))
    >>> task = pool_tasks(pools, support=(2, 6), queries=4, order="stratified")(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.shape, 2 <= task.support.mask.sum() <= 6
    ((6, 2), (4,), Array(True, dtype=bool))
    """
    low, high = (support, support) if isinstance(support, int) else support
    check_order(pools, order)
    if not 0 <= low <= high or high < 1 or not 1 <= least_queries <= queries:
        raise ValueError(
            f"pool_tasks: {low} to {high} support examples, {least_queries} to {queries} queries; "
            "give the smaller number first, and at least one query"
        )
    enough = pools.counts >= low + least_queries
    if order == "stratified":
        several = [len(np.unique(pools.targets[pools.places(own)])) > 1 for own in _each(pools)]
        enough &= np.array(several, bool)
    if not enough.any():
        raise ValueError(
            f"pool_tasks: no pool has {low} support and {least_queries} query examples"
            + (" and two classes" if order == "stratified" else "")
            + f"; the largest of {len(pools.names)} pools has {pools.counts.max()} examples"
        )
    kept = select_pools(pools, np.flatnonzero(enough))
    return pool_sampler(
        _draw_task,
        kept,
        support=(low, high),
        queries=queries,
        least_queries=least_queries,
        order=order,
        classes=int(kept.targets.max()) + 1 if order == "stratified" else 0,
    )


class DrawnPool(NamedTuple):
    """A pool for one task, see `draw_pool`.

    Attributes:
      start, number: the place of its first example, and their number.
      size: number of support examples that were drawn.
      key: for the draw of the examples.
    """

    start: Array
    number: Array
    size: Array
    key: Key


def pool_sampler(draw: Callable[..., Task], pools: Pools, **settings: Any) -> Sampler:
    """A sampler of tasks of the pools: `draw(arrays, key, *, largest, **settings) -> Task`.

    `arrays` are the inputs, rows, targets, starts and counts of the pools, and `largest` is the
    number of examples of the largest pool.
    """
    arrays = (pools.inputs, pools.rows, pools.targets, pools.starts, pools.counts)
    largest = int(pools.counts.max())
    return sampler(draw, jax.tree.map(jnp.asarray, arrays), largest=largest, **settings)


def draw_pool(starts: Array, counts: Array, key: Key, support: tuple[int, int]) -> DrawnPool:
    """A pool, drawn uniformly, and a number of support examples, from the least to the largest."""
    pool_key, size_key, order_key = jax.random.split(key, 3)
    pool = jax.random.randint(pool_key, (), 0, starts.shape[0])
    size = jax.random.randint(size_key, (), support[0], support[1] + 1)
    return DrawnPool(starts[pool], counts[pool], size, order_key)


def _draw_task(
    arrays: tuple[PyTree, Array, Array, Array, Array],
    key: Key,
    *,
    support: tuple[int, int],
    queries: int,
    least_queries: int,
    order: Order,
    largest: int,
    classes: int,
) -> Task:
    inputs, rows, targets, starts, counts = arrays
    start, count, size, order_key = draw_pool(starts, counts, key, support)
    high = support[1]
    size = jnp.minimum(size, count - least_queries)
    after = size + jnp.arange(queries)
    if order == "time":
        free = jnp.maximum(count - size - queries, 0)
        shift = jax.random.randint(order_key, (), 0, free + 1)
        known, asked = shift + jnp.arange(high), shift + after
    else:
        within = jnp.arange(largest)
        valid = within < count
        uniform = jax.random.uniform(order_key, (largest + classes,))
        if order == "stratified":
            labels = targets[jnp.minimum(start + within, targets.shape[0] - 1)]
            places = stratified_order(uniform[:largest], uniform[largest:], labels, valid)
        else:
            places = jnp.argsort(jnp.where(valid, uniform, jnp.inf))
        known, asked = (places[jnp.minimum(own, largest - 1)] for own in (jnp.arange(high), after))
        shift = 0

    batch = functools.partial(batch_of, rows, targets, start)
    chosen = Task(batch(known, jnp.arange(high) < size), batch(asked, (shift + after < count)))
    return with_inputs(inputs, chosen)


def batch_of(rows: Array, targets: Array, start: Array, places: Array, mask: Array) -> Batch:
    """The examples at places of the pool that begins at `start`; inputs are row numbers."""
    # Padding repeats the pool's first example.
    places = start + jnp.where(mask, places, 0)
    return Batch(rows[places], targets[places], mask)


def with_inputs(inputs: PyTree, chosen: Task) -> Task:
    """The task with `inputs[row]` in place of each row number; counts become log(1 + count)."""

    def gathered(rows: Array) -> PyTree:
        def of_leaf(leaf: Array) -> Array:
            found = jnp.asarray(leaf)[rows]
            counts = jnp.issubdtype(found.dtype, jnp.unsignedinteger)
            return jnp.log1p(found.astype(jnp.float32)) if counts else found

        return jax.tree.map(of_leaf, inputs)

    return Task(*(part._replace(inputs=gathered(part.inputs)) for part in chosen))


def stratified_order(uniform_N: Any, offsets_W: Any, labels_N: Any, valid_N: Any) -> Any:
    """A random order of labelled examples whose first k are stratified, for every k.

    The examples of class w, in random order, take the positions (i + u_w) / n_w for i = 0, 1, …,
    and all are sorted by position, so that the first k have k n_w / n examples of class w, to
    within one. The first of each class comes before all others. Padding comes last.

    Args:
      uniform_N: uniform in [0, 1), for the order within a class.
      offsets_W: uniform in [0, 1), u of each class.
      labels_N: int, from 0 to W − 1.
      valid_N: bool, which examples are no padding.

    Returns:
      int `[N]`, the indices of the examples in their order; NumPy arrays for NumPy arrays.

    >>> order = stratified_order(np.random.rand(6), np.array([0.1, 0.6]), np.arange(6) % 2,
    ...                          np.ones(6, bool))
    >>> (order % 2).tolist()
    [0, 1, 0, 1, 0, 1]
    """
    xp: Any = np if isinstance(uniform_N, np.ndarray) else jnp
    classes = offsets_W.shape[0]
    labels_N = xp.where(valid_N, labels_N, classes)
    # Below 1, so that rounding does not move an example into the next class.
    by_class_N = xp.argsort(labels_N + 0.999 * uniform_N)
    counts_W = (labels_N[:, None] == xp.arange(classes)[None]).sum(axis=0)
    firsts_W = xp.cumsum(counts_W) - counts_W
    known_N = xp.minimum(labels_N, classes - 1)
    ranks_N = xp.argsort(by_class_N) - firsts_W[known_N]
    positions_N = (ranks_N + offsets_W[known_N]) / xp.maximum(counts_W[known_N], 1)
    positions_N = xp.where(ranks_N == 0, offsets_W[known_N] - 1, positions_N)
    return xp.argsort(xp.where(valid_N, positions_N, xp.inf))


def check_order(pools: Pools, order: Order) -> None:
    """Raises `ValueError` for an unknown order, or for one that requires classes."""
    if order not in get_args(Order):
        raise ValueError(f"unknown order {order!r}; give {', '.join(get_args(Order))}")
    if order == "stratified" and not np.issubdtype(pools.targets.dtype, np.integer):
        raise ValueError("the order stratified requires classes; give random or time for numbers")


def _each(pools: Pools) -> range:
    return range(len(pools.names))
