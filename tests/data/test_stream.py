"""The stream of tasks from the host. Their distribution: see `test_episodes.py`."""

import itertools

import chex
import jax
import numpy as np
import pytest

from jaxmeta.core import Batch, Task
from jaxmeta.data.classes import class_images
from jaxmeta.data.stream import enumerated, iterate, read, task_stream

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), np.uint8)
CLASSES = class_images(PIXELS, np.repeat(np.arange(6), 10), tuple("abcdef"))


def stream(seed=0, **options):
    return task_stream(CLASSES, ways=3, shots=1, queries=2, seed=seed, **options)


def test_a_task_is_a_function_of_seed_and_number():
    tasks = stream().tasks
    chex.assert_trees_all_equal(tasks[7], stream().tasks[7])
    others = [tasks[8], stream(seed=1).tasks[7], stream(seed=(0, 1)).tasks[7]]
    assert len({task.query.inputs.tobytes() for task in [tasks[7], *others]}) == 4
    assert tasks[7].query.inputs.dtype == np.uint8


def test_the_iterator_reads_the_sequence_batch_by_batch():
    batches = iterate(stream(), task_batch=4)
    for number in range(5):
        chex.assert_trees_all_equal(next(batches), read(stream(), 4 * number, 4))


def test_an_iterator_goes_on_with_the_very_next_task():
    batches = iterate(stream(), task_batch=4)
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    expected = next(batches)
    resumed = iterate(stream(), task_batch=4)
    resumed.set_state(state)
    chex.assert_trees_all_equal(next(resumed), expected)
    chex.assert_trees_all_equal(expected, read(stream(), 12, 4))


@pytest.mark.parametrize("shares", [2, 4])
def test_shares_make_up_the_batch(shares):
    parts = [iterate(stream(), task_batch=4, share=share, shares=shares) for share in range(shares)]
    for number in range(3):
        together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *map(next, parts))
        chex.assert_trees_all_equal(together, read(stream(), 4 * number, 4))
    # Where one share stands, the others stand: a resume may have another number of them.
    states = [part.get_state() for part in parts]
    assert all(state == states[0] for state in states)
    alone = iterate(stream(), task_batch=4)
    alone.set_state(states[0])
    chex.assert_trees_all_equal(next(alone), read(stream(), 12, 4))


def test_errors_are_those_of_the_sampler():
    with pytest.raises(ValueError, match="7-way tasks require 7 classes, but there are 6"):
        task_stream(CLASSES, ways=7, shots=1, queries=1)


def test_the_sequence_does_not_end():
    assert len(list(itertools.islice(iterate(stream(), task_batch=1), 300))) == 300
    assert len(stream().tasks) > 10**15


def numbered(count, rows=2):
    batch = lambda i: Batch(np.full((rows, 3), i, np.float32), np.full((rows,), i))  # noqa: E731
    return [Task(batch(index), batch(index)) for index in range(count)]


def test_a_list_is_a_stream_of_its_tasks_in_order():
    tasks = numbered(5)
    listed = enumerated(tasks)
    assert len(listed.tasks) == 5
    for index, task in enumerate(tasks):
        chex.assert_trees_all_equal(listed.tasks[index], task)
        chex.assert_trees_all_equal(jax.jit(listed.prepare)(listed.tasks[index]), task)
    assert read(listed, 1, 3).query.inputs[:, 0, 0].tolist() == [1, 2, 3]


def test_a_list_is_read_again_and_again():
    listed = enumerated(numbered(5))
    for shares in (1, 2):
        parts = [
            iterate(listed, task_batch=4, share=share, shares=shares) for share in range(shares)
        ]
        for number in range(6):
            seen = np.concatenate([next(part).query.targets[:, 0] for part in parts])
            assert seen.tolist() == [(4 * number + place) % 5 for place in range(4)]


def test_a_list_has_no_more_tasks_than_it_has():
    with pytest.raises(ValueError, match="tasks 3 to 6 are requested, but the stream has only 5"):
        read(enumerated(numbered(5)), 3, 4)


def test_lists_that_are_no_stream_are_refused():
    with pytest.raises(ValueError, match="no tasks; give at least one"):
        enumerated([])
    with pytest.raises(ValueError, match="task 2 is .* pad them to one shape"):
        enumerated([*numbered(2), *numbered(1, rows=3)])
