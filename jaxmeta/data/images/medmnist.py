"""Files of MedMNIST: medical images with one label each, in an `.npz` file of six arrays."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.image_split import split_set
from jaxmeta.data.images.pixels import RESIZE, SIZE, check_fits, resized
from jaxmeta.data.reading import regular
from jaxmeta.files import shown

PARTS = ("train", "val", "test")  # as the arrays are named
_ROWS = 256  # images that are read at a time


def medmnist(
    path: str | Path,
    *,
    split: str | None = None,
    image_size: int | None = None,
    color: bool | None = None,
    seed: int = 0,
) -> Dataset:
    """The images of a file in the format of MedMNIST, such as `bloodmnist.npz`.

    The file has uint8 images `train_images`, `val_images` and `test_images`, `[N, H, H]` or
    `[N, H, H, 3]`, and labels `train_labels`, `val_labels` and `test_labels`, `[N, 1]` or `[N]`.
    Every class is in all three parts, with the file's own split of the images. Images are read in
    small groups, so that files of 224×224 pixels need little memory. Classes are named by their
    labels, `0`, `1` and so on.

    Args:
      path: the file.
      split: numbers of training, validation and test classes, such as `4/2/2`, drawn at random.
        Defaults to the file's split of the images.
      image_size: pixels, the side of the square images. Defaults to that of the file, at most 84.
      color: three channels or one. Defaults to the channels of the file.
      seed: of a random split of the classes.

    Raises:
      OSError: the file is missing or can't be read.
      ValueError: the file has several labels per image or volumes, which are not supported; an
        array is missing, or has another type or shape; the split doesn't fit.

    Source: Yang et al. 2023, "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D
    biomedical image classification".

    >>> import tempfile
    >>> path, arrays = Path(tempfile.mkdtemp()) / "own.npz", {}
    >>> for part in PARTS:
    ...     arrays[f"{part}_images"] = np.zeros((4, 28, 28), np.uint8)
    ...     arrays[f"{part}_labels"] = np.array([[0], [1], [0], [1]])
    >>> np.savez(path, **arrays)
    >>> found = medmnist(path)
    >>> found.test.images.shape, found.test.names
    ((4, 28, 28, 1), ('0', '1'))
    """
    path = Path(os.path.expanduser(path))
    regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            labels = [_labels(archive, part) for part in PARTS]
            shapes = [_header(archive, f"{part}_images")[0] for part in PARTS]
            side, depth = _check_images(shapes, [len(own) for own in labels])
        size = image_size or min(side, SIZE)
        color = depth == 3 if color is None else color
        name = f"medmnist-{fingerprint([path], size, color, RESIZE)}"
        images = cached_arrays(name, lambda: _decode(path, shapes, size, color))["images"]
    except (ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile) as error:
        reason = str(error.args[0]) if error.args else "it is truncated"
        raise ValueError(f"{shown(path)} can't be used as a MedMNIST file: {reason}") from error
    together = np.concatenate(labels)
    names = tuple(str(number) for number in range(int(together.max()) + 1))
    part_of_image = np.repeat(np.arange(len(PARTS)), [len(own) for own in labels])
    return split_set(
        str(path),
        images,
        together,
        part_of_image,
        names,
        split=split,
        seed=seed,
        medical=True,
        protocol={"resize": RESIZE},
        source=str(path),
    )


def _labels(archive: zipfile.ZipFile, part: str) -> np.ndarray:
    """The labels of a part, int64 `[N]`."""
    name = f"{part}_labels"
    shape, dtype = _header(archive, name)
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"{name} has {shape[1]} labels per image (multi-label, as in ChestMNIST); only sets "
            "with one label per image are supported"
        )
    if len(shape) not in (1, 2) or dtype.kind not in "iu":
        raise ValueError(
            f"{name} is {dtype} of shape {list(shape)}; whole numbers [images, 1] are required"
        )
    with archive.open(f"{name}.npy") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False).reshape(-1).astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < 10_000:
        raise ValueError(
            f"{name} has labels from {labels.min()} to {labels.max()}; give 0, 1, 2, ... as labels"
        )
    return labels


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of an array, without its values."""
    if f"{name}.npy" not in archive.namelist():
        needed = ", ".join(f"{part}_images, {part}_labels" for part in PARTS)
        raise ValueError(f"it has no array {name}; it must have {needed}")
    with archive.open(f"{name}.npy") as file:
        shape, in_columns, dtype = _read_header(file)
    if in_columns and len(shape) > 1 and "images" in name:
        raise ValueError(f"{name} is stored in Fortran order; store it with np.ascontiguousarray")
    return shape, dtype


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _check_images(shapes: list[tuple[int, ...]], counts: list[int]) -> tuple[int, int]:
    """The side and the channels of the images."""
    for part, shape, count in zip(PARTS, shapes, counts, strict=True):
        name, form = f"{part}_images", list(shape)
        if (len(shape) == 4 and shape[-1] not in (1, 3)) or len(shape) > 4:
            raise ValueError(
                f"{name} has the shape {form}, which are volumes; only images [N, H, H] or "
                "[N, H, H, 3] are supported"
            )
        if len(shape) < 3 or shape[1] != shape[2] or 0 in shape:
            raise ValueError(
                f"{name} has the shape {form}; square images [N, H, H] or [N, H, H, 3] are required"
            )
        if shape[0] != count:
            raise ValueError(f"{name} has {shape[0]} images, but {part}_labels {count} labels")
        if shape[1:] != shapes[0][1:]:
            raise ValueError(f"{name} has the shape {form}, train_images {list(shapes[0])}")
    return shapes[0][1], 3 if shapes[0][3:] == (3,) else 1


def _decode(
    path: Path, shapes: list[tuple[int, ...]], size: int, color: bool
) -> dict[str, np.ndarray]:
    """All images, `[total, size, size, 3 or 1]`, in the order of the parts."""
    total = sum(shape[0] for shape in shapes)
    check_fits((total, size, size, 3 if color else 1))
    images, start = np.empty((total, size, size, 3 if color else 1), np.uint8), 0
    with zipfile.ZipFile(path) as archive:
        for part, (count, side, _, *depth) in zip(PARTS, shapes, strict=True):
            name = f"{part}_images"
            with archive.open(f"{name}.npy") as file:
                _, _, dtype = _read_header(file)
                if dtype != np.uint8:
                    raise ValueError(f"{name} is {dtype}; uint8 is required")
                shape = (side, side, *(depth or (1,)))
                for first in range(0, count, _ROWS):
                    rows = min(_ROWS, count - first)
                    data = file.read(rows * int(np.prod(shape)))
                    found = np.frombuffer(data, np.uint8).reshape(rows, *shape)
                    images[start : start + rows] = resized(found, size, color)
                    start += rows
    return {"images": images}
