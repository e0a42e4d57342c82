"""Few-shot classification as a stream: each image comes with the label of the one before."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Objective, Task, cross_entropy, masked_mean
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.episodes import Rotations, episodes
from jaxmeta.data.samplers import sampler


def label_stream(
    classes: ClassImages, *, ways: int = 5, instances: int = 10, rotations: Rotations = "as-classes"
) -> Callable[[Key], Task]:
    """Streams of the images of a few classes, in random order: `sample(key) -> Task`.

        inputs:   [x_1, 0], [x_2, y_1], …, [x_T, y_{T−1}]
        targets:  y_1, y_2, …, y_T

    Whoever predicts y_t from what came before has to bind images to labels: at the first instance
    of a class there is nothing to know.

    Args:
      classes: the images of a split.
      ways: classes of a stream.
      instances: images of each class; T = ways · instances.
      rotations: see `episodes`.

    Shapes: inputs float32 `[T, H · W · C + ways]`, pixels and then the label before, one-hot;
    targets int32 `[T]`. The support is empty.

    Raises:
      ValueError: as `episodes`; fewer than two instances.

    Source: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks", section 2.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((60, 4, 4, 1), np.uint8), np.arange(60) // 20, "abc")
    >>> query = label_stream(letters, ways=2, instances=3)(jax.random.key(0)).query
    >>> query.inputs.shape, query.targets.shape
    ((6, 18), (6,))
    """
    if instances < 2:
        raise ValueError(f"label_stream: {instances} instances of a class; give at least 2.")
    sample = episodes(classes, ways=ways, shots=1, queries=instances - 1, rotations=rotations)
    return sampler(_stream, sample, ways=ways)


def _stream(sample: Any, key: Key, *, ways: int) -> Task:
    sample_key, order_key = jax.random.split(key)
    support, query = sample(sample_key)
    images = jnp.concatenate([support.inputs, query.inputs])
    targets = jnp.concatenate([support.targets, query.targets])
    order = jax.random.permutation(order_key, images.shape[0])
    pixels, targets = images[order].reshape(images.shape[0], -1), targets[order]
    labels = jax.nn.one_hot(targets, ways)
    before = jnp.concatenate([jnp.zeros((1, ways)), labels[:-1]])
    return Task((), Batch(jnp.concatenate([pixels, before], axis=1), targets))


def accuracy_by_instance(ways: int, instances: tuple[int, ...] = (1, 2, 3, 5, 10)) -> Objective:
    """Cross-entropy over a stream, with the accuracy at each class' 1st, 2nd, … instance.

    Its metrics are `accuracy`, of all steps, and `accuracy_1`, `accuracy_2` and so on.

    >>> objective = accuracy_by_instance(2, (1, 2))
    >>> outputs = jnp.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    >>> _, metrics = objective(outputs, jnp.array([1, 1, 0]))
    >>> float(metrics["accuracy_1"]), float(metrics["accuracy_2"])
    (0.5, 1.0)
    """

    def objective(
        outputs: Array, targets: Array, mask: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        loss, metrics = cross_entropy(outputs, targets, mask)
        members_TW = jax.nn.one_hot(targets, ways, dtype=jnp.int32)
        if mask is not None:
            members_TW = members_TW * mask[:, None]
        seen_T = (jnp.cumsum(members_TW, axis=0) * members_TW).sum(axis=1)
        correct_T = (outputs.argmax(axis=1) == targets).astype(outputs.dtype)
        by_instance = {
            f"accuracy_{number}": masked_mean(correct_T, seen_T == number) for number in instances
        }
        return loss, {**metrics, **by_instance}

    return objective
