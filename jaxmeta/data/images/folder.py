"""Any folder of images, one folder for each class: `FOLDER/class/*.png` (or jpg, webp, ...)."""

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint
from jaxmeta.data.classes import ClassImages, class_images, split_classes, split_sizes
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import RESIZE, SIZE, Resampling, gather, is_color, square
from jaxmeta.data.reading import listed, regular, walked
from jaxmeta.files import shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# Formats that are not supported; such files are reported as skipped.
_NOT_READ = (
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".ico", ".tga", ".psd", ".svg", ".eps", ".pdf"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".dds", ".exr", ".hdr", ".raw", ".dng", ".cr2"),
    *(".nef", ".arw", ".dcm", ".npy", ".jfif", ".jpe", ".apng"),
)


def folder(
    path: str | Path,
    *,
    split: str | None = None,
    image_size: int = SIZE,
    color: bool | None = None,
    seed: int = 0,
) -> Dataset:
    """The images `path/class/*`, with their classes split at random.

    PNG, JPEG, WebP, GIF, BMP and TIFF files are read, by their suffix. Images of other formats are
    skipped with a message on standard error; other files are ignored.

    Args:
      path: the folder; each of its subfolders is a class, except hidden ones.
      split: numbers of training, validation and test classes, such as `50/11/20`. Defaults to
        64/16/20 %.
      image_size: pixels, the side that every image's centre square is resized to.
      color: three channels or one. Defaults to three if the first image of any class is in colour.
      seed: of the split.

    Raises:
      FileNotFoundError, NotADirectoryError, PermissionError: the folder is missing or can't be
        read.
      ValueError: fewer than two classes; a class without images; two classes that are links to
        the same folder; a file that is not an image or exceeds the limits of `square`; a split
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
    path = Path(os.path.expanduser(path))  # unchanged if ~ can't be expanded
    classes = folder_images(path, image_size=image_size, color=color)
    try:
        sizes = split_sizes(split, len(classes.names))
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    protocol = {"split": "/".join(map(str, sizes)), "split_seed": seed, "resize": RESIZE}
    return Dataset(str(path), *split_classes(classes, sizes, seed), protocol, source=str(path))


def folder_images(
    path: str | Path, *, image_size: int = SIZE, color: bool | None = None
) -> ClassImages:
    """All classes of a folder, sorted by name, without a split; arguments as for `folder`.

    Raises:
      as `folder`.
    """
    files = class_files(Path(os.path.expanduser(path)))
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
    names = [entry for entry in listed(path) if (path / entry).is_dir()]
    if not names:
        raise ValueError(
            f"{shown(path)} holds no class; put the images of each class in a folder of its own, "
            f"as in {shown(path / 'CLASS' / '*.png')}"
        )
    places: dict[str, str] = {}
    for name in names:
        other = places.setdefault(os.path.realpath(path / name), name)
        if other != name:
            raise ValueError(
                f"{shown(path)}: the classes {shown(other)} and {shown(name)} are links to one "
                "folder; remove one of them"
            )
    entries = {name: [path / name / entry for entry in listed(path / name)] for name in names}
    files = {name: _images(path / name, found) for name, found in entries.items()}
    if len(names) == 1:
        raise ValueError(
            f"{shown(path)} holds one class, {shown(names[0])}; a task needs at least two"
        )
    _tell_skipped(path, itertools.chain(*entries.values()))
    return files


def image_files(path: Path) -> list[Path]:
    """The images in a folder and its subfolders, sorted by name; or the one image itself.

    Raises:
      as `folder`.
    """
    # The folder of a class may be a link, as in `class_files`.
    found = sorted(walked(path, links=True)) if path.is_dir() else [path]
    files = _images(path, found)
    _tell_skipped(path, found)
    return files


def _images(path: Path, found: list[Path]) -> list[Path]:
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{shown(path)} holds no image; put {', '.join(SUFFIXES)} files there")
    for file in files:
        regular(file)
    return files


def _tell_skipped(path: Path, found: Iterable[Path]) -> None:
    """Reports the images of a folder that are not read."""
    skipped = [file for file in found if file.suffix.lower() in _NOT_READ]
    if skipped:
        print(
            f"{shown(path)}: {len(skipped)} images are skipped, such as {shown(skipped[0].name)}; "
            f"only {', '.join(SUFFIXES)} are read",
            file=sys.stderr,
        )


def read_images(
    files: list[Path],
    *,
    image_size: int,
    color: bool,
    ink: bool = False,
    resampling: Resampling = "bilinear",
) -> np.ndarray:
    """Image files as uint8 `[files, image_size, image_size, 3 or 1]`; arguments as for `square`.

    Raises:
      ValueError: a file is not an image; the message names it.
    """

    def read(row: int) -> np.ndarray:
        try:
            return square(files[row], image_size, color, ink=ink, resampling=resampling)
        except ValueError as error:
            raise _broken(files[row], error) from error

    return gather(read, (len(files), image_size, image_size, 3 if color else 1))


def _is_color(file: Path) -> bool:
    try:
        return is_color(file)
    except Exception as error:  # a broken file raises exceptions of many types
        raise _broken(file, error) from error


def _broken(file: Path, error: Exception) -> ValueError:
    reason = shown(str(error).strip())
    return ValueError(
        f"{shown(file)} is not an image that can be read ({reason}); replace or remove it"
    )
