"""Episodes of sentences: distinct examples of distinct classes, padding, equal draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.text import Ragged, ragged, sentence_episodes

STARTS, COUNTS = np.array([0, 4, 9, 12]), np.array([4, 5, 3, 6])
ROWS = np.arange(18.0)[:, None]  # the feature of a sentence is its number


def class_of(rows):
    return np.searchsorted(STARTS, rows, side="right") - 1


def test_a_task_has_distinct_sentences_of_distinct_classes():
    sample = sentence_episodes(ROWS, STARTS, COUNTS, ways=3, shots=1, queries=2)
    seen = set()
    for seed in range(50):
        task = jax.jit(sample)(jax.random.key(seed))
        rows = np.concatenate([task.support.inputs, task.query.inputs])[:, 0].astype(int)
        assert len({*rows.tolist()}) == 9
        classes = class_of(rows)
        assert len({*classes[:3].tolist()}) == 3
        np.testing.assert_array_equal(classes[3:], np.repeat(classes[:3], 2))
        assert task.query.targets.tolist() == [0, 0, 1, 1, 2, 2]
        seen |= {*rows.tolist()}
    assert seen == {*range(18)}  # every sentence can be drawn


def test_the_draw_does_not_depend_on_the_features():
    lengths = np.array([row % 3 + 1 for row in range(18)])
    mask = np.arange(4)[None] < lengths[:, None]
    values = np.where(mask, np.arange(18)[:, None] + 1, 0)
    plain = sentence_episodes(ROWS, STARTS, COUNTS, ways=2, shots=1, queries=1)
    tokens = sentence_episodes(
        ragged(values, mask), STARTS, COUNTS, ways=2, shots=1, queries=1, length=4
    )
    for seed in range(10):
        one, other = (own(jax.random.key(seed)) for own in (plain, tokens))
        rows = one.support.inputs[:, 0].astype(int)
        np.testing.assert_array_equal(other.support.inputs.values, values[rows])
        np.testing.assert_array_equal(other.support.inputs.mask, mask[rows])


def test_states_are_float32_and_zero_where_padded():
    states = Ragged(np.ones((5, 2), np.float16), np.array([0, 2, 3, 4]), np.array([2, 1, 1, 1]))
    sample = sentence_episodes(
        states, np.array([0, 2]), np.array([2, 2]), ways=2, shots=1, queries=1, length=3
    )
    inputs = sample(jax.random.key(0)).support.inputs
    assert inputs.values.dtype == jnp.float32
    np.testing.assert_array_equal(inputs.values[..., 0] == 1, inputs.mask)


def test_longer_sentences_are_cut():
    states = Ragged(np.arange(8), np.array([0, 2, 4, 6]), np.array([2, 2, 2, 2]))
    sample = sentence_episodes(
        states, np.array([0, 2]), np.array([2, 2]), ways=2, shots=1, queries=1, length=1
    )
    inputs = sample(jax.random.key(0)).query.inputs
    assert inputs.values.shape == (2, 1) and bool(inputs.mask.all())
    assert {*(inputs.values % 2).ravel().tolist()} == {0}


def test_shuffled_labels_keep_their_number():
    options = {"ways": 3, "shots": 1, "queries": 2}
    sample = sentence_episodes(ROWS, STARTS, COUNTS, **options, shuffle_labels=True)
    orders = {tuple(sample(jax.random.key(seed)).query.targets.tolist()) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(order) == [0, 0, 1, 1, 2, 2] for order in orders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 5}, "5-way tasks require 5 classes, but there are 4"),
        ({"ways": 1}, "choose 2 ways or more"),
        ({"shots": 0}, "shots is 0"),
        ({"queries": 3}, "3 shots and 3 queries|1 shots and 3 queries require 4 sentences"),
    ],
)
def test_impossible_tasks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sentence_episodes(ROWS, STARTS, COUNTS, **{"ways": 2, "shots": 1, "queries": 1} | change)
