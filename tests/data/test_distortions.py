"""Distortions of single images, and pairs of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data import class_images, distortions, image_pairs
from jaxmeta.data._distortions import elastic

KEY = jax.random.key(0)
STILL = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "shift": 0.0}


def blob() -> np.ndarray:
    rows, columns = np.mgrid[:20, :20]
    return np.exp(-((rows - 9) ** 2 + (columns - 9) ** 2) / 18)[..., None].astype(np.float32)


def test_without_distortions_the_image_stays():
    generate = distortions(**STILL, strength=0.0)
    np.testing.assert_allclose(generate(KEY, jnp.asarray(blob())), blob(), atol=1e-5)


def test_an_elastic_distortion_moves_pixels_by_its_strength():
    """A ramp shows where each pixel was read; the root mean square of both axes is α."""
    rows, columns = (grid[..., None].astype(np.float32) for grid in np.mgrid[:40, :40])
    moved = []
    for ramp in (rows, columns):
        read = jax.jit(lambda image: elastic(KEY, image, 1.5, 4.0))(jnp.asarray(ramp))
        moved.append((np.asarray(read) - ramp)[6:-6, 6:-6])
    assert np.sqrt(np.mean(np.square(moved))) == pytest.approx(1.5, rel=0.35)
    steps = np.abs(np.diff(moved[0], axis=0))
    assert steps.mean() < 0.5  # smooth: neighbours move alike


def test_keys_give_other_distortions_with_the_ink_of_the_image():
    generate = jax.jit(distortions())
    first, second = (np.asarray(generate(jax.random.key(i), jnp.asarray(blob()))) for i in (1, 2))
    assert np.abs(first - second).max() > 0.05
    assert first.sum() == pytest.approx(blob().sum(), rel=0.6)
    with pytest.raises(ValueError, match="strength -1"):
        distortions(strength=-1)


def test_a_pair_is_two_images_of_a_class():
    values = np.arange(12, dtype=np.float32).reshape(12, 1, 1, 1)
    labels = np.repeat(np.arange(3), 4)
    task = image_pairs(class_images(values, labels, "abc"), 500)(KEY)
    first, second = task.support.inputs.ravel(), task.query.inputs.ravel()
    np.testing.assert_array_equal(first // 4, task.support.targets)
    np.testing.assert_array_equal(second // 4, task.support.targets)
    assert (first != second).all()
    assert len({*zip(first.tolist(), second.tolist())}) == 3 * 4 * 3  # every pair
    single = class_images(values[:3], np.array([0, 0, 1]), "ab")
    with pytest.raises(ValueError, match="1 images in the smallest class"):
        image_pairs(single, 4)
