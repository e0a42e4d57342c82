"""Image-classification sets of TensorFlow Datasets, read without TensorFlow."""

import difflib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint, in_home
from jaxmeta.data.classes import class_images, split_classes, split_sizes
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import RESIZE, SIZE, gather, square
from jaxmeta.data.reading import regular
from jaxmeta.extras import extra
from jaxmeta.files import shown

_PARTS = ("train", "validation", "test")  # other splits of a set often repeat parts of these
# TFDS itself accepts more: Cifar100 for cifar100, and the names of community sets.
_NAME = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(/(?P<config>\w[\w+.-]*))?(:(?P<version>\d+\.\d+\.\d+))?",
    re.ASCII,
)


def tfds_folder() -> Path:
    """The folder of prepared sets: `TFDS_DATA_DIR`, or `~/tensorflow_datasets` by default."""
    return in_home(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "TFDS_DATA_DIR")


def tfds_images(
    name: str,
    *,
    split: str | None = None,
    image_size: int | None = None,
    color: bool | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """A prepared image-classification set of TFDS, its splits merged and its classes split anew.

    TFDS splits examples, meta-learning splits classes: `train`, `validation` and `test` (or all
    splits, if none has such a name) are merged, examples without a label are left out, and the
    classes are split at random by `seed`.

    Args:
      name: the exact TFDS name: `cifar100`, `emnist/byclass`, `cifar100:3.0.2`.
      split: numbers of training, validation and test classes, such as `64/16/20`. Defaults to
        64/16/20 %.
      image_size: pixels, the side that every image's centre square is resized to. Defaults to
        the set's own size up to 84, and to 84 if images are not square or vary in size.
      color: three channels or one. Defaults to the channels that the set declares.
      seed: of the split.
      data_dir: the folder of prepared sets. Defaults to `tfds_folder()`.

    Raises:
      FileNotFoundError: the set is not prepared.
      ValueError: the set is unknown to TFDS, has no images with class labels, is not prepared as
        `array_record`, or is damaged; the split doesn't fit.

    >>> tfds_images("omniglott")
    Traceback (most recent call last):
    ...
    ValueError: TFDS has no set of the exact name 'omniglott'; nearest: omniglot
    """
    root = Path(data_dir).expanduser() if data_dir else tfds_folder()
    builder = _builder(name, root)
    info = builder.info
    image_key, label_key = _keys(name, info)
    prepared = Path(builder.data_dir)
    if not prepared.exists():
        raise FileNotFoundError(
            f"{name} is not prepared in {root}; where TensorFlow is installed, run: "
            f"tfds build {name} --file_format=array_record --data_dir={root}"
        )
    height, width, depth = info.features[image_key].shape
    size = image_size or (min(height, SIZE) if height and height == width else SIZE)
    channels = 3 if (depth != 1 if color is None else color) else 1

    def decode() -> dict[str, np.ndarray]:
        parts = [part for part in _PARTS if part in info.splits] or sorted(info.splits)
        total, record = records(builder, parts, image_key)
        labels = np.empty(total, np.int32)

        def read(row: int) -> np.ndarray:
            example = record(row)
            try:  # in a truncated file, some examples are read as empty
                labels[row] = example[label_key]
                return square(example[image_key], size, channels == 3)
            except (ValueError, TypeError) as error:
                raise damaged(prepared, f"example {row}: {error}") from error

        images = gather(read, (total, size, size, channels))
        return {"images": images[labels >= 0], "labels": labels[labels >= 0]}

    key = fingerprint(check_prepared(prepared), size, channels, RESIZE)
    arrays = cached_arrays(f"{info.name}-{key}", decode)
    classes = class_images(arrays["images"], arrays["labels"], info.features[label_key].names)
    try:
        sizes = split_sizes(split, len(classes.names))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    protocol = {
        "tfds": info.full_name,
        "split": "/".join(map(str, sizes)),
        "split_seed": seed,
        "resize": RESIZE,
    }
    licence = info.redistribution_info and info.redistribution_info.license
    return Dataset(
        name,
        *split_classes(classes, sizes, seed),
        protocol,
        licence=licence or None,
        source=info.homepage or None,
    )


def records(
    builder: Any, parts: list[str], image_key: str
) -> tuple[int, Callable[[int], dict[str, Any]]]:
    """The number of examples of a prepared set, and a function to read one, its image undecoded.

    TFDS decodes images with OpenCV if it is installed and with Pillow otherwise, and the two
    differ: 1-bit images are 0 and 255 with one, 0 and 1 with the other.

    Raises:
      ValueError: the set is not prepared as `array_record`, or is damaged.
    """
    with extra("data"):
        import tensorflow_datasets as tfds

    decoders = {image_key: tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split="+".join(parts), decoders=decoders)
    except NotImplementedError:
        raise ValueError(
            f"{builder.data_dir} can't be read without TensorFlow; remove the folder and prepare "
            "it with --file_format=array_record"
        ) from None
    except Exception as error:
        raise damaged(builder.data_dir, error) from error

    def record(row: int) -> dict[str, Any]:
        try:
            return source[row]
        except Exception as error:  # RuntimeError and others, from a C++ library
            raise damaged(builder.data_dir, error) from error

    return len(source), record


def check_prepared(folder: Path) -> list[Path]:
    """The files of a prepared set, after checking that reading them runs no foreign code.

    TFDS imports the module of every class that `features.json` names. Only the features of TFDS
    itself are accepted; any other class is rejected before it is imported.

    Raises:
      OSError: the folder can't be read.
      ValueError: a feature is not one of TFDS, an entry is not a regular file, or the JSON is
        damaged.
    """
    with extra("data"):
        import tensorflow_datasets as tfds

    files = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    for path in files:
        regular(path)
    own = {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in vars(tfds.features).values()
        if isinstance(kind, type)
    }
    described = folder / "features.json"
    if described in files:
        try:
            named = _classes_named(json.loads(described.read_bytes()))
        except (ValueError, RecursionError) as error:
            raise damaged(folder, f"features.json: {error}") from error
        for name in named:
            if name not in own:
                raise ValueError(
                    f"{shown(described)} names the class {shown(name)}, which is not a feature of "
                    "TFDS and was not imported; remove the folder, or prepare it again from a "
                    "source that you trust"
                )
    return files


def _classes_named(described: Any) -> list[Any]:
    """All values, at any depth, that TFDS would read as the name of a class."""
    if isinstance(described, list):
        return [name for entry in described for name in _classes_named(entry)]
    if not isinstance(described, dict):
        return []
    # Both spellings of protocol buffers; `type` was used by earlier versions of TFDS.
    keys = ("pythonClassName", "python_class_name", "type")
    found = [described[key] for key in keys if isinstance(described.get(key), str)]
    within = list(described.values())
    if isinstance(described.get("content"), str):  # earlier versions nested JSON within JSON
        within.append(json.loads(described["content"]))
    return found + [name for entry in within for name in _classes_named(entry)]


def damaged(folder: Any, error: object) -> ValueError:
    """The error for a prepared set that can't be read."""
    return ValueError(
        f"the prepared set {folder} can't be read ({_one_line(error)}); remove the folder and "
        "prepare it again"
    )


def is_known(name: str, data_dir: Path | None = None) -> bool:
    """Whether TFDS has a set of exactly this name, or one is prepared under it."""
    spelt = _NAME.fullmatch(name)
    if spelt is None:
        return False
    folder = (data_dir or tfds_folder()) / spelt["name"]
    # The second pattern is for sets with configurations.
    prepared = [*folder.glob("*/dataset_info.json"), *folder.glob("*/*/dataset_info.json")]
    return bool(prepared) or spelt["name"] in known_names()


def known_names() -> list[str]:
    """The sets that come with TFDS."""
    with extra("data"):
        import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _builder(name: str, root: Path) -> Any:
    with extra("data"):
        import tensorflow_datasets as tfds

    spelt = _NAME.fullmatch(name)
    if spelt is None or not is_known(name, root):
        nearest = difflib.get_close_matches(name, known_names())
        raise ValueError(
            f"TFDS has no set of the exact name {name!r}"
            f"{'; nearest: ' if nearest else ''}{', '.join(nearest)}"
        )
    folder = root / spelt["name"]
    for described in (*folder.glob("*/features.json"), *folder.glob("*/*/features.json")):
        check_prepared(described.parent)
    try:
        builder = tfds.builder(name, data_dir=root)
    except Exception as error:  # an unknown configuration or version
        raise ValueError(f"TFDS can't open {name!r}: {_one_line(error)}") from error
    config = builder.builder_config.name if builder.builder_config else None
    opened = {"name": builder.name, "config": config, "version": str(builder.version)}
    for part, value in spelt.groupdict().items():
        if value is not None and value != opened[part]:
            raise ValueError(f"TFDS opens {opened[part]!r} for the {part} {value!r} of {name!r}")
    return builder


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of a set's image and of its class label."""
    with extra("data"):
        import tensorflow_datasets as tfds

    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    keys = info.supervised_keys
    image, label = keys if keys and len(keys) == 2 else ("image", "label")
    has_image = isinstance(features.get(image), tfds.features.Image)
    has_label = isinstance(features.get(label), tfds.features.ClassLabel)
    if not (has_image and has_label):
        found = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items())
        raise ValueError(f"{name} is not a set of images with one class label each; it has {found}")
    return image, label


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
