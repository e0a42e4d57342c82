"""Tables that a prior draws: random structural models with columns of every kind."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.samplers import Sampler, sampler

_NODES = 32  # of a layer
_INPUTS = 16  # in use, at most
_LAYERS = 3
_ACTIVATIONS = (  # the first three are as frequent as all others together
    lambda x: x,
    jnp.tanh,
    jax.nn.relu,
    jnp.abs,
    jnp.sin,
    lambda x: jnp.exp(-(x**2)),
    lambda x: jnp.where(x > 0, 1.0, -1.0),
    jnp.square,
)
_DEPTHS = (0.5, 0.3, 0.2)  # of the class
_CLASSES = (0.4, 0.2, 0.25, 0.15)  # of one node, the largest of several, regions, a tree
_CENTRES = 24  # of regions, at most
_DEPTH = 4  # of a tree
_FREQUENCIES = (1 / 6,) * 3 + (1 / 10,) * 5


def synthetic_tables(
    *, support: tuple[int, int] = (8, 128), queries: int = 32, columns: int = 16, classes: int = 10
) -> Sampler:
    """A sampler of tables for classification: `sample(key) -> Task`, each from another model.

    A table is drawn as follows.

    - A network of one to three layers with sparse random weights, random activations and noise is
      a structural model; its 2 to 16 inputs are normal, uniform or in clusters. In half of the
      tables the columns are its inputs first, else any of its nodes.
    - The class is a node of one layer, cut at random quantiles; or the largest of several nodes;
      or that of the nearest of 2 to 24 rows in the space of a few nodes; or that of a tree's leaf.
      There are 2 classes in half of the tables, else up to `classes`. Their frequencies differ,
      their numbers are in random order, and some labels are replaced.
    - Columns are warped or become categories. Some have nothing to do with the class, and some
      values are missing (NaN).
    - In half of the tables the last columns are NaN throughout, so that there are fewer columns.

    Args:
      support: smallest and largest number of support rows; it is log-uniform.
      queries: number of query rows. The mask leaves out those whose class no support row has.
      columns: largest number of columns; the smallest is 2.
      classes: largest number of classes.

    Returns:
      a sampler of tasks of `Batch(inputs [rows, columns], targets int32 [rows], mask)`.

    Raises:
      ValueError: a number is below its bound.

    Source: after Hollmann et al. 2023, "TabPFN", section 4 (structural causal models and networks
    as a prior); the distributions are our own.

    >>> task = synthetic_tables(support=(4, 12), queries=5, columns=3)(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.shape
    ((12, 3), (5,))
    """
    low, high = support
    most = _NODES * (1 + _LAYERS) // 2
    if not 2 <= low <= high or queries < 1 or not 2 <= columns <= most or classes < 2:
        raise ValueError(
            f"synthetic_tables: {low} to {high} support rows, {queries} queries, {columns} "
            f"columns and {classes} classes; give at least 2 support rows, the smaller number "
            f"first, at least 1 query, 2 to {most} columns, at least 2 classes."
        )
    return sampler(_draw, support=support, queries=queries, columns=columns, classes=classes)


def _draw(key: Key, *, support: tuple[int, int], queries: int, columns: int, classes: int) -> Task:
    low, high = support
    size_key, model_key, class_key, column_key = jax.random.split(key, 4)
    size = jnp.exp(jax.random.uniform(size_key, (), minval=jnp.log(low), maxval=jnp.log(high + 1)))
    size = jnp.clip(size.astype(jnp.int32), low, high)
    model = _draw_model(model_key, high + queries)
    targets = _classes(class_key, model, classes)
    inputs = _columns(column_key, model, columns)

    shown = jnp.arange(high) < size
    counts = jnp.zeros(classes, jnp.int32).at[targets[:high]].add(shown.astype(jnp.int32))
    asked = counts[targets[high:]] > 0
    return Task(
        Batch(inputs[:high], targets[:high], shown), Batch(inputs[high:], targets[high:], asked)
    )


class _Model(NamedTuple):
    """The nodes of a structural model `[rows, n]`: its inputs, others, and those of the class."""

    inputs: Array
    others: Array
    last: Array
    number: Array  # of inputs in use, which are the first


def _draw_model(key: Key, rows: int) -> _Model:
    input_key, number_key, depth_key, *keys = jax.random.split(key, 3 + _LAYERS)
    spread = jax.random.uniform(number_key, (), minval=jnp.log(2.0), maxval=jnp.log(_INPUTS + 1.0))
    number = jnp.exp(spread).astype(jnp.int32)
    used_N = jnp.arange(_NODES) < number
    nodes = jnp.where(used_N[None], _inputs(input_key, rows), 0)
    layers = [nodes]
    for own in keys:
        nodes = _layer(own, nodes, used_N)
        used_N = jnp.ones(_NODES, bool)
        layers.append(nodes)
    half = _NODES // 2  # of a layer: the others may be columns
    depth = jax.random.choice(depth_key, jnp.arange(1, 1 + _LAYERS), p=jnp.array(_DEPTHS))
    last = jnp.stack(layers)[depth, :, :half]
    others = jnp.concatenate([own[:, half:] for own in layers[1:]], axis=1)
    return _Model(layers[0], others, last, number)


def _inputs(key: Key, rows: int) -> Array:
    """Independent columns, normal or uniform, or clusters of rows."""
    keys = jax.random.split(key, 6)
    shape = (rows, _NODES)
    normal = jax.random.normal(keys[0], shape)
    uniform = jax.random.uniform(keys[1], shape, minval=-1.7, maxval=1.7)
    clusters = 1 + jax.random.randint(keys[2], (), 1, 8)
    cluster_R = jax.random.randint(keys[5], (rows,), 0, clusters)
    centres = jax.random.normal(keys[3], (8, _NODES))
    kind = jax.random.randint(keys[4], (), 0, 3)
    return jnp.select([kind == 0, kind == 1], [normal, uniform], centres[cluster_R] + 0.4 * normal)


def _layer(key: Key, nodes_RN: Array, used_N: Array) -> Array:
    keys = jax.random.split(key, 7)
    count = nodes_RN.shape[1]
    sparsity = jax.random.uniform(keys[0], (), minval=0.05, maxval=0.4)
    kept = jax.random.bernoulli(keys[1], sparsity, (count, count))
    # Every node has a parent that is in use.
    parent_N = jax.random.categorical(keys[6], jnp.where(used_N, 0, -jnp.inf), shape=(count,))
    kept = used_N[:, None] & (kept | (jnp.arange(count)[:, None] == parent_N[None]))
    weights = jnp.where(kept, jax.random.normal(keys[2], (count, count)), 0)
    weights = weights / jnp.linalg.norm(weights, axis=0, keepdims=True)
    gain = jnp.exp(jax.random.uniform(keys[3], (1, count), minval=-0.7, maxval=0.7))
    values = gain * (nodes_RN @ weights) + 0.5 * jax.random.normal(keys[4], (1, count))
    chosen = jax.random.choice(keys[5], len(_ACTIVATIONS), (count,), p=jnp.array(_FREQUENCIES))
    each = jnp.stack([activation(values) for activation in _ACTIVATIONS])
    values = _standard(jnp.take_along_axis(each, chosen[None, None], axis=0)[0])
    noise_key, scale_key = jax.random.split(jax.random.fold_in(key, 7))
    scale = jnp.exp(jax.random.uniform(scale_key, (), minval=-6.0, maxval=-1.0))
    return values + scale * jax.random.normal(noise_key, values.shape)


def _standard(values_RN: Array) -> Array:
    centred = values_RN - values_RN.mean(axis=0, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis=0, keepdims=True) + 1e-6)


def _classes(key: Key, model: _Model, classes: int) -> Array:
    number_key, wrong_key, order_key, share_key, kind_key, own_key = jax.random.split(key, 6)
    several = jax.random.randint(number_key, (), 2, classes + 1)
    number = jnp.where(jax.random.bernoulli(jax.random.fold_in(number_key, 1)), 2, several)
    used_W = jnp.arange(classes) < number
    even_key, share_key = jax.random.split(share_key)
    evenness = jnp.exp(jax.random.uniform(even_key, (), minval=-0.7, maxval=2.3))
    shares_W = jax.random.gamma(share_key, evenness, (classes,)) + 1e-3
    shares_W = jnp.where(used_W, shares_W, 0) / jnp.where(used_W, shares_W, 0).sum()
    # Points of a few nodes: inputs, or those that the class is computed of.
    space_key, scale_key, own_key = jax.random.split(own_key, 3)
    last_RN = model.last
    few = last_RN.shape[1]
    points_RN = jnp.where(jax.random.bernoulli(space_key), model.inputs[:, :few], last_RN)
    found = [
        _cut(last_RN[:, 0], shares_W),
        _largest(own_key, last_RN, used_W),
        _regions(own_key, _few(scale_key, points_RN), shares_W, number),
        _tree(own_key, _few(scale_key, points_RN), shares_W),
    ]
    kind = jax.random.choice(kind_key, len(found), p=jnp.array(_CLASSES))
    found_R = jnp.stack(found)[kind]
    # Some labels are wrong.
    rows = found_R.shape[0]
    rate_key, place_key, wrong_key = jax.random.split(wrong_key, 3)
    rate = jnp.maximum(jax.random.uniform(rate_key, (), minval=-0.3, maxval=0.15), 0)
    drawn_R = jax.random.randint(wrong_key, (rows,), 0, number)
    wrong_R = jax.random.uniform(place_key, (rows,)) < rate
    found_R = jnp.where(wrong_R, drawn_R, jnp.minimum(found_R, number - 1))
    # The numbers of the classes have no order. Those in use come first.
    order = jax.random.permutation(order_key, classes)
    order = order[jnp.argsort(~used_W[order], stable=True)]
    return order[found_R].astype(jnp.int32)


def _cut(node_R: Array, shares_W: Array) -> Array:
    """One node, cut at the quantiles of the shares."""
    ranks_R = jnp.argsort(jnp.argsort(node_R)) / len(node_R)
    return (ranks_R[:, None] >= jnp.cumsum(shares_W)[None]).sum(axis=1)


def _largest(key: Key, nodes_RN: Array, used_W: Array) -> Array:
    """The largest of several nodes."""
    places_W = jnp.arange(len(used_W)) % nodes_RN.shape[1]
    bias_W = 0.5 * jax.random.normal(key, (1, len(used_W)))
    return jnp.where(used_W[None], nodes_RN[:, places_W] + bias_W, -jnp.inf).argmax(axis=1)


def _few(key: Key, nodes_RN: Array) -> Array:
    """The nodes, most of them times 0 and the others on scales of their own."""
    share_key, kept_key, scale_key = jax.random.split(key, 3)
    count = nodes_RN.shape[1]
    share = jax.random.uniform(share_key, (), minval=0.05, maxval=0.5)
    kept_N = jax.random.bernoulli(kept_key, share, (count,)).at[0].set(True)
    scale_N = jnp.exp(0.5 * jax.random.normal(scale_key, (count,)))
    return nodes_RN * jnp.where(kept_N, scale_N, 0)[None]


def _regions(key: Key, points_RN: Array, shares_W: Array, number: Array) -> Array:
    """The class of the nearest of some centres, which are rows; every class has one."""
    count_key, class_key = jax.random.split(key)
    most = min(_CENTRES, len(points_RN))
    place_C = jnp.arange(most)
    count = jnp.maximum(jax.random.randint(count_key, (), 2, most + 1), number)
    class_C = jax.random.choice(class_key, len(shares_W), (most,), p=shares_W)
    class_C = jnp.where(place_C < number, place_C, class_C)
    gaps_RCN = points_RN[:, None] - points_RN[None, :most]
    distance_RC = jnp.where(place_C[None] < count, (gaps_RCN**2).sum(axis=-1), jnp.inf)
    return class_C[distance_RC.argmin(axis=1)]


def _tree(key: Key, points_RN: Array, shares_W: Array) -> Array:
    """The class of a leaf of a tree that asks the same question in all nodes of a level."""
    node_key, row_key, leaf_key = jax.random.split(key, 3)
    used_N = (points_RN != 0).any(axis=0)
    node_D = jax.random.categorical(node_key, jnp.where(used_N, 0, -jnp.inf), shape=(_DEPTH,))
    threshold_D = points_RN[jax.random.randint(row_key, (_DEPTH,), 0, len(points_RN)), node_D]
    answers_RD = (points_RN[:, node_D] > threshold_D[None]).astype(jnp.int32)
    leaf_R = answers_RD @ (2 ** jnp.arange(_DEPTH))
    return jax.random.choice(leaf_key, len(shares_W), (2**_DEPTH,), p=shares_W)[leaf_R]


def _columns(key: Key, model: _Model, columns: int) -> Array:
    keys = jax.random.split(key, 12)
    rows = model.inputs.shape[0]
    nodes_RN = jnp.concatenate([model.inputs, model.others], axis=1)
    rank_N = jax.random.uniform(keys[0], (nodes_RN.shape[1],))
    only_inputs = jax.random.bernoulli(keys[1])
    node_N, inputs = jnp.arange(nodes_RN.shape[1]), model.inputs.shape[1]
    # Inputs that are not in use come last.
    later_N = jnp.where((node_N >= model.number) & (node_N < inputs), 2.0, 0.0)
    later_N += jnp.where(only_inputs & (node_N >= inputs), 1.0, 0.0)
    places = jnp.argsort(rank_N + later_N)[:columns]
    values_RC = nodes_RN[:, places]
    # Columns of noise: the same values in another order.
    share = jnp.maximum(jax.random.uniform(keys[2], (), minval=-0.5, maxval=0.4), 0)
    noise_C = jax.random.bernoulli(keys[3], share, (columns,))
    shuffled_RC = jax.random.permutation(keys[4], values_RC, independent=True)
    values_RC = jnp.where(noise_C[None], shuffled_RC, values_RC)
    # Warps.
    kind_C = jax.random.randint(keys[5], (columns,), 0, 6)
    warped = [jnp.exp(values_RC), jnp.sign(values_RC) * values_RC**2, jnp.cbrt(values_RC)]
    values_RC = jnp.select([(kind_C == own)[None] for own in range(3)], warped, values_RC)
    # Categories, whose numbers have no order.
    share = jnp.maximum(jax.random.uniform(keys[6], (), minval=-0.5, maxval=0.8), 0)
    category_C = jax.random.bernoulli(keys[7], share, (columns,))
    levels_C = jax.random.randint(keys[8], (columns,), 2, 9)
    ranks_RC = jnp.argsort(jnp.argsort(values_RC, axis=0), axis=0) / rows
    bent_RC = ranks_RC ** jnp.exp(jax.random.uniform(keys[9], (1, columns), minval=-1, maxval=1))
    codes = jax.random.uniform(keys[8], (9, columns))
    level_RC = (bent_RC * levels_C[None]).astype(jnp.int32)
    values_RC = jnp.where(category_C[None], jnp.take_along_axis(codes, level_RC, axis=0), values_RC)
    # Missing values, and missing columns.
    rate_key, column_key, count_key, full_key = jax.random.split(keys[10], 4)
    rate = jnp.maximum(jax.random.uniform(rate_key, (), minval=-0.6, maxval=0.3), 0)
    some_C = jax.random.bernoulli(column_key, 0.5, (columns,))
    missing_RC = jax.random.bernoulli(keys[11], rate, (rows, columns)) & some_C[None]
    count = jax.random.randint(count_key, (), 2, columns + 1)
    count = jnp.where(jax.random.bernoulli(full_key), columns, count)
    absent_C = jnp.arange(columns) >= count
    return jnp.where(missing_RC | absent_C[None], jnp.nan, values_RC)
