"""An image set: its classes in three parts, and what it says of itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.classes import ClassImages

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

    @property
    def channels(self) -> int:
        """3 where the images are in colour, 1 where they are grey."""
        return self.train.images.shape[-1]
