"""Few-shot episodes from sentences sorted by class, drawn on the device by a function of a key."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, PyTree, Task
from jaxmeta.data._episodes import draw_distinct
from jaxmeta.data.samplers import Sampler, sampler


class Ragged(NamedTuple):
    """Sequences of different lengths, one after another and without padding.

    Attributes:
      values: `[total, ...]`, the values of all sequences.
      starts: int32 `[sequences]`, the index of the first value of each sequence.
      lengths: int32 `[sequences]`.
    """

    values: Any
    starts: Any
    lengths: Any


class Padded(NamedTuple):
    """Sequences padded to a common length, as inputs of a network.

    Attributes:
      values: `[examples, length, ...]`; 0 where padded.
      mask: bool `[examples, length]`, True where valid.
    """

    values: Any
    mask: Any


def ragged(values: np.ndarray, mask: np.ndarray) -> Ragged:
    """The valid values of padded sequences; the padding follows the values.

    >>> found = ragged(np.array([[3, 4, 0], [5, 0, 0]]), np.array([[1, 1, 0], [1, 0, 0]], bool))
    >>> found.values.tolist(), found.starts.tolist(), found.lengths.tolist()
    ([3, 4, 5], [0, 2], [2, 1])
    """
    lengths = mask.sum(axis=1).astype(np.int32)
    return Ragged(values[mask], (np.cumsum(lengths) - lengths).astype(np.int32), lengths)


def padded(sequences: Ragged, rows: Array, length: int) -> Padded:
    """The sequences at `rows`, padded with zeros to `length` or cut to it.

    >>> sequences = Ragged(jnp.arange(5), jnp.array([0, 3]), jnp.array([3, 2]))
    >>> found = padded(sequences, jnp.array([1]), 3)
    >>> found.values.tolist(), found.mask.tolist()
    ([[3, 4, 0]], [[True, True, False]])
    """
    place = jnp.arange(length, dtype=jnp.int32)
    mask = place[None] < sequences.lengths[rows][:, None]
    last = len(sequences.values) - 1
    values = sequences.values[jnp.minimum(sequences.starts[rows][:, None] + place[None], last)]
    wide = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    values = jnp.where(wide, values, 0)
    if jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.float32)
    return Padded(values, mask)


def sentence_episodes(
    features: Any,
    starts: np.ndarray,
    counts: np.ndarray,
    *,
    ways: int,
    shots: int,
    queries: int,
    length: int = 0,
    shuffle_labels: bool = False,
) -> Sampler:
    """A sampler of N-way K-shot tasks of sentences: `sample(key) -> Task`, for `jit` and `vmap`.

    A task has `ways` classes, drawn uniformly without replacement, and `shots + queries` distinct
    sentences of each; the label of a class is its position in the draw. Examples are sorted by
    class. The same key draws the same sentences, whatever their features are.

    Args:
      features: of all sentences: an array `[sentences, ...]`, or `Ragged` token ids or states.
      starts, counts: int `[classes]`, the first sentence of each class and their number.
      ways, shots, queries: classes per task, support and query examples per class.
      length: tokens per sentence of ragged features.
      shuffle_labels: permute the targets of support and query; a control experiment.

    Returns:
      a sampler of tasks with the inputs float32 `[examples, ...]`, or `Padded` for ragged features.

    Raises:
      ValueError: more ways than classes, fewer than two; more examples than the smallest class has.

    >>> features = np.arange(12.0).reshape(12, 1)
    >>> sample = sentence_episodes(
    ...     features, np.array([0, 6]), np.array([6, 6]), ways=2, shots=1, queries=3)
    >>> task = sample(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.tolist()
    ((2, 1), [0, 0, 0, 1, 1, 1])
    """
    if not 2 <= ways <= len(counts):
        raise ValueError(
            f"{ways}-way tasks require {max(ways, 2)} classes, but there are {len(counts)}; choose "
            "2 ways or more, and no more than classes"
        )
    for name, value in (("shots", shots), ("queries", queries)):
        if value < 1:
            raise ValueError(f"{name} is {value}, but every task needs at least 1 per class")
    smallest = int(np.min(counts))
    if shots + queries > smallest:
        raise ValueError(
            f"{shots} shots and {queries} queries require {shots + queries} sentences of every "
            f"class, but the smallest has {smallest}; lower the shots or the queries, or leave "
            "small classes out"
        )
    return sampler(
        _draw_task,
        jax.tree.map(jnp.asarray, features),
        jnp.asarray(starts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
        ways=ways,
        shots=shots,
        queries=queries,
        length=length,
        shuffle_labels=shuffle_labels,
    )


def _draw_task(
    features: PyTree,
    starts: Array,
    counts: Array,
    key: Key,
    *,
    task_key: Key | None = None,
    ways: int,
    shots: int,
    queries: int,
    length: int,
    shuffle_labels: bool,
) -> Task:
    class_key, row_key, support_key, query_key = jax.random.split(key, 4)
    class_key = class_key if task_key is None else task_key  # see `numbered`
    classes_W = draw_distinct(class_key, jnp.asarray(starts.size, jnp.int32), ways)
    draw_rows = functools.partial(draw_distinct, size=shots + queries)
    rows_WE = jax.vmap(draw_rows)(jax.random.split(row_key, ways), counts[classes_W])
    rows_WE = rows_WE + starts[classes_W][:, None]

    def batch(rows_WE: Array, shuffle_key: Key) -> Batch:
        targets = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), rows_WE.shape[1])
        if shuffle_labels:
            targets = jax.random.permutation(shuffle_key, targets)
        return Batch(taken(features, rows_WE.reshape(-1), length), targets)

    return Task(batch(rows_WE[:, :shots], support_key), batch(rows_WE[:, shots:], query_key))


def taken(features: PyTree, rows: Array, length: int) -> PyTree:
    """The features of the sentences at `rows`, as inputs of a network.

    >>> taken(jnp.array([[1.0], [2.0]]), jnp.array([1]), 0).tolist()
    [[2.0]]
    """
    if isinstance(features, Ragged):
        return padded(features, rows, length)
    return features[rows]
