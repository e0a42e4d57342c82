"""Images sorted by class: the form in which samplers take every image set."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmeta.data.scaling import check_scale


class ClassImages(NamedTuple):
    """Images sorted by class.

    Attributes:
      images: uint8 `[total, H, W, C]`, sorted by class; or floats, which samplers don't rescale.
      starts: int32 `[classes]`, the index of the first image of each class.
      counts: int32 `[classes]`, the number of images of each class.
      names: one name per class.
    """

    images: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]


def class_images(images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> ClassImages:
    """Sorts labelled images by class; the images of a class stay in their order.

    Args:
      images: uint8 `[total, H, W, C]`, or floats.
      labels: int `[total]`, indices into `names`.
      names: one per class; classes without images are left out.

    Raises:
      ValueError: there are no images, or they have no pixels or channels; images or labels have
        another type; there is not one label for each image; a label is not an index into `names`.

    >>> pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    >>> sorted_ = class_images(pixels, np.array([2, 0, 2, 0]), ("a", "b", "c"))
    >>> sorted_.names, sorted_.starts.tolist(), sorted_.images.ravel().tolist()
    (('a', 'c'), [0, 2], [1, 3, 0, 2])
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check_images("class_images", images)
    check_scale(images.dtype)
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"class_images: images of shape {images.shape} and labels of shape {labels.shape}; "
            "give one label for each image"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"class_images: labels are {labels.dtype}, such as {labels[0]!s}; give whole numbers, "
            "indices into names: names, labels = np.unique(labels, return_inverse=True)"
        )
    outside = labels[(labels < 0) | (labels >= len(names))]
    if len(outside):
        raise ValueError(
            f"class_images: the label {outside[0]} is not an index into the {len(names)} names; "
            f"give labels from 0 to {len(names) - 1}, and leave out images without a class"
        )
    labels = labels.astype(np.int64)
    counts = np.bincount(labels, minlength=len(names))
    present = np.flatnonzero(counts)
    return ClassImages(
        images[np.argsort(labels, kind="stable")],
        _starts(counts[present]),
        counts[present].astype(np.int32),
        tuple(names[index] for index in present.tolist()),
    )


def check_images(name: str, images: np.ndarray) -> None:
    """Raises `ValueError` unless images are `[N, H, W, C]` and not empty."""
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"{name}: images of the shape {images.shape}; give at least one, as [images, height, "
            "width, channels] without an axis of size 0."
        )


def select(classes: ClassImages, indices: Sequence[int] | np.ndarray) -> ClassImages:
    """The classes at `indices`, in that order, with only their images.

    >>> pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    >>> two = class_images(pixels, np.array([0, 0, 1, 1]), ("a", "b"))
    >>> select(two, [1]).images.ravel().tolist()
    [2, 3]
    """
    indices = np.asarray(indices, np.int64)
    starts, counts = classes.starts[indices], classes.counts[indices]
    rows = [start + np.arange(count) for start, count in zip(starts, counts.tolist(), strict=True)]
    return ClassImages(
        classes.images[np.concatenate([np.zeros(0, np.int64), *rows])],
        _starts(counts),
        counts,
        tuple(classes.names[index] for index in indices),
    )


def split_classes(
    classes: ClassImages, sizes: tuple[int, int, int], seed: int
) -> tuple[ClassImages, ClassImages, ClassImages]:
    """Splits classes at random into training, validation and test classes of the given numbers.

    The split depends only on the seed and the number of classes; the classes of each part stay
    in their order.

    Raises:
      ValueError: the sizes add up to more than the number of classes.

    >>> pixels = np.zeros((6, 1, 1, 1), np.uint8)
    >>> six = class_images(pixels, np.arange(6), tuple("abcdef"))
    >>> train, validation, test = split_classes(six, (3, 1, 2), seed=0)
    >>> sorted(train.names + validation.names + test.names)
    ['a', 'b', 'c', 'd', 'e', 'f']
    """
    if sum(sizes) > len(classes.names):
        raise ValueError(
            f"the split needs {sum(sizes)} classes, but there are only {len(classes.names)}"
        )
    order = np.random.default_rng(seed).permutation(len(classes.names))
    train, validation, test, _ = np.split(order, np.cumsum(sizes))
    return (
        select(classes, np.sort(train)),
        select(classes, np.sort(validation)),
        select(classes, np.sort(test)),
    )


def split_sizes(split: str | None, total: int) -> tuple[int, int, int]:
    """The numbers of training, validation and test classes.

    Args:
      split: counts such as `50/11/20`. Defaults to 64, 16 and 20 %.
      total: the number of classes.

    Raises:
      ValueError: the split has another form, doesn't add up to `total`, or leaves a part with
        fewer than the two classes that a task needs.

    >>> split_sizes(None, 81), split_sizes("50/11/20", 81)
    ((52, 13, 16), (50, 11, 20))
    """
    if split is None:
        if total < 6:
            raise ValueError(
                f"{total} classes are too few: training, validation and test need at least two each"
            )
        validation, test = (max(2, round(share * total)) for share in (0.16, 0.20))
        return total - validation - test, validation, test
    if not re.fullmatch(r"[0-9]+/[0-9]+/[0-9]+", split):
        raise ValueError(
            f"unknown split {split!r}; give the classes to train, validate and test on as three "
            "counts, such as 50/11/20"
        )
    train, validation, test = (int(count) for count in split.split("/"))
    if train + validation + test != total:
        raise ValueError(
            f"the split {split} has {train + validation + test} classes, but there are {total}"
        )
    if min(train, validation, test) < 2:
        raise ValueError(
            f"the split {split} leaves a part with fewer than the two classes that a task needs"
        )
    return train, validation, test


def _starts(counts: np.ndarray) -> np.ndarray:
    return (np.cumsum(counts) - counts).astype(np.int32)
