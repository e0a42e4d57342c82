"""Sets of few classes, whose images are split rather than their classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmeta.data.classes import class_images, split_classes, split_sizes
from jaxmeta.data.images.dataset import PARTS, Dataset

BY_IMAGES = "by images: all classes are in all three parts, with different images"


def split_set(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    part_of_image: np.ndarray,
    names: Sequence[str],
    *,
    split: str | None,
    seed: int,
    **about: Any,
) -> Dataset:
    """A set whose parts have the same classes and different images; or different classes.

    Args:
      name: of the set.
      images: uint8 `[total, H, W, C]`.
      labels: int `[total]`, indices into `names`.
      part_of_image: int `[total]`: 0 for training, 1 for validation, 2 for test.
      names: of the classes.
      split: numbers of training, validation and test classes, such as `4/2/4`, drawn at random.
        Defaults to the parts of the images.
      seed: of the random split.
      about: further fields of `Dataset`; `protocol` may have further entries.

    Raises:
      ValueError: a part has no image; a split that doesn't fit.

    >>> pixels, labels = np.zeros((6, 1, 1, 1), np.uint8), np.arange(6) % 2
    >>> found = split_set("two", pixels, labels, np.arange(6) // 2, "ab", split=None, seed=0)
    >>> found.train.names, found.test.names, found.test.counts.tolist()
    (('a', 'b'), ('a', 'b'), [1, 1])
    """
    protocol = about.pop("protocol", {})
    if split is None:
        for number, part in enumerate(PARTS):
            if not (part_of_image == number).any():
                raise ValueError(f"{name} has no image for {part}")
        train, validation, test = (
            class_images(images[part_of_image == number], labels[part_of_image == number], names)
            for number in range(len(PARTS))
        )
        protocol = {"split": BY_IMAGES, **protocol}
        return Dataset(name, train, validation, test, protocol, **about)
    classes = class_images(images, labels, names)
    sizes = split_sizes(split, len(classes.names))
    protocol = {"split": split, "split_seed": seed, **protocol}
    return Dataset(name, *split_classes(classes, sizes, seed), protocol, **about)


def random_parts(labels: np.ndarray, seed: int) -> np.ndarray:
    """The part of each image: of each class 64 % for training, 16 % for validation, 20 % for test.

    >>> np.bincount(random_parts(np.zeros(100, int), seed=0)).tolist()
    [64, 16, 20]
    """
    random, parts = np.random.default_rng(seed), np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        first, second = round(0.64 * len(rows)), round(0.80 * len(rows))
        parts[rows[first:second]], parts[rows[second:]] = 1, 2
    return parts
