"""Few-shot sentiment: fixed labels, no validation review in training, the published test tasks."""

import jax
import numpy as np
import pytest

from jaxmeta.data.text.arsc import Arsc, Reviews, ReviewTask
from jaxmeta.data.text.episodes import Ragged
from jaxmeta.data.text.reviews import (
    ReviewPools,
    load_sentiment,
    review_episodes,
    review_stream,
    sentiment_tasks,
)


def given(positive="", negative=""):
    """`given("a b", "c")`: two positive reviews and a negative one."""
    texts = (*positive.split(), *negative.split())
    return Reviews(texts, (1,) * len(positive.split()) + (0,) * len(negative.split()))


NOTHING = given("unread")
GIVEN = Arsc(
    train=(
        ReviewTask("books.t2", given("a b c a", "d"), given("e b", "f d g"), NOTHING),
        ReviewTask("books.t4", given("h", "i j k a"), given("l", "m e"), NOTHING),
    ),
    test=(
        ReviewTask("dvd.t2", given("n o", "p q"), NOTHING, given("r s", "t")),
        ReviewTask("dvd.t4", given("u v", "w x"), NOTHING, given("a", "")),
    ),
)


def texts_of(found, pools):
    """The texts of each task and label."""
    counts = pools.counts
    return [
        [
            [found.texts[row] for row in pools.rows[start : start + count]]
            for start, count in zip(pools.starts[task], counts[task])
        ]
        for task in range(len(counts))
    ]


def test_validation_has_no_training_review():
    found = sentiment_tasks(GIVEN)
    assert texts_of(found, found.train) == [[["d"], ["a", "b", "c"]], [["i", "j", "k", "a"], ["h"]]]
    # `b` and `d` are training reviews; a review of two validation tasks stays in both.
    assert texts_of(found, found.validation) == [[["f", "g"], ["e"]], [["m", "e"], ["l"]]]
    assert [found.texts[row] for row in found.validation.rows_of(1)] == ["m", "e", "l"]
    assert len(set(found.texts)) == len(found.texts) and "unread" not in found.texts
    assert found.protocol["test_reviews_in_training"] == 1


def test_the_test_tasks_are_the_published_ones():
    found = sentiment_tasks(GIVEN)
    first, second = found.tests
    assert (first.name, second.name) == ("dvd.t2", "dvd.t4")
    pairs = {(found.texts[row], label) for row, label in zip(first.support, first.support_labels)}
    assert pairs == {("n", 1), ("o", 1), ("p", 0), ("q", 0)}
    assert [found.texts[row] for row in first.query] == ["r", "s", "t"]
    assert first.query_labels.tolist() == [1, 1, 0]


def test_the_rarer_label_is_kept():
    task = ReviewTask("books.t2", given(" ".join("abcdefgh"), "x y z"), given("w"), NOTHING)
    for most, counts in ((11, [3, 8]), (10, [3, 7]), (8, [3, 5]), (6, [3, 3]), (4, [2, 2])):
        found = sentiment_tasks(Arsc((task,), GIVEN.test), reviews=most)
        assert found.train.counts.tolist() == [counts]
    # The draw depends on the task's name alone.
    again = sentiment_tasks(Arsc((task,), GIVEN.test), reviews=4)
    assert again.texts == found.texts
    assert again.protocol["sentences_sha256"] == found.protocol["sentences_sha256"]
    other = sentiment_tasks(Arsc((task,), GIVEN.test), reviews=6)
    assert other.protocol["sentences_sha256"] != found.protocol["sentences_sha256"]


def test_files(reviews):
    found = load_sentiment(reviews, missing=["books"])
    assert found.train.names == ("music.t2", "music.t4", "music.t5") == found.validation.names
    assert len(found.tests) == 6 and found.protocol["missing"] == ["books"]


# --- episodes -----------------------------------------------------------------------------

# Three tasks: 4 and 5 reviews, 3 and 4, 1 and 8, in another order than their features.
COUNTS = np.array([[4, 5], [3, 4], [1, 8]])
STARTS = (np.cumsum(COUNTS) - COUNTS.reshape(-1)).reshape(3, 2)
ROWS = np.arange(25)[::-1].copy()
POOLS = ReviewPools(("one", "two", "three"), ROWS, STARTS, COUNTS)


def test_a_task_has_reviews_of_one_pool_and_fixed_labels():
    draw = jax.jit(review_episodes(np.arange(25.0)[:, None], POOLS, shots=1, queries=2))
    of_row = {
        int(row): (task, label)
        for task in range(3)
        for label in range(2)
        for row in ROWS[STARTS[task, label] :][: COUNTS[task, label]]
    }
    drawn, seen = [], set()
    for seed in range(60):
        support, query = draw(jax.random.key(seed))
        assert support.targets.tolist() == [0, 1] and query.targets.tolist() == [0, 0, 1, 1]
        rows = [int(row) for batch in (support, query) for row in batch.inputs[:, 0]]
        tasks, labels = zip(*(of_row[row] for row in rows))
        assert labels == (0, 1, 0, 0, 1, 1)
        assert len(set(tasks)) == 1 and len(set(rows)) == 6
        drawn.append(tasks[0])
        seen |= set(rows)
    # The third task has too few negative reviews; the others are drawn equally often.
    assert set(drawn) == {0, 1} and 15 < sum(drawn) < 45
    assert len(seen) == 16


def test_ragged_features_are_padded():
    lengths = np.arange(25) % 3 + 1
    starts = np.cumsum(lengths) - lengths
    tokens = Ragged(np.repeat(np.arange(25), lengths), starts, lengths)
    task = review_episodes(tokens, POOLS, shots=2, queries=1, length=2)(jax.random.key(0))
    rows = np.asarray(task.support.inputs.values).max(axis=1)
    expected = np.minimum(lengths[rows], 2)
    assert np.asarray(task.support.inputs.mask).sum(axis=1).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1), "0 shots and 1 queries; give at least 1"),
        ((3, 2), "require 5 reviews of each label, but no task has more than 4"),
    ],
)
def test_impossible_sizes(sizes, message):
    shots, queries = sizes
    with pytest.raises(ValueError, match=message):
        review_episodes(np.zeros((25, 1)), POOLS, shots=shots, queries=queries)


def test_queries_are_padded_to_one_size():
    found = sentiment_tasks(GIVEN)
    features = np.arange(float(len(found.texts)))[:, None]
    stream = review_stream(features, found.tests)
    assert len(stream.tasks) == 2
    for index, own in enumerate(found.tests):
        task = stream.prepare(stream.tasks[index])
        count = len(own.query)
        assert np.asarray(task.support.inputs)[:, 0].tolist() == own.support.tolist()
        assert task.support.targets.tolist() == own.support_labels.tolist()
        assert np.asarray(task.query.inputs)[:count, 0].tolist() == own.query.tolist()
        assert task.query.targets[:count].tolist() == own.query_labels.tolist()
        assert task.query.mask.tolist() == [place < count for place in range(3)]
    with pytest.raises(ValueError, match="no tasks"):
        review_stream(features, [])
