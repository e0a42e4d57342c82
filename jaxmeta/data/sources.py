"""Image sets by name: the embedded letters, Omniglot, photographs, TFDS sets, folders."""

import os
from typing import Any, NamedTuple, get_args

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.cache import digest
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
        `load` adds `dataset`, `rotations`, `image_size`, `channels`, the number of `classes` of
        each part, and `images_sha256`, the digest of the three parts' images.
    """

    name: str
    train: ClassImages
    validation: ClassImages
    test: ClassImages
    protocol: dict[str, Any]


def load(
    name: str,
    *,
    split: str | None = None,
    rotations: Rotations | None = None,
    image_size: int | None = None,
    color: bool | None = None,
    seed: int = 0,
) -> Dataset:
    """An image set, as uint8 arrays sorted by class, ready for `episodes`.

    Args:
      name: `glyphs`, `omniglot`, `grocery`, the path of a folder `FOLDER/class/*.png|jpg|jpeg`,
        or any image-classification set that TFDS has prepared (`cifar100`). `./omniglot` is a
        folder.
      split: None is the set's own. `omniglot`: `vinyals` or `maml`. Others: classes to train,
        validate and test on, `50/11/20`; folders and TFDS by themselves 64/16/20 %.
      rotations: how `episodes` shall turn the images, for the protocol alone; None is
        `as-classes` for omniglot and `none` for others.
      image_size: pixels, the side of the images. None: 28 for glyphs and omniglot, 84 for
        grocery and folders, for TFDS the set's own up to 84.
      color: three channels or one, not for glyphs and omniglot; None is as the images are.
      seed: of a random split, and of the small changes of glyphs.

    Raises:
      ValueError: an unknown name (the nearest are named), an argument that the set doesn't
        have, damaged data.
      OSError: files that are missing or can't be read or written.

    >>> letters = load("glyphs")
    >>> letters.protocol["image_size"], letters.train.images.shape[1:]
    (28, (28, 28, 1))
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"an image size of {image_size} pixels; give 1 or more")
    if rotations is not None and rotations not in get_args(Rotations):
        raise ValueError(
            f"unknown rotations {rotations!r}; choose from {', '.join(get_args(Rotations))}"
        )
    options = {"split": split, "image_size": image_size, "color": color}
    options = {option: value for option, value in options.items() if value is not None}
    fixed = {"glyphs": ("split", "color"), "omniglot": ("color",)}.get(name, ())
    for option in options.keys() & set(fixed):
        raise ValueError(f"{name} has one {option} alone; leave out {option}={options[option]!r}")

    if name == "glyphs":
        from jaxmeta.data.glyphs import glyphs

        dataset = glyphs(seed=seed, **options)
    elif name == "omniglot":
        from jaxmeta.data.omniglot import omniglot

        dataset = omniglot(seed=seed, **options)
    elif name == "grocery":
        from jaxmeta.data.grocery import grocery

        dataset = grocery(seed=seed, **options)
    elif name.startswith((".", "~", os.sep)) or os.path.isdir(name):
        from jaxmeta.data.folder import folder

        dataset = folder(name, seed=seed, **options)
    else:
        from jaxmeta.data.tfds_images import tfds_images

        dataset = tfds_images(name, seed=seed, **options)

    parts = dict(zip(PARTS, dataset[1:4], strict=True))
    _, height, _, channels = dataset.train.images.shape
    protocol = {
        "dataset": name,
        "rotations": rotations or ("as-classes" if name == "omniglot" else "none"),
        "image_size": height,
        "channels": channels,
        "classes": {part: len(classes.names) for part, classes in parts.items()},
        "images_sha256": digest({part: classes.images for part, classes in parts.items()}),
    }
    return dataset._replace(name=name, protocol=protocol | dataset.protocol)
