"""Sequence tasks, read back step by step."""

import jax
import numpy as np
import pytest

from jaxmeta.data import sequences

SEEDS = range(12)


DRAW = jax.jit(lambda sample, key: sample(key))


def drawn(sample, seed):
    task = DRAW(sample, jax.random.key(seed))
    assert task.support == ()
    inputs, targets, mask = jax.device_get(task.query)
    assert not targets[~mask].any()
    return inputs, targets, mask


def test_copy():
    sample, lengths = sequences.copy(bits=3, lengths=(2, 5)), set()
    for seed in SEEDS:
        inputs, targets, mask = drawn(sample, seed)
        assert inputs.shape == (12, 5)
        start, end = inputs[:, 3].argmax(), inputs[:, 4].argmax()
        length = end - start - 1
        assert (start, inputs[:, 3].sum(), inputs[:, 4].sum()) == (0, 1, 1)
        assert np.flatnonzero(mask).tolist() == list(range(end + 1, end + 1 + length))
        np.testing.assert_array_equal(targets[mask], inputs[1:end, :3])
        assert not inputs[end + 1 :].any()
        lengths.add(int(length))
    assert lengths == {2, 3, 4, 5}


def test_repeat_copy():
    sample, found = sequences.repeat_copy(bits=3, lengths=(1, 3), repeats=(1, 4)), set()
    numbers = {}
    for seed in range(80):
        inputs, targets, mask = drawn(sample, seed)
        assert inputs.shape == (18, 5)
        places = np.flatnonzero(mask)
        first, end = places[0], places[-1]
        length = first - 2
        repeats = (end - first) // length
        assert (inputs[0, 3], inputs[:, 3].sum()) == (1, 1)
        np.testing.assert_array_equal(
            targets[first:end, :3], np.tile(inputs[1 : 1 + length, :3], (repeats, 1))
        )
        assert targets[:, 3].tolist() == (np.arange(18) == end).tolist()
        assert not inputs[first:].any()
        numbers[int(repeats)] = float(inputs[1 + length, 4])
        found.add((int(length), int(repeats)))
    assert found == {(length, repeats) for length in (1, 2, 3) for repeats in (1, 2, 3, 4)}
    spacing = np.diff([numbers[count] for count in (1, 2, 3, 4)])
    np.testing.assert_allclose(spacing, spacing[0], rtol=1e-5)
    np.testing.assert_allclose(sum(numbers.values()), 0, atol=1e-6)


def test_a_number_of_repeats_reads_the_same_in_training_and_at_test():
    training = sequences.repeat_copy(bits=2, lengths=(1, 1), repeats=(1, 4))
    fixed = sequences.repeat_copy(bits=2, lengths=(1, 1), repeats=(4, 4), scaled_to=(1, 4))
    wanted = {
        float(inputs[2, 3])
        for inputs, targets, mask in (drawn(training, seed) for seed in range(40))
        if mask.sum() == 5
    }
    assert wanted == {float(drawn(fixed, 0)[0][2, 3])}


def test_associative_recall():
    sample, asked = sequences.associative_recall(bits=5, lengths=(2, 4)), set()
    for seed in range(30):
        inputs, targets, mask = drawn(sample, seed)
        assert inputs.shape == (24, 7)
        separators, asking = np.flatnonzero(inputs[:, 5]), np.flatnonzero(inputs[:, 6])
        items = [inputs[place + 1 : place + 4, :5] for place in separators]
        assert separators.tolist() == [4 * index for index in range(len(items))]
        assert asking.tolist() == [4 * len(items), 4 * len(items) + 4]
        query = inputs[asking[0] + 1 : asking[1], :5]
        assert np.flatnonzero(mask).tolist() == [asking[1] + step for step in (1, 2, 3)]
        places = [index for index, item in enumerate(items[:-1]) if (item == query).all()]
        assert any((items[place + 1] == targets[mask]).all() for place in places)
        assert not inputs[asking[1] + 1 :].any()
        asked.add((len(items), places[0]))
    assert {count for count, _ in asked} == {2, 3, 4}
    assert max(place for _, place in asked) == 2


def test_priority_sort():
    for seed in SEEDS:
        inputs, targets, mask = drawn(sequences.priority_sort(bits=4, count=6, kept=4), seed)
        vectors, priorities = inputs[:6, :4], inputs[:6, 4]
        assert (np.abs(priorities) <= 1).all()
        assert inputs[:, 5].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
        order = np.argsort(-priorities)[:4]
        np.testing.assert_array_equal(targets[mask], vectors[order])
        assert np.flatnonzero(mask).tolist() == [7, 8, 9, 10]


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: sequences.copy(bits=0), "bits 0; give at least 1"),
        (lambda: sequences.copy(lengths=(0, 3)), "give at least 1"),
        (lambda: sequences.copy(lengths=(4, 3)), "lengths from 4 to 3; give the smaller first"),
        (lambda: sequences.repeat_copy(repeats=(0, 1)), "give at least 1"),
        (lambda: sequences.associative_recall(lengths=(1, 3)), "give at least 2, so"),
        (lambda: sequences.priority_sort(count=3, kept=4), "kept is 4 and count is 3"),
    ],
)
def test_errors_come_early(build, told):
    with pytest.raises(ValueError, match=told):
        build()
