"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program
induction, Science 2015. Prepared and read through TFDS, without TensorFlow.
"""

import importlib.resources
import itertools
import json
import lzma
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint
from jaxmeta.data.classes import ClassImages, class_images, select, split_classes
from jaxmeta.data.download import download
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import gather, square
from jaxmeta.data.images.registry import image_source
from jaxmeta.data.images.tfds_images import check_prepared, damaged, records, tfds_folder
from jaxmeta.data.reading import read_archive
from jaxmeta.extras import extra

VERSION = "3.0.0"  # of the TFDS set
SPLITS = ("vinyals", "maml", "background", "lake", "lake-small1", "lake-small2")
MAML_SIZES = (1100, 100, 423)
IMAGES = 20  # per class
_ZIPS = {
    "train": "images_background.zip",
    "test": "images_evaluation.zip",
    "small1": "images_background_small1.zip",
    "small2": "images_background_small2.zip",
}
# The alphabets of the published zips; the other 30 are the background set.
_EVALUATION = (
    *("Angelic", "Atemayar_Qelisayer", "Atlantean", "Aurek-Besh", "Avesta", "Ge_ez"),
    *("Glagolitic", "Gurmukhi", "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian"),
    *("Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti", "Syriac_(Serto)", "Tengwar"),
    *("Tibetan", "ULOG"),
)
_SMALL = {
    "lake-small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "lake-small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
VALIDATION_EVERY = 5  # of every five alphabets of a Lake split, the first validates
TESTED_EVERY = 3  # of every three alphabets of the evaluation set, the first validates
RESIZE = "ink = (pixel == 0), box filter from 105x105 (Pillow)"


@image_source("omniglot", resampling="box")
def omniglot(
    *,
    split: str = "vinyals",
    image_size: int = 28,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Omniglot's 1623 characters, 20 drawings each, ink 255 on paper 0.

    Reads the TFDS set `omniglot/3.0.0`, which is prepared first if it is missing.

    Args:
      split: `vinyals`, the 1028/172/423 classes of Matching Networks and Prototypical Networks;
        `maml`, 1100/100/423 classes drawn at random; `lake`, `lake-small1` and `lake-small2`, the
        published background and evaluation alphabets, see `lake_split`; `background`, which trains
        on all of the background set, see `background_split`.
      image_size: pixels; images are downsampled from 105×105 by a box filter.
      seed: of the split `maml`.
      data_dir: the folder of prepared sets. Defaults to `TFDS_DATA_DIR`, or the default of TFDS.

    Raises:
      ValueError: the split is unknown; the prepared set is damaged; a download has the wrong
        checksum.
      OSError: a download fails, or a folder can't be read or written.

    >>> omniglot(split="lakes")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: omniglot has the splits vinyals, maml, ..., lake-small2, not 'lakes'
    """
    if split not in SPLITS:
        raise ValueError(f"omniglot has the splits {', '.join(SPLITS)}, not {split!r}")
    root = Path(data_dir).expanduser() if data_dir else tfds_folder()
    prepared = root / "omniglot" / VERSION
    if not prepared.exists():
        print(
            f"preparing omniglot in {root}; if it is already prepared in another folder, set "
            "TFDS_DATA_DIR to that folder",
            file=sys.stderr,
            flush=True,
        )
        prepare_omniglot(root)
    classes = _classes(prepared, image_size)
    if split == "maml":
        train, validation, test = split_classes(classes, MAML_SIZES, seed)
    else:
        place = {name: index for index, name in enumerate(classes.names)}
        named = {"vinyals": vinyals_split, "background": background_split}
        parts = named[split]() if split in named else lake_split(split)
        train, validation, test = (
            select(classes, [place[name] for name in part]) for part in parts
        )
    protocol = {
        "tfds": f"omniglot:{VERSION}",
        "split": split,
        "split_seed": seed if split == "maml" else None,
        "resize": RESIZE,
    }
    if split.startswith("lake"):
        protocol["validation"] = (
            f"the first of every {VALIDATION_EVERY} alphabets of the background set, in "
            "alphabetical order"
        )
    if split == "background":
        protocol["validation"] = (
            f"the first of every {TESTED_EVERY} alphabets of the evaluation set, in alphabetical "
            "order; the test has the others"
        )
    return Dataset(
        "omniglot",
        train,
        validation,
        test,
        protocol,
        rotations="as-classes",
        ink=True,
        groups={name: _alphabet(name) for name in classes.names},
        licence="MIT",
        source="https://github.com/brendenlake/omniglot",
    )


def vinyals_split() -> tuple[list[str], list[str], list[str]]:
    """The 1028, 172 and 423 names of the train, validation and test classes of `vinyals`.

    The list is from the code of Prototypical Networks (Snell et al. 2017, MIT licence), which
    follows Vinyals et al. 2016.

    >>> train, validation, test = vinyals_split()
    >>> len(train), len(validation), len(test), train[0]
    (1028, 172, 423, 'Angelic/character01')
    """
    file = importlib.resources.files("jaxmeta.data.images") / "omniglot_vinyals.json.xz"
    parts = json.loads(lzma.decompress(file.read_bytes()))
    train, validation, test = (
        [
            _name(alphabet, number - 1)
            for alphabet, numbers in parts[part].items()
            for number in numbers
        ]
        for part in ("train", "validation", "test")
    )
    return train, validation, test


def lake_split(split: str = "lake") -> tuple[list[str], list[str], list[str]]:
    """The names of the train, validation and test classes of the published sets.

    Test classes are those of the evaluation set, 659 characters of 20 alphabets. Training and
    validation share the alphabets of the background set, 964 characters of 30 alphabets, or of one
    of its two small sets of 5 alphabets: in alphabetical order, the first of every five alphabets
    is for validation. So no two parts share an alphabet.

    Args:
      split: `lake`, `lake-small1` or `lake-small2`.

    Source: Lake, Salakhutdinov, Tenenbaum 2015, "Human-level concept learning through
    probabilistic program induction".

    >>> [len(part) for part in lake_split()], [len(part) for part in lake_split("lake-small1")]
    ([785, 179, 659], [112, 24, 659])
    """
    names = sorted(itertools.chain(*vinyals_split()))
    background = sorted({*map(_alphabet, names)} - {*_EVALUATION})
    shown = _SMALL.get(split, background)
    parts = {*shown} - {*shown[::VALIDATION_EVERY]}, {*shown[::VALIDATION_EVERY]}, {*_EVALUATION}
    train, validation, test = (
        [name for name in names if _alphabet(name) in part] for part in parts
    )
    return train, validation, test


def background_split() -> tuple[list[str], list[str], list[str]]:
    """The names of the train, validation and test classes of `background`.

    All 964 characters of the background set are for training. Of the 20 alphabets of the
    evaluation set, in alphabetical order, the first of every three is for validation, the others
    for the test. So no two parts share an alphabet.

    >>> [len(part) for part in background_split()]
    [964, 217, 442]
    """
    background, validated, evaluated = lake_split()
    chosen = {*_EVALUATION[::TESTED_EVERY]}
    validation, test = (
        [name for name in evaluated if (_alphabet(name) in chosen) == is_chosen]
        for is_chosen in (True, False)
    )
    return sorted(background + validated), validation, test


def prepare_omniglot(
    data_dir: str | Path,
    *,
    source: str | None = None,
    checksums: Mapping[str, str] | None = None,
) -> Path:
    """Prepares the TFDS set `omniglot/3.0.0` from the four public zips, without TensorFlow.

    The records and their order are the same as those of the TFDS builder.

    Args:
      data_dir: the set is written to `data_dir/omniglot/3.0.0`, the zips to
        `data_dir/downloads/omniglot`.
      source: a folder, or the URL of one, that contains the zips. Defaults to the environment
        variable `JAXMETA_OMNIGLOT_SOURCE`, or the URLs of TFDS.
      checksums: sha256 of each zip by its name. Defaults to the checksums of TFDS.

    Returns:
      the folder of the prepared set.

    Raises:
      ValueError: a zip has another checksum.
      OSError: a download fails, or a folder can't be written.
    """
    with extra("data"):
        import tensorflow_datasets as tfds

    stock = cast(Any, tfds.builder_cls("omniglot"))
    urls = {info.filename: url for url, info in stock.url_infos.items()}
    expected = {info.filename: info.checksum for info in stock.url_infos.values()}
    expected |= dict(checksums or {})
    source = source or os.environ.get("JAXMETA_OMNIGLOT_SOURCE")
    if source:
        base = source if "://" in source else Path(source).expanduser().absolute().as_uri()
        urls = {file: f"{base.rstrip('/')}/{file}" for file in urls}

    root = Path(data_dir).expanduser()
    prepared, downloads = root / "omniglot" / VERSION, root / "downloads" / "omniglot"
    for folder in (prepared.parent, downloads):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(
                f"can't make {folder} ({error.strerror}); set TFDS_DATA_DIR to a folder that can "
                "be written"
            ) from error
    zips = {file: download(url, downloads / file, expected[file]) for file, url in urls.items()}

    builder = _builder_without_tensorflow(stock, zips)(data_dir=root, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except OSError:
        if not prepared.exists():  # else another process was first
            raise
    return prepared


def _builder_without_tensorflow(stock: Any, zips: Mapping[str, Path]) -> Any:
    """The TFDS builder class, with the steps that use TensorFlow (zips, folders) replaced."""

    class Omniglot(stock, skip_registration=True):  # pyright: ignore
        def _split_generators(self, dl_manager: object) -> dict[str, Iterator[Any]]:
            labels = {}
            for path in zips.values():
                for alphabet, number, label, _, _ in _drawings(path):
                    labels[label] = (alphabet, number)
            features = self.info.features
            features["alphabet"].names = sorted({alphabet for alphabet, _ in labels.values()})
            features["label"].names = [
                f"{alphabet}_{number}" for _, (alphabet, number) in sorted(labels.items())
            ]
            return {part: self._generate_examples(zips[file]) for part, file in _ZIPS.items()}

        def _generate_examples(self, directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
            for alphabet, number, label, file, image in _drawings(directory):
                features = {"image": image, "alphabet": alphabet, "label": label}
                # TFDS shuffles by this key, which must be the same to give the same order.
                yield f"{alphabet}_{number}_{file}", features | {"alphabet_char_id": number}

    return Omniglot


def _drawings(path: Path) -> Iterator[tuple[str, int, int, str, bytes]]:
    """Alphabet, character number in it, label, file name and PNG of each drawing in a zip.

    Files are named `images_background/Alphabet/character01/0709_01.png`; numbers start at 0.
    """
    for entry, png in read_archive(path, lambda entry: entry.suffix == ".png").items():
        _, alphabet, character, file = entry.parts
        number = int(character.removeprefix("character")) - 1
        label = int(file.split("_")[0]) - 1
        yield alphabet, number, label, file, png


def _classes(prepared: Path, image_size: int) -> ClassImages:
    try:
        key = fingerprint(check_prepared(prepared), image_size, RESIZE)
    except OSError as error:
        raise damaged(prepared, error) from error
    arrays = cached_arrays(f"omniglot-{key}", lambda: _decode(prepared, image_size))
    return class_images(arrays["images"], arrays["labels"], arrays["names"].tolist())


def _decode(prepared: Path, image_size: int) -> dict[str, np.ndarray]:
    with extra("data"):
        import tensorflow_datasets as tfds

    try:
        builder = cast(Any, tfds.builder_from_directory(prepared))
        described = [label.rsplit("_", 1) for label in builder.info.features["label"].names]
        names = [_name(alphabet, int(number)) for alphabet, number in described]
    except Exception as error:  # missing or broken JSON raises exceptions of many types
        raise damaged(prepared, error) from error
    order = np.argsort(names)  # classes are sorted by name, not by label
    place = np.argsort(order)

    # small1 and small2 are parts of train
    total, record = records(builder, ["train", "test"], "image")
    labels = np.empty(total, np.int32)

    def read(row: int) -> np.ndarray:
        example = record(row)
        try:
            labels[row] = place[example["label"]]
            return _ink(example["image"], image_size)
        except Exception as error:  # a broken file raises exceptions of many types
            raise damaged(prepared, f"example {row}: {error}") from error

    images = gather(read, (total, image_size, image_size, 1))
    counts = np.bincount(labels, minlength=len(names))
    if {*names} != {*itertools.chain(*vinyals_split())} or {*counts} != {IMAGES}:
        raise damaged(prepared, f"not {IMAGES} drawings of each of the 1623 characters")
    return {"images": images, "labels": labels, "names": np.array(names)[order]}


def _ink(png: bytes, size: int) -> np.ndarray:
    """Ink 255 on paper 0, uint8 `[size, size, 1]`; in the files, ink is 0 and paper is white."""
    return square(png, size, color=False, ink=True, resampling="box")


def _alphabet(name: str) -> str:
    return name.split("/")[0]


def _name(alphabet: str, number: int) -> str:
    return f"{alphabet}/character{number + 1:02d}"
