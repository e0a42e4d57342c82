"""Streams of classes: the examples of one class after another."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Batch, Key, Task
from jaxmeta.data._episodes import drawn_classes, episodes
from jaxmeta.data.batches import image_batches
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.samplers import Sampler, sampler


def class_streams(
    classes: ClassImages, *, ways: int, shots: int, queries: int, remembered: int
) -> Sampler:
    """A sampler of streams of classes, whose labels are the indices of all classes.

    The support has `shots` examples of one class, then of the next, for `ways` classes: a stream to
    learn in its order. The query has `queries` other examples of each of them, and `remembered`
    examples of all classes, which must not be forgotten. Streams of new classes, with labels from
    0 in the order of the stream, are those of `episodes`.

    Args:
      classes: the images.
      ways: classes of a stream.
      shots: examples of each class in the stream.
      queries: examples of each class in the query.
      remembered: examples of all classes in the query, drawn with replacement.

    Returns:
      a `jax.tree_util.Partial`, as `episodes`.

    Raises:
      ValueError: as `episodes` and `image_batches`.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> pixels = np.zeros((60, 8, 8, 1), np.uint8)
    >>> letters = class_images(pixels, np.repeat(np.arange(3), 20), ("a", "b", "c"))
    >>> sample = class_streams(letters, ways=2, shots=5, queries=1, remembered=4)
    >>> task = sample(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.shape
    ((10, 8, 8, 1), (6,))
    """
    streams = episodes(classes, ways=ways, shots=shots, queries=queries, rotations="none")
    return sampler(_draw_stream, streams, image_batches(classes, remembered))


def _draw_stream(streams: Sampler, batches: Sampler, key: Key) -> Task:
    stream_key, batch_key = jax.random.split(key)
    (support, query), rest = streams(stream_key), batches(batch_key).query
    names = drawn_classes(streams, stream_key)
    inputs = jnp.concatenate([query.inputs, rest.inputs])
    targets = jnp.concatenate([names[query.targets], rest.targets])
    return Task(Batch(support.inputs, names[support.targets]), Batch(inputs, targets))
