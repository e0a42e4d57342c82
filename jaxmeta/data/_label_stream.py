"""Few-shot classification as a stream: each image comes with the label of the previous one."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Key,
    Objective,
    Task,
    cross_entropy,
    masked_mean,
    valid_mask,
)
from jaxmeta.data._episodes import Rotations, episodes
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.transformed import distorted
from jaxmeta.objectives import class_indices, instance_numbers, or_nan

LabelKind = Literal["one-hot", "strings"]

CHARACTERS = 5  # per string, and letters per character


def label_stream(
    classes: ClassImages,
    *,
    ways: int = 5,
    instances: int = 10,
    labels: LabelKind = "one-hot",
    rotations: Rotations = "as-classes",
    distortions: bool = False,
) -> Sampler:
    """A sampler of streams of images of a few classes, in random order: `sample(key) -> Task`.

        inputs:   [x_1, 0], [x_2, y_1], …, [x_T, y_{T−1}]
        targets:  y_1, y_2, …, y_T

    To predict y_t, a learner must bind the earlier images to their labels; it can only guess at
    the first instance of a class. A string label has five letters from a to e, different for each
    class and drawn anew for each stream, so that the output does not grow with the classes.

    Args:
      classes: the images of a split.
      ways: classes per stream.
      instances: images of each class; T = ways · instances.
      labels: encoding of labels in inputs and targets, `one-hot` or `strings`.
      rotations: see `episodes`.
      distortions: distort each image at random, see `distorted`; for training.

    Shapes: inputs float32 `[T, H · W · C + ways]`, pixels and then the one-hot previous label;
    targets int32 `[T]`. With strings, the previous label has 5 · 5 numbers, one-hot per letter,
    and targets are int32 `[T, 5]`. The support is empty.

    Raises:
      ValueError: as `episodes`; fewer than two instances; an unknown encoding of labels; more
        classes than strings.

    Source: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks", sections 2 and 4.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> letters = class_images(np.zeros((60, 4, 4, 1), np.uint8), np.arange(60) // 20, "abc")
    >>> query = label_stream(letters, ways=2, instances=3)(jax.random.key(0)).query
    >>> query.inputs.shape, query.targets.shape
    ((6, 18), (6,))
    """
    if instances < 2:
        raise ValueError(f"label_stream: {instances} instances per class; give at least 2.")
    sample = episodes(classes, ways=ways, shots=1, queries=instances - 1, rotations=rotations)
    strings = CHARACTERS**CHARACTERS
    if labels not in ("one-hot", "strings") or (labels == "strings" and ways > strings):
        raise ValueError(
            f"label_stream: {ways} ways as {labels!r}; give one-hot, or strings for at most "
            f"{strings} ways."
        )
    sample = distorted(sample) if distortions else sample
    return sampler(_stream, sample, ways=ways, labels=labels)


def _stream(sample: Any, key: Key, *, ways: int, labels: LabelKind) -> Task:
    sample_key, order_key, name_key = jax.random.split(key, 3)
    support, query = sample(sample_key)
    images = jnp.concatenate([support.inputs, query.inputs])
    targets = jnp.concatenate([support.targets, query.targets])
    order = jax.random.permutation(order_key, images.shape[0])
    pixels, targets = images[order].reshape(images.shape[0], -1), targets[order]
    if labels == "strings":
        targets = _strings(name_key, ways)[targets]
    told = jax.nn.one_hot(targets, CHARACTERS if labels == "strings" else ways)
    told = told.reshape(len(targets), -1)
    before = jnp.concatenate([jnp.zeros_like(told[:1]), told[:-1]])
    return Task((), Batch(jnp.concatenate([pixels, before], axis=1), targets))


def _strings(key: Key, count: int) -> Array:
    """Distinct strings of letters: int32 `[count, characters]`, letters from 0 to 4."""
    numbers = jax.random.choice(key, CHARACTERS**CHARACTERS, (count,), replace=False)
    letters = numbers[:, None] // CHARACTERS ** jnp.arange(CHARACTERS)[None] % CHARACTERS
    return letters.astype(jnp.int32)


def accuracy_by_instance(instances: tuple[int, ...] = tuple(range(1, 11))) -> Objective:
    """Cross-entropy over a stream, with the accuracy at the 1st, 2nd, … instance of each class.

    The metrics are `accuracy`, over all steps, and `accuracy_1`, `accuracy_2` and so on. With
    string labels, outputs `[T, 25]`, the cross-entropy is the mean over letters, and a string is
    correct if all of its letters are.

    >>> objective = accuracy_by_instance((1, 2))
    >>> outputs = jnp.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    >>> _, metrics = objective(outputs, jnp.array([1, 1, 0]))
    >>> float(metrics["accuracy_1"]), float(metrics["accuracy_2"])
    (0.5, 1.0)
    """

    def objective(
        outputs: Array, targets: Array, mask: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        letters_TC = targets.reshape(len(targets), -1)
        logits_TCA = outputs.reshape(*letters_TC.shape, -1)
        valid_T = valid_mask(mask, len(targets))
        valid_TC = jnp.broadcast_to(valid_T[:, None], letters_TC.shape)
        loss, _ = cross_entropy(
            logits_TCA.reshape(letters_TC.size, -1), letters_TC.ravel(), valid_TC.ravel()
        )
        seen_T = instance_numbers(letters_TC, valid_T)
        correct_T = (logits_TCA.argmax(axis=2) == letters_TC).all(axis=1).astype(outputs.dtype)
        letters = logits_TCA.shape[-1]
        is_class_TC = class_indices("accuracy_by_instance", letters_TC, letters, mask)
        correct_T = or_nan(correct_T, is_class_TC.all(axis=1))
        by_instance = {
            f"accuracy_{number}": masked_mean(correct_T, valid_T & (seen_T == number))
            for number in instances
        }
        return loss, {"accuracy": masked_mean(correct_T, mask), **by_instance}

    return objective
