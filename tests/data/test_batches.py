"""Batches for supervised training, and how their images are changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.batches import image_batches
from jaxmeta.data.classes import class_images

KEY = jax.random.key(0)


def pixels(count=6, side=5):
    random = np.random.default_rng(0)
    return random.integers(1, 256, (count, side, side, 1), np.uint8)


def classes(images=None):
    images = pixels() if images is None else images
    return class_images(images, np.arange(len(images)) % 3, ("a", "b", "c"))


def drawn(**options):
    batch = image_batches(classes(), 200, **options)(KEY).query
    return np.asarray(batch.inputs), np.asarray(batch.targets)


def test_images_keep_their_labels_and_all_are_drawn():
    inputs, targets = drawn()
    known = classes()
    labels = np.repeat(np.arange(3), known.counts)
    found = set()
    for image, target in zip(inputs, targets):
        (index,) = np.flatnonzero((np.abs(known.images / 255 - image) < 1e-6).all(axis=(1, 2, 3)))
        assert labels[index] == target
        found.add(int(index))
    assert found == set(range(6))


def test_a_shift_moves_what_is_there_and_brings_in_black():
    one = class_images(pixels(1), np.zeros(1, int), ("a",))
    inputs = np.asarray(image_batches(one, 300, shift=2)(KEY).query.inputs)
    image = one.images[0] / 255
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    places = {
        (row, column): padded[row : row + 5, column : column + 5]
        for row in range(5)
        for column in range(5)
    }
    seen = {
        place
        for moved in inputs
        for place, expected in places.items()
        if np.abs(moved - expected).max() < 1e-6
    }
    assert seen == set(places)


def test_half_of_the_images_are_mirrored():
    one = class_images(pixels(1), np.zeros(1, int), ("a",))
    inputs = np.asarray(image_batches(one, 400, flip=True)(KEY).query.inputs)
    image = one.images[0] / 255
    mirrored = (np.abs(inputs - image[:, ::-1]) < 1e-6).all(axis=(1, 2, 3))
    straight = (np.abs(inputs - image) < 1e-6).all(axis=(1, 2, 3))
    assert (mirrored | straight).all()
    assert 150 < mirrored.sum() < 250


def test_light_changes_brightness_and_contrast_within_its_range():
    grey = class_images(np.full((1, 4, 4, 1), 100, np.uint8), np.zeros(1, int), ("a",))
    inputs = np.asarray(image_batches(grey, 500, light=0.3)(KEY).query.inputs) * 255
    assert 70 <= inputs.min() < 75
    assert 125 < inputs.max() <= 130
    assert (np.ptp(inputs, axis=(1, 2, 3)) < 1e-3).all()  # no contrast, none to change
    two = class_images(
        np.array([[[[80], [120]], [[120], [80]]]], np.uint8), np.zeros(1, int), ("a",)
    )
    both = np.asarray(image_batches(two, 500, light=0.3)(KEY).query.inputs) * 255
    relative = np.ptp(both, axis=(1, 2, 3)) / both.mean(axis=(1, 2, 3)) / 0.4
    assert 0.7 <= relative.min() < 0.75
    assert 1.25 < relative.max() <= 1.3001


def test_the_sampler_is_pure():
    sample = image_batches(classes(), 7, shift=1, flip=True, light=0.5)
    again = jax.jit(lambda sample, key: sample(key))(sample, KEY)
    np.testing.assert_allclose(sample(KEY).query.inputs, again.query.inputs, atol=1e-6)
    other = sample(jax.random.key(1)).query.inputs
    assert not jnp.allclose(other, again.query.inputs)
    assert again.query.inputs.shape == (7, 5, 5, 1)
    assert again.query.targets.dtype == jnp.int32


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 1, "shift": 5}, {"batch_size": 1, "light": 1.5}]
)
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="image_batches"):
        image_batches(classes(), **options)
