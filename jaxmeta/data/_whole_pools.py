"""Whole pools for evaluation: a few examples to learn from, all others as query."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Task
from jaxmeta.data.pools import Order, Pools, check_order, stratified_order, with_inputs
from jaxmeta.data.stream import Streams, TaskStream


class _Draws(Sequence):
    """The draws of some pools; a `Task` has row numbers as inputs, and draws as its first axis."""

    def __init__(
        self, pools: Pools, chosen: np.ndarray, places: list, sizes: np.ndarray, queries: int
    ):
        self._pools, self._chosen, self._places = pools, chosen, places
        self._sizes, self._queries = sizes, queries

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Task:
        places, size = self._places[index], int(self._sizes[self._chosen[index]])
        known, asked = places[:, :size], places[:, size:]
        first = int(self._pools.starts[self._chosen[index]])

        batch = functools.partial(padded_batch, self._pools, first)
        return Task(batch(known, max(self._sizes.max(), 1)), batch(asked, self._queries))


def padded_batch(pools: Pools, first: int, places_DN: np.ndarray, length: int) -> Batch:
    """The examples of each draw, padded to a length by that at `first`; inputs are row numbers."""
    count = places_DN.shape[1]
    padding = np.full((len(places_DN), length - count), first)
    filled = np.concatenate([places_DN, padding], axis=1)
    mask: Any = np.broadcast_to(np.arange(length) < count, filled.shape)
    return Batch(pools.rows[filled], pools.targets[filled], mask)


class WholePools(NamedTuple):
    """The tasks of an evaluation on whole pools.

    Attributes:
      source: streams of tasks, one for each compiled shape. A task has all draws of a pool: its
        leaves are `[draws, examples, ...]`.
      pools: int `[tasks]`, the index of each task's pool.
      places: for each task, int `[draws, examples]`: positions in `rows` and `targets`, the support
        first.
      size: the number of support examples.
    """

    source: Streams
    pools: np.ndarray
    places: list[np.ndarray]
    size: int


def whole_pools(
    pools: Pools,
    *,
    support: int,
    draws: int = 10,
    order: Order = "random",
    seed: int = 0,
    most: int | None = None,
    share: float | None = None,
    queries: int | None = None,
    shapes: int = 4,
) -> WholePools:
    """Enumerates pools for evaluation: `support` examples to learn from, all others as query.

    A draw depends on the seed and the pool's name alone, and the support of a smaller size is a
    part of that of a larger one. Tasks are sorted by size; those of similar sizes are padded to one
    shape, see `shared_shapes`.

    Args:
      pools: pools with more than `support` examples; smaller ones are left out.
      support: number of support examples; may be 0.
      draws: number of draws of each pool. With `time` there is one: the first examples, or with
        `queries` those before the query.
      order: see `Order`.
      seed: of the draws.
      most: largest number of pools, the first ones by name. Defaults to all.
      share: largest part of a pool's examples in the support; smaller pools then have fewer support
        examples and are not left out.
      queries: number of query examples, the same ones with every support size. Smaller pools have
        fewer support examples; those without any more than the query are left out. Defaults to all
        examples that are not in the support.
      shapes: largest number of compiled shapes.

    Raises:
      ValueError: all pools are too small; a number is out of its range.

    >>> from jaxmeta.data.pools import pools_by
    >>> pools = pools_by(np.zeros((9, 2)), np.arange(9) % 2, np.array(list("aaaaabbbb")))
    >>> found = whole_pools(pools, support=2, draws=3, shapes=2)
    >>> [len(stream.tasks) for stream in found.source.streams], found.pools.tolist()
    ([1, 1], [1, 0])
    >>> found.source.streams[0].tasks[0].query.targets.shape
    (3, 2)
    """
    check_order(pools, order)
    if support < 0 or draws < 1:
        raise ValueError(
            f"whole_pools: support {support}, {draws} draws; give a support of 0 or more, and at "
            "least 1 draw"
        )
    sizes = np.full(len(pools.counts), support)
    if share is not None:
        sizes = np.minimum(support, (share * pools.counts).astype(int))
    used = sizes  # by what must be exceeded
    if queries is not None:
        used, sizes = np.full_like(sizes, queries), np.minimum(sizes, pools.counts - queries)
    chosen = np.flatnonzero(pools.counts > used)[:most]
    if not chosen.size:
        raise ValueError(
            f"whole_pools: no pool has more than {support if queries is None else queries} "
            f"examples; the largest of {len(pools.names)} pools has {pools.counts.max()}"
        )
    if queries is None:  # otherwise all have as many
        chosen = chosen[np.argsort((pools.counts - sizes)[chosen], kind="stable")]
    places = [_orders(pools, own, draws, order, seed) for own in chosen.tolist()]
    if queries is not None:
        for index, size in enumerate(sizes[chosen].tolist()):
            before, query = np.split(places[index], [-queries], axis=1)
            # In time the support is the examples just before the query.
            first = before.shape[1] - size if order == "time" else 0
            places[index] = np.concatenate([before[:, first : first + size], query], axis=1)
    return WholePools(in_streams(pools, chosen, places, sizes, shapes), chosen, places, support)


def in_streams(
    pools: Pools, chosen: np.ndarray, places: list[np.ndarray], sizes: np.ndarray, shapes: int
) -> Streams:
    """Streams of the draws of some pools, of at most `shapes` shapes.

    Args:
      pools, chosen: the pools, and the indices of those to use, by the size of the query.
      places: for each of them, int `[draws, examples]`: positions of its examples, the support
        first.
      sizes: the number of support examples of each of `pools`.
      shapes: see `shared_shapes`.
    """
    queries = np.array([own.shape[1] for own in places]) - sizes[chosen]
    padded = shared_shapes(queries, shapes)
    inputs = jax.tree.map(jnp.asarray, pools.inputs)
    streams = []
    for shape in np.unique(padded).tolist():
        (members,) = np.nonzero(padded == shape)
        of_shape = [places[own] for own in members.tolist()]
        tasks = _Draws(pools, chosen[members], of_shape, sizes, shape)
        streams.append(TaskStream(tasks, jax.tree_util.Partial(with_inputs, inputs)))
    return Streams(tuple(streams))


class _Halves(Sequence):
    """Pools in two parts: a `Task` has candidates as support, and row numbers as inputs."""

    def __init__(self, pools: Pools, places: list[tuple[np.ndarray, np.ndarray]]):
        self._pools, self._places = pools, places
        self._sizes = [max(len(own[part]) for own in places) for part in (0, 1)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Task:
        halves = self._places[index]
        first = int(halves[0][0])
        batches = (
            padded_batch(self._pools, first, own[None], size)
            for own, size in zip(halves, self._sizes)
        )
        return Task(*(jax.tree.map(lambda leaf: leaf[0], batch) for batch in batches))


def candidate_pools(
    pools: Pools,
    *,
    ways: int,
    candidates: int,
    queries: int,
    start: int = 0,
    labels: int = 1,
    draws: int = 1,
    order: Order = "random",
    seed: int = 0,
) -> tuple[TaskStream, np.ndarray]:
    """Enumerates pools for active learning: a task has candidates as support, others as query.

    At most half of a pool's examples are candidates. All tasks are padded to one shape. Pools are
    left out if they have too few candidates, in all or of a class, or a query of a single class.

    Args:
      pools: class indices as targets.
      ways: number of classes.
      candidates, queries: the largest number of each.
      start: labels per class before the first choice.
      labels: labels after that; there are at least as many candidates as labels in all.
      draws: tasks from each pool.
      order, seed: see `whole_pools`.

    Returns:
      the stream of tasks, and the index of each task's pool.

    Raises:
      ValueError: all pools are too small; the targets are no classes.

    >>> from jaxmeta.data.pools import pools_by
    >>> pools = pools_by(np.zeros((9, 2)), np.arange(9) % 2, np.array(list("aaaaaabbb")))
    >>> stream, chosen = candidate_pools(
    ...     pools, ways=2, candidates=4, queries=2, start=1, order="stratified")
    >>> stream.tasks[0].support.targets.shape, stream.tasks[0].query.mask.sum(), chosen.tolist()
    ((3,), np.int64(2), [0])
    """
    check_order(pools, order)
    if not np.issubdtype(pools.targets.dtype, np.integer):
        raise ValueError("candidate_pools: the targets are numbers; give pools with classes")
    least, places, chosen = start * ways + labels, [], []
    for pool in range(len(pools.names)):
        for drawn in _orders(pools, pool, draws, order, seed):
            size = min(candidates, len(drawn) // 2)
            halves = drawn[:size], drawn[size : size + queries]
            own, rest = (pools.targets[half] for half in halves)
            enough = size >= least and np.bincount(own, minlength=ways).min() >= start
            if enough and len(np.unique(rest)) > 1:
                places.append(halves)
                chosen.append(pool)
    if not places:
        raise ValueError(
            f"candidate_pools: none of {len(pools.names)} pools has {least} candidates, {start} of "
            f"each class, in half of its examples (at most {candidates} are used), and several "
            "classes in the query; give fewer labels"
        )
    prepare = jax.tree_util.Partial(with_inputs, jax.tree.map(jnp.asarray, pools.inputs))
    return TaskStream(_Halves(pools, places), prepare), np.array(chosen)


def _orders(pools: Pools, pool: int, draws: int, order: Order, seed: int) -> np.ndarray:
    """The positions of a pool's examples in the order of each draw, int `[draws, examples]`."""
    places = pools.places(pool)
    if order == "time":
        return places[None]
    rng = generator_of(pools.names[pool], seed)

    def drawn() -> np.ndarray:
        uniform = rng.uniform(size=len(places))
        if order == "random":
            return np.argsort(uniform)
        labels = pools.targets[places]
        offsets = rng.uniform(size=int(labels.max()) + 1)
        return stratified_order(uniform, offsets, labels, np.ones(len(places), bool))

    return np.stack([places[drawn()] for _ in range(draws)])


def generator_of(name: str, seed: int) -> np.random.Generator:
    """The generator of a pool's draws: it depends on the seed and the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])


def shared_shapes(sizes: np.ndarray, shapes: int) -> np.ndarray:
    """The size that each is padded to, of at most `shapes` different ones, with least padding.

    The sizes are cut into consecutive groups, each padded to its largest size; the cuts minimise
    the total of the padded sizes, by dynamic programming over the different sizes.

    >>> shared_shapes(np.array([3, 4, 100, 90, 4]), 2).tolist()
    [4, 4, 100, 100, 4]
    """
    different, counts = np.unique(sizes, return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    # least[j]: the least total of the first j different sizes with the groups so far.
    least = np.where(np.arange(len(total)) == 0, 0.0, np.inf)
    cuts = []
    for _ in range(min(shapes, len(different))):
        costs = least[:, None] + different[None] * (total[None, 1:] - total[:, None])
        # A group is the sizes from i to j; i is a row and j a column.
        costs = np.where(np.tri(len(total), len(different), -1, dtype=bool), np.inf, costs)
        cuts.append(costs.argmin(axis=0))
        least = np.concatenate([[0.0], costs.min(axis=0)])
    ends, last = [], len(different)
    for cut in reversed(cuts):
        if last:
            ends.append(different[last - 1])
            last = int(cut[last - 1])
    largest = np.sort(ends)
    return largest[np.searchsorted(largest, sizes)]
