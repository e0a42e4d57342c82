"""Batches of images labelled over all classes, for ordinary supervised training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.classes import ClassImages, check_images
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.scaling import scaled


def image_batches(
    classes: ClassImages, batch_size: int, *, shift: int = 0, flip: bool = False, light: float = 0.0
) -> Sampler:
    """A sampler of batches: `sample(key) -> Task` whose support and query are the same batch.

    Images are drawn uniformly with replacement and augmented at random: shifted by up to `shift`
    pixels on both axes (padded with zeros), mirrored left to right, and their brightness and
    contrast multiplied by factors between 1 − `light` and 1 + `light`.

    Args:
      classes: the images, uint8 or floats; the label of a class is its index.
      batch_size: images per batch.
      shift: largest shift, in pixels.
      flip: mirror each image with probability 1/2.
      light: largest relative change of brightness and contrast, 0 to 1.

    Returns:
      a `jax.tree_util.Partial`, as `episodes`: inputs float32 `[batch_size, H, W, C]`, in [0, 1]
      for uint8 images, targets int32 `[batch_size]`.

    Raises:
      ValueError: the batch size is below 1, the shift is negative or as large as the image, or
        `light` is outside 0 to 1.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2, ("a", "b"))
    >>> sample = image_batches(letters, 4, shift=1, flip=True)
    >>> sample(jax.random.key(0)).query.inputs.shape
    (4, 8, 8, 1)
    """
    check_images("image_batches", classes.images)
    height, width = classes.images.shape[1:3]
    if batch_size < 1 or not 0 <= shift < min(height, width) or not 0 <= light <= 1:
        raise ValueError(
            f"image_batches: batch_size {batch_size}, shift {shift} of {height}×{width} pixels, "
            f"light {light}; give a batch_size of at least 1, a shift within the image, and a "
            "light of 0 to 1."
        )
    labels = jnp.asarray(np.repeat(np.arange(len(classes.names)), classes.counts), jnp.int32)
    images = jnp.asarray(classes.images)
    return sampler(
        _draw_batch, images, labels, batch_size=batch_size, shift=shift, flip=flip, light=light
    )


def image_pairs(classes: ClassImages, batch_size: int) -> Sampler:
    """A sampler of pairs of images of a class: `sample(key) -> Task`.

    Row i of the support and row i of the query are two distinct images of one class, which is drawn
    uniformly with replacement.

    Args:
      classes: the images, uint8 or floats, at least two of each class; targets are the indices of
        the classes.
      batch_size: pairs per batch.

    Returns:
      a `jax.tree_util.Partial`, as `episodes`: inputs float32 `[batch_size, H, W, C]`.

    Raises:
      ValueError: the batch size is below 1; a class has a single image.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2, ("a", "b"))
    >>> task = image_pairs(letters, 4)(jax.random.key(0))
    >>> task.support.targets.tolist() == task.query.targets.tolist()
    True
    """
    check_images("image_pairs", classes.images)
    if batch_size < 1 or classes.counts.min() < 2:
        raise ValueError(
            f"image_pairs: batch_size {batch_size}, and {classes.counts.min()} images in the "
            "smallest class; give a batch_size of at least 1, and two images of each class."
        )
    return sampler(
        _draw_pairs,
        jnp.asarray(classes.images),
        jnp.asarray(classes.starts, jnp.int32),
        jnp.asarray(classes.counts, jnp.int32),
        batch_size=batch_size,
    )


def _draw_pairs(images: Array, starts: Array, counts: Array, key: Key, *, batch_size: int) -> Task:
    class_key, first_key, other_key = jax.random.split(key, 3)
    rows = jax.random.randint(class_key, (batch_size,), 0, starts.shape[0])
    counts = counts[rows]
    first = jax.random.randint(first_key, (batch_size,), 0, counts)
    other = (first + jax.random.randint(other_key, (batch_size,), 1, counts)) % counts
    parts = (scaled(images[starts[rows] + place]) for place in (first, other))
    return Task(*(Batch(inputs, rows.astype(jnp.int32)) for inputs in parts))


def paired_batches(first: Sampler, second: Sampler) -> Sampler:
    """A sampler of tasks with the support of one sampler and the query of another.

        support = first(key_1).support,  query = second(key_2).query

    Architecture search trains weights on one half of the images, and the architecture on the other.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2, ("a", "b"))
    >>> sample = paired_batches(image_batches(letters, 4), image_batches(letters, 2))
    >>> task = sample(jax.random.key(0))
    >>> len(task.support.targets), len(task.query.targets)
    (4, 2)
    """
    return sampler(_draw_pair, first, second)


def _draw_pair(first: Sampler, second: Sampler, key: Key) -> Task:
    first_key, second_key = jax.random.split(key)
    return Task(first(first_key).support, second(second_key).query)


def _draw_batch(
    images: Array, labels: Array, key: Key, *, batch_size: int, shift: int, flip: bool, light: float
) -> Task:
    index_key, change_key = jax.random.split(key)
    rows = jax.random.randint(index_key, (batch_size,), 0, images.shape[0])
    bounded = images.dtype == jnp.uint8
    change = functools.partial(_changed, shift=shift, flip=flip, light=light, bounded=bounded)
    inputs = jax.vmap(change)(jax.random.split(change_key, batch_size), scaled(images[rows]))
    batch = Batch(inputs, labels[rows])
    return Task(batch, batch)


def _changed(
    key: Key, image: Array, *, shift: int, flip: bool, light: float, bounded: bool
) -> Array:
    shift_key, flip_key, light_key = jax.random.split(key, 3)
    if shift:
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        row, column = jax.random.randint(shift_key, (2,), 0, 2 * shift + 1)
        image = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    if light:
        factors = jax.random.uniform(light_key, (2,), minval=1 - light, maxval=1 + light)
        image, contrast = image * factors[0], factors[1]
        image = image.mean() + contrast * (image - image.mean())
    # Floats may have another range.
    return jnp.clip(image, 0, 1) if bounded else image
