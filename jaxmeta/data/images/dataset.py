"""An image set: its classes in three parts, and what it says of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.cache import digest
from jaxmeta.data.classes import ClassImages, class_images, select
from jaxmeta.data.identity import Classes, Seen, classes_by, names_seen

PARTS = ("train", "validation", "test")


class Dataset(NamedTuple):
    """An image set cut into three parts that share no class.

    Attributes:
      name: as `load` was asked for it.
      train: classes to meta-train on.
      validation: classes that choose between checkpoints and settings.
      test: classes to be read once, at the end.
      protocol: what a result must say about its data, fit for JSON: the `split`, the
        `split_seed` of a random one, the `resize` of images, what else identifies the set.
        `load` adds `dataset`, `rotations`, `ink`, `image_size`, `channels`, the number of
        `classes` of each part, and `images_sha256`, the digest of the three parts' images.
      rotations: how `episodes` should turn the images, the set's own default unless `load` was
        given another: `none` where a turned image is not another image of some class.
      ink: whether the images are dark ink on light paper, stored with ink 255 and paper 0. A
        user's scans must be inverted to look alike.
      groups: the group of each class by the class' name (its alphabet, script or coarse class);
        None where there are no groups.
      licence: of the images; None where it is not known.
      source: where the images come from, a URL or a path; None where it is not known.
      origin: what its classes are known by beside their names and images, see `Classes`: the name
        of the set, or a digest of the folder's path. `load` sets it.
    """

    name: str
    train: ClassImages
    validation: ClassImages
    test: ClassImages
    protocol: dict[str, Any]
    rotations: Rotations = "none"
    ink: bool = False
    groups: Mapping[str, str] | None = None
    licence: str | None = None
    source: str | None = None
    origin: str = ""

    @property
    def channels(self) -> int:
        """3 where the images are in colour, 1 where they are grey."""
        return self.train.images.shape[-1]

    @property
    def parts(self) -> dict[str, ClassImages]:
        """The three parts by name."""
        return {part: getattr(self, part) for part in PARTS}


def measured(parts: Mapping[str, ClassImages]) -> dict[str, Any]:
    """What a protocol says of the three parts: how many classes, and a digest of all images."""
    return {
        "classes": {part: len(classes.names) for part, classes in parts.items()},
        "images_sha256": digest({part: classes.images for part, classes in parts.items()}),
    }


def classes_of(dataset: Dataset, part: str) -> Classes:
    """What the classes of a part are known by."""
    classes = dataset.parts[part]
    ends = (classes.starts + classes.counts).tolist()
    rows = zip(classes.names, classes.starts.tolist(), ends, strict=True)
    groups = {name: classes.images[start:end] for name, start, end in rows}
    return classes_by(dataset.origin, groups)


def unseen(dataset: Dataset, seen: Seen) -> Dataset:
    """The set for the tests of a run: no class of its training or validation is in the test part.

    The very data of the run, and a set without a class that it has seen, stay as they are. Of any
    other, all classes that it has not seen are tested, whatever part of a new split they are in.

    Raises:
      ValueError: it has seen them all.
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
    names = [name for classes in free for name in classes.names]
    if not names:
        raise ValueError(
            f"{dataset.name}: the run was trained or validated on every class of it; give a set "
            "with others"
        )
    labels = np.repeat(np.arange(len(names)), np.concatenate([part.counts for part in free]))
    test = class_images(np.concatenate([part.images for part in free]), labels, names)
    left_out = sum(map(len, known.values()))
    protocol = {
        **dataset.protocol,
        **measured({**dataset.parts, "test": test}),
        "split": f"test on all classes but the {left_out} that were trained or validated on",
    }
    return dataset._replace(test=test, protocol=protocol)
