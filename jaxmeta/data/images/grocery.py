"""Grocery Store: 5,421 photographs of 81 kinds of fruit, vegetables and cartons, taken in shops."""

from pathlib import Path, PurePosixPath

import numpy as np

from jaxmeta.data.cache import cached_arrays, data_folder, fingerprint
from jaxmeta.data.classes import class_images, split_classes, split_sizes
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import RESIZE, SIZE, gather, square
from jaxmeta.data.images.registry import image_source
from jaxmeta.data.reading import archive_names, is_hidden, read_archive
from jaxmeta.files import shown

CLASSES, IMAGES = 81, 5421
_PARTS = ("train", "val", "test")  # as published, for ordinary classification; merged here
_SOURCE = "https://github.com/marcusklasson/GroceryStoreDataset"


@image_source("grocery")
def grocery(
    *,
    split: str = "50/11/20",
    image_size: int = SIZE,
    color: bool = True,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """The photographs of Grocery Store, 35 to 143 of each of 81 fine classes, split at random.

    Args:
      split: numbers of training, validation and test classes.
      image_size: pixels, the side that every image's centre square is resized to.
      color: three channels or one.
      seed: of the split.
      data_dir: a folder with a zip of the published repository, or of its folders `train`, `val`
        and `test`. Defaults to `grocery` in `JAXMETA_DATA_DIR`, or in the cache folder.

    Raises:
      FileNotFoundError: there is no such zip; the message says where to get one.
      ValueError: the zip is damaged, too large (see `read_archive`) or contains other photographs;
        the split doesn't fit.

    Source: Klasson, Zhang, Kjellström 2019, "A hierarchical grocery store image dataset with
    visual and semantic labels"; MIT licence.

    >>> grocery(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: no zip of Grocery Store in nowhere; download ...
    """
    sizes = split_sizes(split, CLASSES)
    archive = _archive(data_folder("grocery", data_dir))

    def decode() -> dict[str, np.ndarray]:
        return _decode(archive, image_size, color)

    arrays = cached_arrays(f"grocery-{fingerprint([archive], image_size, color, RESIZE)}", decode)
    classes = class_images(arrays["images"], arrays["labels"], arrays["names"].tolist())
    protocol = {"split": split, "split_seed": seed, "resize": RESIZE}
    return Dataset(
        "grocery",
        *split_classes(classes, sizes, seed),
        protocol,
        groups=_coarse_classes(archive),
        licence="MIT",
        source=_SOURCE,
    )


def _archive(folder: Path) -> Path:
    found = sorted(path for path in folder.glob("*.zip") if not is_hidden(path.name))
    if not found:
        raise FileNotFoundError(
            f"no zip of Grocery Store in {folder}; download one there from {_SOURCE} (Code, "
            "Download ZIP), or set JAXMETA_DATA_DIR to the folder above"
        )
    return found[0]


def _decode(path: Path, image_size: int, color: bool) -> dict[str, np.ndarray]:
    try:
        entries = read_archive(path, _is_photograph)
        files = list(entries.values())
        # The class is the name of the last folder, in all three parts.
        found = [entry.parent.name for entry in entries]
        names, labels = np.unique(found, return_inverse=True)
        if (len(names), len(files)) != (CLASSES, IMAGES):
            raise ValueError(f"{len(files)} photographs of {len(names)} classes")
        images = gather(
            lambda row: square(files[row], image_size, color),
            (IMAGES, image_size, image_size, 3 if color else 1),
        )
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{shown(path)} is not the complete Grocery Store, {IMAGES} photographs of {CLASSES} "
            f"classes ({error}); download it again from {_SOURCE}"
        ) from error
    return {"images": images, "labels": labels, "names": names}


def _coarse_classes(path: Path) -> dict[str, str]:
    """Coarse classes by fine class, as in `train/Fruit/Apple/Royal-Gala`: `Apple`, `Royal-Gala`."""
    coarse = {}
    for entry in archive_names(path, _is_photograph):
        folders = entry.parts
        published = next(place for place, folder in enumerate(folders) if folder in _PARTS)
        coarse[entry.parent.name] = folders[published + 2]
    return coarse


def _is_photograph(entry: PurePosixPath) -> bool:
    return entry.suffix == ".jpg" and any(part in _PARTS for part in entry.parts[:-1])
