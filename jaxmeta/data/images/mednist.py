"""MedNIST: grey medical images of 64×64 pixels in six classes, such as hand and chest X-rays."""

from pathlib import Path, PurePosixPath

import numpy as np

from jaxmeta.data.cache import cached_arrays, data_folder, fingerprint
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.image_split import random_parts, split_set
from jaxmeta.data.images.pixels import RESIZE, gather, square
from jaxmeta.data.images.registry import image_source
from jaxmeta.data.reading import is_hidden, read_archive, walked
from jaxmeta.files import shown

CLASSES = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
_SOURCE = "https://docs.monai.io/en/stable/apps.html#medical-datasets"
_SUFFIXES = (".jpeg", ".jpg", ".png")


@image_source("mednist")
def mednist(
    *,
    split: str | None = None,
    image_size: int = 64,
    color: bool = False,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """The images of MedNIST: about 10,000 of each of six kinds of scans, or an excerpt.

    By default the images are split at random: of each class 64 % for training, 16 % for validation
    and 20 % for test.

    Args:
      split: numbers of training, validation and test classes, `2/2/2`. Defaults to a split of the
        images.
      image_size: pixels, the side of the square images.
      color: three equal channels or one.
      seed: of the split.
      data_dir: a folder with the folders of the six classes, also below other folders, or with a
        zip of them. Defaults to `mednist` or `mednist_6000` in `JAXMETA_DATA_DIR`, or in the cache
        folder.

    Raises:
      FileNotFoundError: there are no such files; the message says where to get them.
      ValueError: a class is missing, or an image is damaged; the split doesn't fit.

    Source: MedNIST of MONAI, made by B. J. Erickson (Mayo Clinic) from images of TCIA, the RSNA
    Bone Age Challenge and NIH Chest X-rays; CC BY-SA 4.0.

    >>> mednist(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: no images of MedNIST in nowhere; ...
    """
    folder = data_folder("mednist", data_dir)
    if data_dir is None and not folder.is_dir():
        folder = data_folder("mednist_6000")  # an excerpt of 1,000 images per class
    files = _files(folder)
    name = f"mednist-{fingerprint(files, image_size, color, RESIZE)}"
    found = cached_arrays(name, lambda: _decode(folder, files, image_size, color))
    labels = found["labels"]
    return split_set(
        "mednist",
        found["images"],
        labels,
        random_parts(labels, seed),
        CLASSES,
        split=split,
        seed=seed,
        medical=True,
        protocol={"split_seed": seed, "resize": RESIZE},
        licence="CC BY-SA 4.0",
        source=_SOURCE,
    )


def _files(folder: Path) -> list[Path]:
    """The zip of a folder, or else its image files in folders of the classes."""
    zips = sorted(path for path in folder.glob("*.zip") if not is_hidden(path.name))
    found = zips[:1]
    if not found and folder.is_dir():
        found = sorted(path for path in walked(folder) if _is_scan(path))
    if not found:
        raise FileNotFoundError(
            f"no images of MedNIST in {shown(folder)}; unpack MedNIST.tar.gz there, which "
            f"{_SOURCE} links to, or set JAXMETA_DATA_DIR to the folder above"
        )
    return found


def _decode(folder: Path, files: list[Path], size: int, color: bool) -> dict[str, np.ndarray]:
    try:
        of_zip = files[0].suffix == ".zip"
        entries = read_archive(files[0], _is_scan) if of_zip else {path: path for path in files}
        labels = np.array([CLASSES.index(path.parent.name) for path in entries], np.int64)
        images = list(entries.values())
        missing = [name for number, name in enumerate(CLASSES) if number not in labels]
        if missing:
            raise ValueError(f"it has no images of {', '.join(missing)}")
        shape = (len(images), size, size, 3 if color else 1)
        return {"images": gather(lambda row: square(images[row], size, color), shape)} | {
            "labels": labels
        }
    except (ValueError, OSError) as error:
        raise ValueError(f"{shown(folder)} is not a complete MedNIST: {error}") from error


def _is_scan(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.parent.name in CLASSES
