"""Tasks whose query has films that nobody has rated: the support is of films that are known.

An input has a column that is 1 for a new film; see `new_films` of `ratings.ratings_set`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree, Task
from jaxmeta.data._whole_pools import WholePools, generator_of, in_streams
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


def split_drawing(column: int) -> Drawing:
    """Tasks with examples as support where an input column is 0, and as query where it is 1.

    >>> from jaxmeta.data.pools import pools_by
    >>> inputs = np.arange(8, dtype=np.float32)[:, None] % 2
    >>> pools = pools_by(inputs, np.zeros(8), np.array(list("aaaabbbb")))
    >>> task = split_drawing(0).sample(pools, support=(1, 2), queries=3)(jax.random.key(0))
    >>> task.support.inputs.ravel().tolist(), task.query.inputs.ravel()[:2].tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """
    return Drawing(
        functools.partial(_sample, column=column),
        functools.partial(_whole, column=column),
        lambda pools: int(_known(pools, column)[0].max(initial=0)),
    )


def _known(pools: Pools, column: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of examples of each pool for the support, and for the query."""
    new = np.asarray(pools.inputs)[pools.rows, column] > 0.5
    counts = np.add.reduceat(new, pools.starts, dtype=np.int64)
    return pools.counts - counts, counts


def _sample(
    pools: Pools, *, support: tuple[int, int], queries: int, column: int, **_: Any
) -> Sampler:
    """A sampler of tasks, each from one pool: `sample(key) -> Task`; as `pool_tasks`."""
    known, new = _known(pools, column)
    enough = (known >= support[0]) & (new > 0)
    if not enough.any():
        raise ValueError(
            f"none of {len(pools.names)} pools has {support[0]} known examples and a new one"
        )
    kept = select_pools(pools, np.flatnonzero(enough))
    return pool_sampler(
        _draw_task,
        kept,
        support=support,
        queries=queries,
        column=column,
    )


def _draw_task(
    arrays: tuple[PyTree, Array, Array, Array, Array],
    key: Key,
    *,
    support: tuple[int, int],
    queries: int,
    column: int,
    largest: int,
) -> Task:
    inputs, rows, targets, starts, counts = arrays
    start, count, size, order_key = draw_pool(starts, counts, key, support)
    high = support[1]
    within = jnp.arange(largest)
    of_film = rows[jnp.minimum(start + within, rows.shape[0] - 1)]
    valid_N, new_N = within < count, inputs[of_film, column] > 0.5
    uniform_N = jax.random.uniform(order_key, (largest,))
    places_N = jnp.argsort(jnp.where(valid_N, uniform_N + new_N, jnp.inf))
    known = (valid_N & ~new_N).sum()
    size = jnp.minimum(size, known)
    used, asked = jnp.arange(high), known + jnp.arange(queries)

    batch = functools.partial(batch_of, rows, targets, start)
    first = batch(places_N[jnp.minimum(used, largest - 1)], used < size)
    query = batch(places_N[jnp.minimum(asked, largest - 1)], asked < count)
    return with_inputs(inputs, Task(first, query))


def _whole(
    pools: Pools,
    *,
    support: int,
    draws: int,
    seed: int,
    most: int | None = None,
    column: int,
    **_: Any,
) -> WholePools:
    """Enumerates pools: draws of known examples as support, all new ones as query."""
    known, new = _known(pools, column)
    chosen = np.flatnonzero((known >= support) & (new > 0))[:most]
    flags = np.asarray(pools.inputs)[pools.rows, column] > 0.5

    def drawn(pool: int) -> np.ndarray:
        places, rng = pools.places(pool), generator_of(pools.names[pool], seed)
        own, asked = places[~flags[places]], places[flags[places]]
        firsts = [rng.permutation(own)[:support] for _ in range(draws)]
        return np.stack([np.concatenate([first, asked]) for first in firsts])

    chosen = chosen[np.argsort(new[chosen], kind="stable")]
    places = [drawn(pool) for pool in chosen.tolist()]
    streams = in_streams(pools, chosen, places, np.full(len(pools.counts), support), 4)
    return WholePools(streams, chosen, places, support)
