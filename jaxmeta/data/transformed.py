"""Transformed samplers: with unlabelled examples, in random order, with distorted images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, Task
from jaxmeta.data.samplers import Sampler, sampler


def with_unlabelled(
    sample: Any, *, ways: int, shots: int, unlabelled: int, distractors: int = 0
) -> Sampler:
    """Tasks with unlabelled support examples, whose targets are −1, after the labelled ones.

    Args:
      sample: draws tasks of `ways + distractors` ways with `shots + unlabelled` shots, sorted by
        class, as `episodes` does.
      ways, shots: of the resulting tasks.
      unlabelled: number of unlabelled examples of each class and each distractor.
      distractors: number of classes with only unlabelled examples, and no queries.

    Returns:
      a sampler whose support has `ways · shots` labelled rows, followed by
      `(ways + distractors) · unlabelled` unlabelled ones.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> from jaxmeta.data._episodes import episodes
    >>> letters = class_images(np.zeros((30, 8, 8, 1), np.uint8), np.arange(30) // 10, "abc")
    >>> larger = episodes(letters, ways=3, shots=1 + 2, queries=1)
    >>> sample = with_unlabelled(larger, ways=2, shots=1, unlabelled=2, distractors=1)
    >>> sample(jax.random.key(0)).support.targets.tolist()
    [0, 1, -1, -1, -1, -1, -1, -1]
    """
    return sampler(
        _with_unlabelled,
        sample,
        ways=ways,
        shots=shots,
        unlabelled=unlabelled,
        distractors=distractors,
    )


def _with_unlabelled(
    sample: Any, drawn: Any, *, ways: int, shots: int, unlabelled: int, distractors: int
) -> Task:
    support, query = sample(drawn)

    def rearranged(leaf: Array) -> Array:
        by_class = leaf.reshape(ways + distractors, shots + unlabelled, *leaf.shape[1:])
        labelled, free = by_class[:ways, :shots], by_class[:, shots:]
        return jnp.concatenate([part.reshape(-1, *leaf.shape[1:]) for part in (labelled, free)])

    support = jax.tree.map(rearranged, support)
    places = jnp.arange(support.targets.shape[0])
    targets = jnp.where(places < ways * shots, support.targets, -1)
    count = query.targets.shape[0] // (ways + distractors) * ways
    return Task(support._replace(targets=targets), jax.tree.map(lambda leaf: leaf[:count], query))


def in_random_order(sample: Any) -> Any:
    """Tasks whose support examples are in random order, not sorted by class.

    For learners that read the support sequentially, so that the position doesn't reveal the class.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> from jaxmeta.data._episodes import episodes
    >>> letters = class_images(np.zeros((60, 8, 8, 1), np.uint8), np.arange(60) // 10, "abcdef")
    >>> sample = in_random_order(episodes(letters, ways=6, shots=1, queries=1))
    >>> sample(jax.random.key(0)).support.targets.tolist() != [0, 1, 2, 3, 4, 5]
    True
    """
    return sampler(_in_random_order, sample)


def _in_random_order(sample: Any, key: Key) -> Task:
    task_key, order_key = jax.random.split(key)
    task = sample(task_key)
    order = jax.random.permutation(order_key, task.support.targets.shape[0])
    return task._replace(support=jax.tree.map(lambda leaf: leaf[order], task.support))


def distorted(
    sample: Any,
    *,
    rotation: float = 10.0,
    shear: float = 0.3,
    scale: tuple[float, float] = (0.8, 1.2),
    shift: float = 2 / 105,
    probability: float = 0.5,
) -> Any:
    """Tasks whose images are distorted at random, by affine maps about their centres.

        position' = R(θ) · [[1, ρx], [ρy, 1]] · diag(sx, sy) · position + t

    Each of θ, ρx, ρy, sx, sy and the two components of t is applied independently with the given
    probability. Images are interpolated bilinearly, and are 0 outside their borders.

    Args:
      sample: draws tasks with inputs `[examples, H, W, C]`.
      rotation: largest |θ|, in degrees.
      shear: largest |ρ|.
      scale: smallest and largest s.
      shift: largest |t|, as a fraction of the image's size; the paper's images have 105 pixels.
      probability: of each distortion.

    Source: Koch, Zemel, Salakhutdinov 2015, "Siamese neural networks for one-shot image
    recognition", section 3.3.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> from jaxmeta.data._episodes import episodes
    >>> letters = class_images(np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) // 10, "ab")
    >>> sample = distorted(episodes(letters, ways=2, shots=1, queries=1))
    >>> sample(jax.random.key(0)).query.inputs.shape
    (2, 8, 8, 1)
    """
    options = {"rotation": rotation, "shear": shear, "scale": scale, "shift": shift}
    return sampler(_distorted, sample, probability=probability, **options)


def _distorted(sample: Any, key: Key, **options: Any) -> Task:
    task_key, support_key, query_key = jax.random.split(key, 3)
    task = sample(task_key)
    change = functools.partial(distorted_affinely, **options)

    def changed(batch: Any, key: Key) -> Any:
        keys = jax.random.split(key, batch.inputs.shape[0])
        return batch._replace(inputs=jax.vmap(change)(keys, batch.inputs))

    return Task(changed(task.support, support_key), changed(task.query, query_key))


def distorted_affinely(
    key: Key,
    image_HWC: Array,
    *,
    rotation: float,
    shear: float,
    scale: tuple[float, float],
    shift: float,
    probability: float,
) -> Array:
    """One image, distorted at random by an affine map, see `distorted`."""
    use_key, value_key = jax.random.split(key)
    used = jax.random.bernoulli(use_key, probability, (7,))
    radians = jnp.deg2rad(rotation)
    low = jnp.array([-radians, -shear, -shear, scale[0], scale[0], -shift, -shift])
    high = jnp.array([radians, shear, shear, scale[1], scale[1], shift, shift])
    unchanged = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    drawn = jax.random.uniform(value_key, (7,), minval=low, maxval=high)
    angle, shear_x, shear_y, scale_x, scale_y, *move = jnp.where(used, drawn, unchanged)

    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.array([[cosine, -sine], [sine, cosine]])
    skew = jnp.array([[1.0, shear_x], [shear_y, 1.0]])
    affine = turn @ skew @ jnp.diag(jnp.array([scale_x, scale_y]))
    height, width, _ = image_HWC.shape
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2])
    move = jnp.stack(move) * jnp.array([height, width])
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    # The inverse map: the position in the old image of each pixel of the new one.
    wanted = places.reshape(2, -1) - middle[:, None] - move[:, None]
    source = jnp.linalg.inv(affine) @ wanted + middle[:, None]

    def read(image_HW: Array) -> Array:
        values = jax.scipy.ndimage.map_coordinates(image_HW, list(source), order=1)
        return values.reshape(height, width)

    return jax.vmap(read, in_axes=2, out_axes=2)(image_HWC)
