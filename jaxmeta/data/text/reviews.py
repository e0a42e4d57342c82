"""Few-shot sentiment: tasks of reviews whose two classes are negative and positive, in this order.

Unlike the classes of `sentence_episodes`, those of a task are not drawn: 0 is negative and 1
positive in every task.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, PyTree, Task
from jaxmeta.data._episodes import draw_distinct
from jaxmeta.data._whole_pools import generator_of
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.stream import TaskStream, enumerated
from jaxmeta.data.text.arsc import Arsc, Reviews, ReviewTask, load_arsc
from jaxmeta.data.text.episodes import taken

SOURCE = "https://github.com/Gorov/DiverseFewShot_Amazon"
LABELS = ("negative", "positive")


class ReviewPools(NamedTuple):
    """The reviews of several tasks, sorted by task and then by label.

    Attributes:
      names: the tasks.
      rows: int32 `[total]`, the index of each review in `Sentiment.texts`.
      starts: int32 `[tasks, 2]`, the place in `rows` of the first review of each task and label.
      counts: int32 `[tasks, 2]`, the number of reviews of each task and label.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    def rows_of(self, task: int) -> np.ndarray:
        """The rows of a task, the negative reviews first."""
        first = self.starts[task, 0]
        return self.rows[first : first + self.counts[task].sum()]

    def with_examples(self, number: int) -> "ReviewPools":
        """The tasks that have at least `number` reviews of each label."""
        (kept,) = np.nonzero(self.counts.min(axis=1) >= number)
        names = tuple(self.names[task] for task in kept.tolist())
        return self._replace(names=names, starts=self.starts[kept], counts=self.counts[kept])


class FixedTask(NamedTuple):
    """A test task with given support and query.

    Attributes:
      name: such as `books.t2`.
      support, query: int32 `[reviews]`, indices in `Sentiment.texts`.
      support_labels, query_labels: int32 `[reviews]`, 0 negative and 1 positive.
    """

    name: str
    support: np.ndarray
    support_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray


class Sentiment(NamedTuple):
    """Tasks of reviews for training, validation and test.

    Attributes:
      texts: all reviews that are used, each once.
      train: the training tasks.
      validation: tasks of the same names, with reviews that no training task has.
      tests: the test tasks, of other kinds of products.
      protocol: the description of the data that is stored with every result.
    """

    texts: tuple[str, ...]
    train: ReviewPools
    validation: ReviewPools
    tests: tuple[FixedTask, ...]
    protocol: dict[str, Any]


def load_sentiment(
    folder: str | Path | None = None, *, missing: Sequence[str] = (), reviews: int | None = None
) -> Sentiment:
    """Loads ARSC, ready for `review_episodes` and `review_stream`.

    The support of a test task is the ten reviews of its file `train`, and its query those of its
    file `test`; its file `dev` is not used. Validation has the reviews of the files `dev` of the
    training tasks that are in no file `train`, since the three tasks of a kind of product share
    some reviews.

    Args:
      folder: see `load_arsc`.
      missing: kinds of products to leave out of training, see `load_arsc`.
      reviews: largest number of reviews of a training or validation task, half of them of the rarer
        label if there are so many; the draw depends on the task's name alone. Defaults to all.

    Raises:
      OSError: a file is missing.
      ValueError: see `load_arsc`.
    """
    return sentiment_tasks(load_arsc(folder, missing=missing), missing=missing, reviews=reviews)


def sentiment_tasks(
    given: Arsc, *, missing: Sequence[str] = (), reviews: int | None = None
) -> Sentiment:
    """The tasks of ARSC with the reviews that are used, see `load_sentiment`.

    >>> both = Reviews(("poor", "great", "fine"), (0, 1, 1))
    >>> one, other = (ReviewTask(name, both, both, both) for name in ("books.t2", "music.t2"))
    >>> found = sentiment_tasks(Arsc((other,), (one,)), reviews=2)
    >>> found.train.counts.tolist(), found.validation.counts.tolist(), len(found.texts)
    ([[1, 1]], [[0, 0]], 3)
    """
    trained = {text for task in given.train for text in task.train.texts}
    train = [(task.name, _chosen(task, task.train, reviews)) for task in given.train]
    unseen = [
        Reviews(*zip(*kept)) if kept else Reviews((), ())
        for kept in (
            [pair for pair in zip(*task.dev) if pair[0] not in trained] for task in given.train
        )
    ]
    validation = [
        (task.name, _chosen(task, own, reviews)) for task, own in zip(given.train, unseen)
    ]
    of_tests = [text for task in given.test for part in (task.train, task.test) for text in part[0]]
    of_pools = [text for _, both in (*train, *validation) for own in both for text in own]
    texts = tuple(dict.fromkeys([*of_pools, *of_tests]))
    numbers = {text: number for number, text in enumerate(texts)}

    def indices(own: Iterable[str]) -> np.ndarray:
        return np.array([numbers[text] for text in own], np.int32)

    def pools(tasks: list[tuple[str, list[list[str]]]]) -> ReviewPools:
        counts = np.array([[len(own) for own in both] for _, both in tasks], np.int32)
        ends = np.cumsum(counts).reshape(counts.shape)
        rows = indices(text for _, both in tasks for own in both for text in own)
        return ReviewPools(
            tuple(name for name, _ in tasks), rows, (ends - counts).astype(np.int32), counts
        )

    def fixed(task: ReviewTask) -> FixedTask:
        # In random order, so that the place of an example doesn't tell its label.
        order = generator_of(task.name, 0).permutation(len(task.train.texts))
        labels = [np.array(part.labels, np.int32) for part in (task.train, task.test)]
        known, asked = indices(task.train.texts), indices(task.test.texts)
        return FixedTask(task.name, known[order], labels[0][order], asked, labels[1])

    found = Sentiment(
        texts, pools(train), pools(validation), tuple(map(fixed, given.test)), protocol={}
    )
    parts = [*found.train, *found.validation, *(leaf for task in found.tests for leaf in task)]
    content = json.dumps([texts, [np.asarray(leaf).tolist() for leaf in parts]])
    return found._replace(
        protocol={
            "missing": list(missing),
            "reviews_per_task": reviews,
            "test_tasks": [task.name for task in given.test],
            "test_support": "the ten published reviews of each task",
            "test_reviews_in_training": len(trained.intersection(of_tests)),
            "source": SOURCE,
            "licence": "none stated",
            "sentences_sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
    )


def _chosen(task: ReviewTask, own: Reviews, most: int | None) -> list[list[str]]:
    """The negative and the positive reviews of a task, each text once, at most `most` together."""
    labels = dict(zip(reversed(own.texts), reversed(own.labels)))  # the first label of a text
    both = [[text for text in dict.fromkeys(own.texts) if labels[text] == kind] for kind in (0, 1)]
    if most is None:
        return both
    rare = min(map(len, both))
    sizes = [min(len(texts), max(most // 2, most - rare)) for texts in both]
    rng = generator_of(task.name, 0)
    return [
        [texts[row] for row in sorted(rng.permutation(len(texts))[:size])]
        for texts, size in zip(both, sizes)
    ]


def review_episodes(
    features: Any, pools: ReviewPools, *, shots: int, queries: int, length: int = 0
) -> Sampler:
    """A sampler of tasks of two fixed classes: `sample(key) -> Task`, for `jit` and `vmap`.

    A task is drawn uniformly, then `shots + queries` distinct reviews of each label. Examples are
    sorted by label, 0 first. The same key draws the same reviews, whatever their features are.

    Args:
      features: of all texts: an array `[texts, ...]`, or `Ragged` token ids or states.
      pools: the tasks; those with fewer than `shots + queries` reviews of a label are left out.
      shots, queries: support and query examples per label.
      length: tokens per review of ragged features.

    Returns:
      a sampler of tasks with the inputs float32 `[examples, ...]`, or `Padded` for ragged features.

    Raises:
      ValueError: no task has so many reviews; shots or queries below one.

    >>> pools = ReviewPools(("books.t2",), np.arange(6), np.array([[0, 3]]), np.array([[3, 3]]))
    >>> sample = review_episodes(np.arange(12.0).reshape(6, 2), pools, shots=1, queries=2)
    >>> task = sample(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.tolist()
    ((2, 2), [0, 0, 1, 1])
    """
    if min(shots, queries) < 1:
        raise ValueError(f"{shots} shots and {queries} queries; give at least 1 of each.")
    kept = pools.with_examples(shots + queries)
    if not kept.names:
        most = int(pools.counts.min(axis=1).max(initial=0))
        raise ValueError(
            f"{shots} shots and {queries} queries require {shots + queries} reviews of each label, "
            f"but no task has more than {most}; lower the shots or the queries."
        )
    return sampler(
        _draw_task,
        jax.tree.map(jnp.asarray, features),
        *(jnp.asarray(array, jnp.int32) for array in (kept.rows, kept.starts, kept.counts)),
        shots=shots,
        queries=queries,
        length=length,
    )


def _draw_task(
    features: PyTree,
    rows: Array,
    starts: Array,
    counts: Array,
    key: Key,
    *,
    shots: int,
    queries: int,
    length: int,
) -> Task:
    task_key, row_key = jax.random.split(key)
    task = jax.random.randint(task_key, (), 0, counts.shape[0], dtype=jnp.int32)
    draw_places = functools.partial(draw_distinct, size=shots + queries)
    places_LE = jax.vmap(draw_places)(jax.random.split(row_key, len(LABELS)), counts[task])
    rows_LE = rows[places_LE + starts[task][:, None]]

    def batch(rows_LE: Array) -> Batch:
        targets = jnp.repeat(jnp.arange(len(LABELS), dtype=jnp.int32), rows_LE.shape[1])
        return Batch(taken(features, rows_LE.reshape(-1), length), targets)

    return Task(batch(rows_LE[:, :shots]), batch(rows_LE[:, shots:]))


def review_stream(features: Any, tasks: Sequence[FixedTask], *, length: int = 0) -> TaskStream:
    """The given tasks in their order, each once; their queries are padded to one size.

    Args:
      features, length: see `review_episodes`.
      tasks: tasks with equally many support examples.

    Raises:
      ValueError: there are no tasks, or their support sets differ in size.

    >>> rows, labels = np.arange(2, dtype=np.int32), np.array([0, 1], np.int32)
    >>> task = FixedTask("books.t2", rows, labels, rows[1:], labels[1:])
    >>> stream = review_stream(np.eye(2), [task, task._replace(query=rows, query_labels=labels)])
    >>> stream.prepare(stream.tasks[0]).query.mask.tolist()
    [True, False]
    """
    size = max((len(task.query) for task in tasks), default=0)

    def one(task: FixedTask) -> Task:
        missing = size - len(task.query)
        asked, labels = (
            np.pad(leaf, (0, missing), mode="edge") for leaf in (task.query, task.query_labels)
        )
        mask: Any = np.arange(size) < len(task.query)
        return Task(Batch(task.support, task.support_labels), Batch(asked, labels, mask))

    with_features = sampler(_with_features, jax.tree.map(jnp.asarray, features), length=length)
    return enumerated([one(task) for task in tasks])._replace(prepare=with_features)


def _with_features(features: PyTree, task: Task, *, length: int) -> Task:
    return Task(*(own._replace(inputs=taken(features, own.inputs, length)) for own in task))
