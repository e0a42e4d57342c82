"""Image completion: images as functions from positions to pixel values, with a few known pixels."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.classes import ClassImages, check_images
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.scaling import scaled


def image_completion(
    classes: ClassImages, *, points: tuple[int, int] = (10, 300), queries: int | None = None
) -> Sampler:
    """A sampler of image completion: `sample(key) -> Task`, one image per task.

    Inputs are positions, float32 `[pixels, 2]`, row and column from −1 to 1; targets are pixel
    values, float32 `[pixels, C]`, from 0 to 1 for uint8 images. The support always has the largest
    number of known pixels; its mask marks those that belong to the task.

    Args:
      classes: the images; their classes are not used.
      points: smallest and largest number of known pixels, drawn uniformly.
      queries: number of query pixels, drawn anew for each task. Defaults to all pixels, row by row.

    Raises:
      ValueError: a number is below 1 or above the number of pixels, or `points` are in the wrong
        order.

    Source: Garnelo, Rosenbaum, Maddison et al. 2018, "Conditional neural processes", section 4.2.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((4, 5, 5, 1), np.uint8), np.arange(4) % 2, "ab")
    >>> task = image_completion(letters, points=(2, 6))(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.shape
    ((6, 2), (25, 1))
    """
    check_images("image_completion", classes.images)
    height, width = classes.images.shape[1:3]
    pixels = height * width
    if not 1 <= points[0] <= points[1] <= pixels or not 1 <= (queries or pixels) <= pixels:
        raise ValueError(
            f"image_completion: points {points}, {queries} queries; give numbers from 1 to "
            f"{pixels}, the pixels of an image, and points with the smaller first."
        )
    images = jnp.asarray(classes.images)
    return sampler(_draw_completion, images, points=points, queries=queries)


def _draw_completion(
    images: Array, key: Key, *, points: tuple[int, int], queries: int | None
) -> Task:
    image_key, order_key, count_key, target_key = jax.random.split(key, 4)
    _, height, width, channels = images.shape
    image = images[jax.random.randint(image_key, (), 0, images.shape[0])]
    values = scaled(image.reshape(-1, channels))
    rows, columns = jnp.meshgrid(
        jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij"
    )
    places = jnp.stack([rows.ravel(), columns.ravel()], axis=1)
    known = jax.random.permutation(order_key, height * width)[: points[1]]
    count = jax.random.randint(count_key, (), points[0], points[1] + 1)
    support = Batch(places[known], values[known], jnp.arange(points[1]) < count)
    if queries is None:
        return Task(support, Batch(places, values))
    asked = jax.random.permutation(target_key, height * width)[:queries]
    return Task(support, Batch(places[asked], values[asked]))
