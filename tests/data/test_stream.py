"""The stream of tasks from the host. Their distribution: see `test_episodes.py`."""

import itertools

import chex
import jax
import numpy as np
import pytest

from jaxmeta.data.classes import class_images
from jaxmeta.data.stream import iterate, read, task_stream

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
    with pytest.raises(ValueError, match="7-way tasks need 7 classes and the split has 6"):
        task_stream(CLASSES, ways=7, shots=1, queries=1)


def test_the_sequence_does_not_end():
    assert len(list(itertools.islice(iterate(stream(), task_batch=1), 300))) == 300
    assert len(stream().tasks) > 10**15
