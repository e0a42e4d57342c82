"""Image-classification sets of TensorFlow Datasets, read without TensorFlow."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.cache import cached_arrays, fingerprint
from jaxmeta.data.classes import class_images, split_classes, split_sizes
from jaxmeta.data.pixels import RESIZE, SIZE, gather, square
from jaxmeta.data.sources import Dataset

PARTS = ("train", "validation", "test")  # of a set; its other splits often repeat parts of these


def tfds_folder() -> Path:
    """Where prepared sets lie: `TFDS_DATA_DIR`, else TFDS' own `~/tensorflow_datasets`."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def tfds_images(
    name: str,
    *,
    split: str | None = None,
    image_size: int | None = None,
    color: bool | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """A prepared image-classification set of TFDS: its splits merged, its classes split anew.

    TFDS splits examples, meta-learning splits classes: `train`, `validation` and `test` (all
    splits, where none is called so) are put together, examples without a label left out, and
    the classes dealt to three parts by `seed`.

    Args:
      name: as TFDS has it: `cifar100`, `emnist/byclass`, `cifar100:3.0.2`.
      split: classes to train, validate and test on, such as `64/16/20`; None is 64/16/20 %.
      image_size: pixels, the side that every image's centre square is resized to; None is the
        set's own up to 84, and 84 where sizes vary.
      color: three channels or one; None is as the set declares.
      seed: of the split.
      data_dir: where prepared sets lie; None is `tfds_folder()`.

    Raises:
      FileNotFoundError: not prepared.
      ValueError: unknown to TFDS; no images with class labels; not prepared as `array_record`;
        damaged; a split that doesn't fit.

    >>> tfds_images("omniglott")
    Traceback (most recent call last):
    ...
    ValueError: unknown dataset 'omniglott': neither a folder nor a set of TFDS; nearest: omniglot
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
        parts = [part for part in PARTS if part in info.splits] or sorted(info.splits)
        total, record = records(builder, parts, image_key)
        labels = np.empty(total, np.int32)

        def read(row: int) -> np.ndarray:
            example = record(row)
            try:  # of a file cut off, some examples are read as empty
                labels[row] = example[label_key]
                return square(example[image_key], size, channels == 3)
            except (ValueError, TypeError) as error:
                raise damaged(prepared, f"example {row}: {error}") from error

        images = gather(read, (total, size, size, channels))
        return {"images": images[labels >= 0], "labels": labels[labels >= 0]}

    key = fingerprint(sorted(prepared.iterdir()), size, channels, RESIZE)
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
    return Dataset(name, *split_classes(classes, sizes, seed), protocol)


def records(
    builder: Any, parts: list[str], image_key: str
) -> tuple[int, Callable[[int], dict[str, Any]]]:
    """How many examples a prepared set has, and a function to read one, its image undecoded.

    Images are left as bytes because TFDS decodes by OpenCV where that is installed, by Pillow
    otherwise, and the two differ: 1-bit images are 0 and 255 in the one, 0 and 1 in the other.

    Raises:
      ValueError: not prepared as `array_record`, or damaged.
    """
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
        except Exception as error:  # RuntimeError and others, of a library in C++
            raise damaged(builder.data_dir, error) from error

    return len(source), record


def damaged(folder: Any, error: object) -> ValueError:
    """The error of a prepared set that can't be read."""
    return ValueError(
        f"the prepared set {folder} can't be read ({_one_line(error)}); remove the folder and "
        "prepare it again"
    )


def _builder(name: str, root: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        known = ["glyphs", *tfds.list_builders(with_community_datasets=False)]
        matches = difflib.get_close_matches(name, known)
        raise ValueError(
            f"unknown dataset {name!r}: neither a folder nor a set of TFDS; nearest: "
            f"{', '.join(matches or ['glyphs', 'omniglot'])}"
        ) from None
    except Exception as error:  # a malformed name, an unknown configuration or version
        raise ValueError(f"TFDS can't open {name!r}: {_one_line(error)}") from error


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of a set's image and of its class label."""
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
