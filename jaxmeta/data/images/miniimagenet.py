"""miniImageNet: 100 classes of ImageNet with 600 photographs each, 84×84 in colour.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching networks for one shot learning, 2016.
ImageNet's images may not be redistributed: this file reads a folder that the user provides.
"""

import csv
import importlib.resources
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmeta.data.cache import cached_arrays, data_folder, fingerprint
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.images.dataset import PARTS, Dataset
from jaxmeta.data.images.folder import SUFFIXES, read_images
from jaxmeta.data.images.pixels import RESIZE, SIZE
from jaxmeta.data.images.registry import image_source
from jaxmeta.data.reading import regular, walked
from jaxmeta.files import shown

SPLITS = ("ravi", "vinyals")
IMAGES = 600  # per class
LICENCE = "ImageNet's terms: non-commercial research and education only, no redistribution"
_SYNSET = re.compile(r"n\d{8}")  # ImageNet's names of classes
_LISTS = ("train.csv", "val.csv", "test.csv")
_WHERE = {
    "ravi": "https://github.com/twitter-research/meta-learning-lstm (data/miniImagenet)",
    "vinyals": "https://github.com/renmengye/few-shot-ssl-public (fewshot/data)",
}
_GET = (
    "The images are ImageNet's, for non-commercial research and education only, and may not be "
    "redistributed: accept the terms at https://image-net.org/download, then make the set by the "
    "lists of "
)
_TOOL = ", for example with https://github.com/yaoyao-liu/mini-imagenet-tools"


@image_source("miniimagenet")
def miniimagenet(
    *,
    split: str = "ravi",
    image_size: int = SIZE,
    color: bool = True,
    data_dir: str | Path | None = None,
) -> Dataset:
    """The 60,000 photographs of miniImageNet, 600 of each of 100 classes, from a local folder.

    The folder has one of two layouts. Other files and other classes are ignored, so that the images
    of both splits may share a folder.

    - A folder for each class, named by its synset such as `n01532829`, at any depth. The images of
      a class may be spread over several folders, such as `train/n01532829` and `val/n01532829`.
    - The published `train.csv`, `val.csv` and `test.csv`, each with the columns file name and
      class, beside a folder `images` with the files. The lists choose the images of each class;
      `split` chooses the part that a class belongs to.

    Args:
      split: `ravi`, the 64/16/20 classes of Ravi and Larochelle 2017, which most papers use;
        `vinyals`, the 60/20/20 classes of Vinyals et al. 2016. The two are different sets of
        images: only 6 classes are in both.
      image_size: pixels, the side that every image's centre square is resized to. Images of that
        size are not changed.
      color: three channels or one.
      data_dir: the folder. Defaults to `miniimagenet` in `JAXMETA_DATA_DIR`, or in the cache
        folder.

    Raises:
      FileNotFoundError: the folder, a list, or listed images are missing; the message says where
        to get them, and under which terms.
      ValueError: the split is unknown; a class is missing or has another number of images than
        600; a list is damaged, or a file is not an image.

    >>> miniimagenet(data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: no images of miniImageNet in nowhere; put there ...
    """
    if split not in SPLITS:
        raise ValueError(f"miniimagenet has the splits {' and '.join(SPLITS)}, not {split!r}")
    root = data_folder("miniimagenet", data_dir)
    parts = split_synsets(split)
    read = _listed_files if _has_lists(root) else _class_files
    found = read(root, split)
    synsets = [*itertools.chain(*parts.values())]
    _check_complete(root, found, split, synsets)
    files = [file for synset in synsets for file in found[synset]]

    def decode() -> dict[str, np.ndarray]:
        return {"images": read_images(files, image_size=image_size, color=color)}

    name = f"miniimagenet-{fingerprint(files, image_size, color, RESIZE)}"
    images = cached_arrays(name, decode)["images"]
    # The images are sorted by part, so that the parts are views: copies would take gigabytes.
    ends = np.cumsum([IMAGES * len(part) for part in parts.values()])
    train, validation, test = (
        _equal_classes(own, part) for own, part in zip(np.split(images, ends[:-1]), parts.values())
    )
    protocol = {"split": split, "split_seed": None, "resize": RESIZE}
    return Dataset(
        "miniimagenet",
        train,
        validation,
        test,
        protocol,
        licence=LICENCE,
        source="https://image-net.org",
    )


def split_synsets(split: str) -> dict[str, list[str]]:
    """The synsets of the `train`, `validation` and `test` classes of a split, each part sorted.

    `ravi` is from the code of Ravi and Larochelle 2017 (MIT licence). `vinyals` is from the code of
    Ren et al. 2018 (MIT licence), which divides the 80 training classes of Vinyals et al. 2016 into
    60 for training and 20 for validation.

    >>> {split: [len(part) for part in split_synsets(split).values()] for split in SPLITS}
    {'ravi': [64, 16, 20], 'vinyals': [60, 20, 20]}
    """
    file = importlib.resources.files("jaxmeta.data.images") / "miniimagenet_splits.json"
    synsets = json.loads(file.read_text())[split]
    return {part: synsets[part] for part in PARTS}


def _equal_classes(images: np.ndarray, names: list[str]) -> ClassImages:
    starts = IMAGES * np.arange(len(names), dtype=np.int32)
    return ClassImages(images, starts, np.full(len(names), IMAGES, np.int32), tuple(names))


def _has_lists(root: Path) -> bool:
    return (root / "images").is_dir() and any((root / name).exists() for name in _LISTS)


def _class_files(root: Path, split: str) -> dict[str, list[Path]]:
    """The images in folders that are named by a synset, at any depth."""
    found: dict[str, list[Path]] = {}
    for file in walked(root) if root.is_dir() else ():
        if _SYNSET.fullmatch(file.parent.name) and file.suffix.lower() in SUFFIXES:
            found.setdefault(file.parent.name, []).append(file)
    if not found:
        raise FileNotFoundError(
            f"no images of miniImageNet in {shown(root)}; put there a folder of images for each "
            f"class, such as {shown(root / 'train' / 'n01532829' / '*.jpg')}, or the published "
            f"{', '.join(_LISTS)} beside a folder images; or set JAXMETA_DATA_DIR to the folder "
            f"above. {_get(split)}"
        )
    return {synset: sorted(files, key=_by_name) for synset, files in found.items()}


def _listed_files(root: Path, split: str) -> dict[str, list[Path]]:
    """The images that the published lists name, in `images` or `images/SYNSET`."""
    if absent := [name for name in _LISTS if not (root / name).exists()]:
        raise FileNotFoundError(
            f"{shown(root)} holds only a part of the lists {', '.join(_LISTS)}: "
            f"{' and '.join(absent)} missing; get it from {_WHERE[split]}"
        )
    folder = root / "images"
    found: dict[str, list[Path]] = {}
    absent, total = [], 0
    for file, synset in itertools.chain(*(_rows(root / name) for name in _LISTS)):
        total += 1
        places = (folder / file, folder / synset / file)
        place = next((place for place in places if place.exists()), None)
        if place is None:
            absent.append(file)
        else:
            found.setdefault(synset, []).append(place)
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} of the {total} images that {', '.join(_LISTS)} name are missing in "
            f"{shown(folder)}, such as {shown(absent[0])}. {_get(split)}"
        )
    return {synset: sorted(files, key=_by_name) for synset, files in found.items()}


def _by_name(file: Path) -> tuple[str, Path]:
    """By name first, so that the order of the images doesn't depend on the layout."""
    return file.name, file


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """File names and synsets from a list, without its header."""
    regular(path)
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if number == 1 or not row:
                continue
            name, synset = row if len(row) == 2 else ("", "")
            if not _SYNSET.fullmatch(synset) or not name or Path(name).name != name:
                raise ValueError(
                    f"{shown(path)}, row {number}: {shown(','.join(row))} is not the name of a "
                    "file and a class, such as n0153282900000005.jpg,n01532829; get the list again "
                    f"from {' or '.join(_WHERE.values())}"
                )
            yield name, synset


def _check_complete(
    root: Path, found: dict[str, list[Path]], split: str, expected: list[str]
) -> None:
    """Raises `ValueError` unless there are 600 images of each of the 100 classes of the split."""
    absent = [synset for synset in expected if synset not in found]
    if absent:
        (other,) = (name for name in SPLITS if name != split)
        hint = ""
        if found.keys() >= {*itertools.chain(*split_synsets(other).values())}:
            hint = f"it holds the classes of the split {other}: give split={other!r}. "
        raise ValueError(
            f"{shown(root)} is not the complete miniImageNet: {len(absent)} of the {len(expected)} "
            f"classes of the split {split} are missing, such as {absent[0]}; {hint}{_get(split)}"
        )
    wrong = [synset for synset in expected if len(found[synset]) != IMAGES]
    if wrong:
        raise ValueError(
            f"{shown(root)} is not the complete miniImageNet: {len(wrong)} of the {len(expected)} "
            f"classes have another number of images than {IMAGES}, such as {wrong[0]} with "
            f"{len(found[wrong[0]])}; {_get(split)}"
        )


def _get(split: str) -> str:
    return _GET + _WHERE[split] + (_TOOL if split == "ravi" else "")
