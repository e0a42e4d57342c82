"""An image set: its training, validation and test classes, and their description."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.cache import digest
from jaxmeta.data.classes import ClassImages, class_images, select
from jaxmeta.data.identity import Classes, Seen, classes_by, names_seen

PARTS = ("train", "validation", "test")


class Dataset(NamedTuple):
    """An image set, split into three parts without common classes.

    Sets of few classes may split the images of every class instead; their `protocol` says so.

    Attributes:
      name: the name that was passed to `load`.
      train: classes for meta-training.
      validation: classes for the choice of checkpoints and settings.
      test: classes for the final evaluation.
      protocol: the description of the data that is stored with every result, serialisable as
        JSON: the `split`, the `split_seed` of a random split, the `resize` method, and whatever
        else identifies the set. `load` adds `dataset`, `rotations`, `ink`, `image_size`,
        `channels`, the number of `classes` of each part, and `images_sha256`, the digest of all
        images.
      rotations: the default `rotations` of `episodes` for this set, or the value passed to `load`;
        `none` where rotated images are not plausible images of a class.
      ink: whether the images are drawings, dark on light, stored with ink 255 and paper 0. A
        user's scans must be inverted to match.
      medical: whether the images are medical.
      groups: the group of each class (its alphabet, script or coarse class) by class name, for
        tasks within a group (see `episodes`); None if there are no groups.
      licence: of the images; None if unknown.
      source: where the images come from, a URL or a path; None if unknown.
      origin: identifies the set, so that classes of equal name are recognised as the same class
        (see `jaxmeta.data.identity`): the set's name, or a digest of the folder's path. Set by
        `load`.
    """

    name: str
    train: ClassImages
    validation: ClassImages
    test: ClassImages
    protocol: dict[str, Any]
    rotations: Rotations = "none"
    ink: bool = False
    medical: bool = False
    groups: Mapping[str, str] | None = None
    licence: str | None = None
    source: str | None = None
    origin: str = ""

    @property
    def channels(self) -> int:
        """3 for colour images, 1 for grey ones."""
        return self.train.images.shape[-1]

    @property
    def parts(self) -> dict[str, ClassImages]:
        """The three parts by name."""
        return {part: getattr(self, part) for part in PARTS}


def measured(parts: Mapping[str, ClassImages]) -> dict[str, Any]:
    """The protocol entries of the three parts: their numbers of classes, a digest of all images."""
    return {
        "classes": {part: len(classes.names) for part, classes in parts.items()},
        "images_sha256": digest({part: classes.images for part, classes in parts.items()}),
    }


def classes_of(dataset: Dataset, part: str) -> Classes:
    """The classes of a part, with the digests that identify them."""
    classes = dataset.parts[part]
    ends = (classes.starts + classes.counts).tolist()
    rows = zip(classes.names, classes.starts.tolist(), ends, strict=True)
    groups = {name: classes.images[start:end] for name, start, end in rows}
    return classes_by(dataset.origin, groups)


def unseen(dataset: Dataset, seen: Seen) -> Dataset:
    """The set with a test part that contains no class that a run was trained or validated on.

    A set is unchanged if it is the data of the run itself, or has no class that the run has seen.
    Otherwise its test part becomes all classes that the run has not seen, from all three parts.

    Raises:
      ValueError: the run has seen all classes.
    """
    if dataset.protocol["images_sha256"] == seen.data:
        return dataset
    known = {part: {*names_seen(classes_of(dataset, part), seen.classes)} for part in PARTS}
    if not any(known.values()):
        return dataset
    free = [
        select(classes, [row for row, name in enumerate(classes.names) if name not in known[part]])
        for part, classes in dataset.parts.items()
    ]
    every = [name for classes in free for name in classes.names]
    names = list(dict.fromkeys(every))  # a class may be in several parts, with other images
    if not names:
        raise ValueError(
            f"{dataset.name}: the run was trained or validated on all of its classes; give a set "
            "with other classes"
        )
    labels = np.repeat(
        [names.index(name) for name in every], np.concatenate([part.counts for part in free])
    )
    test = class_images(np.concatenate([part.images for part in free]), labels, names)
    left_out = len(set().union(*known.values()))
    protocol = {
        **dataset.protocol,
        **measured({**dataset.parts, "test": test}),
        "split": f"test on all classes but the {left_out} that were trained or validated on",
    }
    return dataset._replace(test=test, protocol=protocol)
