"""Unlabelled examples and distorted images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Task
from jaxmeta.data import distorted, episodes, task_stream, with_unlabelled
from jaxmeta.data.classes import class_images

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def classes():
    """Six classes of ten images, each of one grey value of its own."""
    pixels = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1).repeat(4, axis=1).repeat(4, axis=2)
    return class_images(pixels, np.arange(60) // 10, "abcdef")


SIZES = {"ways": 3, "shots": 2, "unlabelled": 3, "distractors": 2}
LARGER = {"ways": 5, "shots": 5, "queries": 4}


def check_task(task):
    support, query = task
    assert support.targets.tolist() == [0, 0, 1, 1, 2, 2] + 15 * [-1]
    assert query.targets.tolist() == 4 * [0] + 4 * [1] + 4 * [2]
    values = np.concatenate([support.inputs, query.inputs])[:, 0, 0, 0] * 255
    values = np.round(values).astype(int)
    assert len(set(values.tolist())) == len(values)  # no image twice
    labelled, free, asked = values[:6] // 10, values[6:21] // 10, values[21:] // 10
    kinds = labelled[::2]
    assert (labelled == np.repeat(kinds, 2)).all()
    assert (asked == np.repeat(kinds, 4)).all()
    # Three of each class and of two others, which the query does not have.
    assert (free[:9] == np.repeat(kinds, 3)).all()
    assert len(set(free[9:].tolist()) - set(kinds.tolist())) == 2


def test_unlabelled_examples_are_of_the_same_classes_and_of_others(classes):
    sample = with_unlabelled(episodes(classes, **LARGER), **SIZES)
    for seed in range(5):
        check_task(jax.jit(lambda sample, key: sample(key))(sample, jax.random.key(seed)))


def test_also_where_tasks_come_from_the_host(classes):
    stream = task_stream(classes, **LARGER)
    check_task(with_unlabelled(stream.prepare, **SIZES)(stream.tasks[3]))


def test_samplers_alike_share_a_program(classes):
    build = lambda: with_unlabelled(episodes(classes, **LARGER), **SIZES)  # noqa: E731
    assert jax.tree.structure(build()) == jax.tree.structure(build())


# --- distortions --------------------------------------------------------------------------


def constant(image, count=3):
    batch = Batch(jnp.repeat(image[None], count, axis=0), jnp.arange(count))
    return jax.tree_util.Partial(lambda key: Task(batch, batch))


NOTHING = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "shift": 0.0}


def test_no_distortion_changes_nothing():
    image = jax.random.uniform(KEY, (6, 6, 2))
    found = distorted(constant(image), **NOTHING, probability=1.0)(KEY).query.inputs
    np.testing.assert_allclose(found[0], image, atol=1e-6)
    found = distorted(constant(image), probability=0.0)(KEY).query.inputs
    np.testing.assert_allclose(found[0], image, atol=1e-6)


def test_each_image_moves_by_itself():
    image = jnp.zeros((9, 9, 1)).at[4, 4, 0].set(1.0)
    options = {**NOTHING, "shift": 2 / 9}
    task = distorted(constant(image), **options, probability=1.0)(KEY)
    places = jnp.arange(9.0)
    middles = [
        np.array([(moved[..., 0].sum(axis=axis) * places).sum() for axis in (1, 0)])
        for batch in task
        for moved in batch.inputs
    ]
    assert len({tuple(np.round(middle, 3)) for middle in middles}) == 6
    for middle in middles:
        assert np.abs(middle - 4).max() <= 2.0
    np.testing.assert_allclose([image.sum() for image in task.query.inputs], 1, atol=1e-5)


def test_a_shift_is_a_part_of_each_side():
    image = jnp.zeros((21, 5, 1)).at[10, 2, 0].set(1.0)
    options = {**NOTHING, "shift": 0.2}
    moved = distorted(constant(image, 40), **options, probability=1.0)(KEY).query.inputs[..., 0]
    down = (moved.sum(axis=2) * jnp.arange(21.0)[None]).sum(axis=1) - 10
    along = (moved.sum(axis=1) * jnp.arange(5.0)[None]).sum(axis=1) - 2
    assert 3.5 < np.abs(down).max() <= 4.2 + 1e-4
    assert 0.8 < np.abs(along).max() <= 1.0 + 1e-4


def test_turning_is_about_the_middle():
    image = jax.random.uniform(KEY, (5, 5, 1))
    turned = distorted(constant(image, 8), **{**NOTHING, "rotation": 90.0}, probability=1.0)
    found = turned(KEY).query.inputs
    np.testing.assert_allclose(found[:, 2, 2], jnp.repeat(image[2, 2][None], 8, axis=0), atol=1e-5)
    assert np.abs(found - image[None]).max() > 0.1


def test_shrinking_brings_black_in():
    image = jnp.ones((8, 8, 1))
    options = {**NOTHING, "scale": (0.5, 0.5)}
    found = distorted(constant(image), **options, probability=1.0)(KEY).query.inputs
    assert float(found[0, 0, 0, 0]) == 0
    assert float(found[0, 3, 3, 0]) == 1
    np.testing.assert_allclose(found[0].sum(), 16, rtol=0.1)
