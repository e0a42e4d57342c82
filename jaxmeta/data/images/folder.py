"""Any folder of images, one folder for each class: `FOLDER/class/*.png` (or jpg, jpeg)."""

import os
from pathlib import Path

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint
from jaxmeta.data.classes import ClassImages, class_images, split_classes, split_sizes
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import RESIZE, SIZE, gather, is_color, square

SUFFIXES = (".png", ".jpg", ".jpeg")


def folder(
    path: str | Path,
    *,
    split: str | None = None,
    image_size: int = SIZE,
    color: bool | None = None,
    seed: int = 0,
) -> Dataset:
    """The images `path/class/*.png|jpg|jpeg`, their classes split at random.

    Args:
      path: the folder; those in it are the classes, hidden ones left out.
      split: classes to train, validate and test on, such as `50/11/20`; defaults to 64/16/20 %.
      image_size: pixels, the side that every image's centre square is resized to.
      color: three channels or one; defaults to three where a class begins with a colour image.
      seed: of the split.

    Raises:
      FileNotFoundError, NotADirectoryError, PermissionError: no such folder, or one that can't
        be read.
      ValueError: no or one class, a class without an image, a file that is no image, a split
        that doesn't fit.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as path:
    ...     for number in range(6):
    ...         file = Path(path) / f"class-{number}" / "only.png"
    ...         file.parent.mkdir()
    ...         Image.new("L", (9, 9), 40 * number).save(file)
    ...     shades = folder(path, image_size=4)
    >>> shades.protocol["split"], shades.train.images.shape
    ('2/2/2', (2, 4, 4, 1))
    """
    path = Path(path).expanduser()
    classes = folder_images(path, image_size=image_size, color=color)
    try:
        sizes = split_sizes(split, len(classes.names))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    protocol = {"split": "/".join(map(str, sizes)), "split_seed": seed, "resize": RESIZE}
    return Dataset(str(path), *split_classes(classes, sizes, seed), protocol, source=str(path))


def folder_images(
    path: str | Path, *, image_size: int = SIZE, color: bool | None = None
) -> ClassImages:
    """All classes of a folder, sorted by name, without a split: as `folder` reads them.

    Raises:
      as `folder`.
    """
    files = class_files(Path(path).expanduser())
    everything = [file for class_ in files.values() for file in class_]
    if color is None:
        color = any(_is_color(class_[0]) for class_ in files.values())

    def decode() -> dict[str, np.ndarray]:
        return {"images": read_images(everything, image_size=image_size, color=color)}

    name = f"folder-{fingerprint(everything, image_size, color, RESIZE)}"
    labels = np.repeat(np.arange(len(files)), [len(class_) for class_ in files.values()])
    return class_images(cached_arrays(name, decode)["images"], labels, tuple(files))


def class_files(path: Path) -> dict[str, list[Path]]:
    """The image files of each class of a folder, all sorted by name.

    Raises:
      as `folder`.
    """
    names = [entry for entry in _listed(path) if (path / entry).is_dir()]
    if not names:
        raise ValueError(
            f"{path} holds no class; put the images of each class in a folder of its own, as in "
            f"{path / 'CLASS' / '*.png'}"
        )
    files = {name: image_files(path / name) for name in names}
    if len(names) == 1:
        raise ValueError(f"{path} holds one class, {names[0]}; a task needs at least two")
    return files


def image_files(path: Path) -> list[Path]:
    """The images that lie in a folder, by name.

    Raises:
      as `folder`.
    """
    files = [path / entry for entry in _listed(path) if entry.lower().endswith(SUFFIXES)]
    if not files:
        raise ValueError(f"{path} holds no image; put {', '.join(SUFFIXES)} files there")
    return files


def read_images(files: list[Path], *, image_size: int, color: bool) -> np.ndarray:
    """Image files as uint8 `[files, image_size, image_size, 3 or 1]`.

    Raises:
      ValueError: a file that is no image; it is named.
    """

    def read(row: int) -> np.ndarray:
        try:
            return square(files[row], image_size, color)
        except ValueError as error:
            raise _broken(files[row], error) from error

    return gather(read, (len(files), image_size, image_size, 3 if color else 1))


def _listed(path: Path) -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(path) if not entry.startswith("."))
    except OSError as error:  # the same kind of error, with the remedy
        raise type(error)(
            f"can't read the folder {path} ({error.strerror}); "
            "give a folder that exists and may be read"
        ) from error


def _is_color(file: Path) -> bool:
    try:
        return is_color(file)
    except Exception as error:  # a broken file raises many kinds
        raise _broken(file, error) from error


def _broken(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is not an image that can be read ({error}); replace or remove it")
