"""Image sets by name: registered sets, TFDS sets, and folders."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from jaxmeta.data._episodes import Rotations
from jaxmeta.data.images.dataset import Dataset, measured
from jaxmeta.data.images.pixels import Resampling, resized

Read = TypeVar("Read", bound=Callable[..., Dataset])

_SOURCES: dict[str, Callable[..., Dataset]] = {}
_RESAMPLING: dict[str, Resampling] = {}
_PACKAGE = "jaxmeta.data.images"
_OF_PATHS = (".", "~", os.sep)  # how a path begins


def image_source(name: str, *, resampling: Resampling = "bilinear") -> Callable[[Read], Read]:
    """Registers a function that reads an image set under a name for `load`.

    The function takes keyword arguments and returns a `Dataset`. It takes those of `split`,
    `image_size`, `color` and `seed` that can be chosen for this set, with its own defaults; `load`
    rejects the others. The fields of `Dataset` describe the set.

    A built-in set is the file `jaxmeta/data/images/NAME.py`, which `load(NAME)` imports. A function
    elsewhere is registered when its module is imported.

    Args:
      name: lower-case letters, digits, `_` and `-`, beginning with a letter.
      resampling: the filter by which the set is resized to `image_size`. A user's own images are
        resized by the same one, see `resampling_of`.

    Raises:
      ValueError: the name has another form, or belongs to another function.

    >>> import numpy as np
    >>> from jaxmeta.data import Dataset, class_images
    >>> @image_source("stripes")
    ... def stripes(*, image_size: int = 8, seed: int = 0) -> Dataset:
    ...     images = np.random.default_rng(seed).integers(0, 2, (6, image_size, 1, 1), np.uint8)
    ...     images = np.broadcast_to(255 * images, (6, image_size, image_size, 1))
    ...     part = class_images(images, np.arange(6) % 2, ("a", "b"))
    ...     return Dataset("stripes", part, part, part, {"split": "all classes in every part"})
    >>> load("stripes", image_size=4).train.images.shape
    (6, 4, 4, 1)
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ValueError(
            f"image_source: {name!r} can't be the name of a set; use lower-case letters, digits, "
            "_ and -, and begin with a letter"
        )

    def register(read: Read) -> Read:
        other = _find(name)
        if other is not None and _identity(other) != _identity(read):
            raise ValueError(
                f"image_source: {name!r} is already the name of {'.'.join(_identity(other))}; "
                "choose another"
            )
        _SOURCES[name] = read
        _RESAMPLING[name] = resampling
        return read

    return register


def resampling_of(name: str) -> Resampling:
    """The filter by which the images of a set are resized, to resize other images likewise.

    Folders and TFDS sets are resized bilinearly, as are sets that don't declare a filter.

    >>> resampling_of("omniglot"), resampling_of("./omniglot")
    ('box', 'bilinear')
    """
    return _RESAMPLING[name] if _find(name) else "bilinear"


def load(
    name: str | os.PathLike[str],
    *,
    split: str | None = None,
    rotations: Rotations | None = None,
    image_size: int | None = None,
    color: bool | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads an image set as uint8 arrays sorted by class, ready for `episodes`.

    A name must match exactly. It is looked up as a registered set; as the path of a folder, if it
    begins with `.`, `~` or `/`; as a TFDS set; as the path of a folder. So `omniglot` is always the
    set, and `./omniglot` or `pathlib.Path("omniglot")` the folder.

    Args:
      name: `glyphs`, `omniglot`, `grocery`, `miniimagenet`, `mednist`, `cifar10`, or another name
        registered with `image_source`; the path of a MedMNIST file `*.npz` (see `medmnist`), or of
        a folder `FOLDER/class/*.png` (see `folder`), one of which a `Path` always is; any prepared
        image-classification set of TFDS, under its TFDS name (`cifar100`, `emnist/byclass`,
        `cifar100:3.0.2`).
      split: `vinyals`, `maml`, `background`, `lake`, `lake-small1` or `lake-small2` for omniglot,
        `ravi` or `vinyals` for miniimagenet; numbers of training, validation and test classes,
        such as `50/11/20`, for other sets but glyphs. Defaults to the set's own split, or to
        64/16/20 % for folders and TFDS sets. By default all classes of mednist, cifar10 and
        MedMNIST files are in all parts, with different images.
      rotations: how `episodes` should rotate the images. Defaults to the set's own value,
        `as-classes` for omniglot and `none` for the other built-in sets.
      image_size: pixels, the side of the images. Defaults to 28 for glyphs and omniglot, 84 for
        grocery, miniimagenet and folders, and the set's own size up to 84 for other sets.
      color: three channels or one; not available for glyphs and omniglot. Defaults to the
        channels of the images.
      seed: of a random split, and of the distortions of glyphs.

    Raises:
      ValueError: the name is unknown (the message gives the nearest), the set doesn't take an
        argument, or data are damaged.
      OSError: files are missing, or can't be read or written.

    >>> letters = load("glyphs")
    >>> letters.protocol["image_size"], letters.train.images.shape[1:]
    (28, (28, 28, 1))
    """
    if isinstance(name, os.PathLike):
        name = os.path.join(os.curdir, name)
    if image_size is not None and image_size < 1:
        raise ValueError(f"an image size of {image_size} pixels; give 1 or more")
    if rotations is not None and rotations not in get_args(Rotations):
        raise ValueError(
            f"unknown rotations {rotations!r}; choose from {', '.join(get_args(Rotations))}"
        )
    options = {"split": split, "image_size": image_size, "color": color}
    options = {option: value for option, value in options.items() if value is not None}
    dataset = _read(name, seed, options)
    rotations = rotations or dataset.rotations
    protocol = {
        "dataset": name,
        "rotations": rotations,
        "ink": dataset.ink,
        "image_size": dataset.train.images.shape[1],
        "channels": dataset.channels,
        **measured(dataset.parts),
    }
    return dataset._replace(name=name, rotations=rotations, protocol=protocol | dataset.protocol)


def load_as(
    name: str, *, image_size: int, channels: int, split: str | None = None, seed: int = 0
) -> Dataset:
    """Loads a set with images of a given size and number of channels, whatever options it takes.

    The set reads its images at this size and number of channels if it can; otherwise its images
    are converted by `resized`.

    Args:
      name, split, seed: as in `load`.
      image_size: pixels, the side of the images.
      channels: 1 or 3.

    Raises:
      as `load`.

    >>> load_as("glyphs", image_size=28, channels=3).test.images.shape[1:]
    (28, 28, 3)
    """
    color = channels == 3
    found = _find(name)
    wanted = {"image_size": image_size, "color": color}
    if found is not None:
        taken = inspect.signature(found).parameters
        wanted = {option: value for option, value in wanted.items() if option in taken}
    dataset = load(name, split=split, seed=seed, **wanted)
    parts = {
        part: own._replace(images=resized(own.images, image_size, color))
        for part, own in dataset.parts.items()
    }
    protocol = {"image_size": image_size, "channels": channels, **measured(parts)}
    return dataset._replace(**parts, protocol=dataset.protocol | protocol)


def _read(name: str, seed: int, options: dict[str, Any]) -> Dataset:
    found = _find(name)
    if found is not None:
        taken = inspect.signature(found).parameters
        for option, value in options.items():
            if option not in taken:
                raise ValueError(f"{name} does not support {option} {value!r}; leave {option} out")
        dataset = found(**({"seed": seed} if "seed" in taken else {}), **options)
        return dataset._replace(origin=name)
    if name.lower().endswith(".npz") and not os.path.isdir(name):
        from jaxmeta.data.images.medmnist import medmnist

        return medmnist(name, seed=seed, **options)._replace(origin=_origin("file", name))
    if name.startswith(_OF_PATHS):
        return _read_folder(name, seed, options)
    # A TFDS name takes precedence over a folder of the same name.
    from jaxmeta.data.images import tfds_images

    sets = _names()
    known = [*sets, *tfds_images.known_names()]
    base = re.split("[/:]", name)[0]
    if base not in sets and tfds_images.is_known(name):
        dataset = tfds_images.tfds_images(name, seed=seed, **options)
        # Without the version: all versions have the same classes.
        return dataset._replace(origin=dataset.protocol["tfds"].rpartition("/")[0])
    if not os.path.isdir(name):
        near = _nearest(name, known)
        hint = f"nearest: {near}" if near else f"the sets of jaxmeta are {', '.join(sets)}"
        raise ValueError(
            f"unknown dataset {name!r}: neither the exact name of a set of jaxmeta or TFDS, nor a "
            f"folder; {hint}"
        )
    if base in known or _plain(name) in map(_plain, known):
        raise ValueError(
            f"unknown dataset {name!r}; give {_nearest(name, known)} for the set, or "
            f"{os.path.join(os.curdir, name)!r} for the folder"
        )
    return _read_folder(name, seed, options)


def _read_folder(name: str, seed: int, options: dict[str, Any]) -> Dataset:
    from jaxmeta.data.images.folder import folder

    return folder(name, seed=seed, **options)._replace(origin=_origin("folder", name))


def _origin(kind: str, name: str) -> str:
    """A digest of a path, since results, which may be published, shouldn't contain the path."""
    place = os.fsencode(os.path.realpath(os.path.expanduser(name)))
    return f"{kind} {hashlib.sha256(place).hexdigest()[:16]}"


def _find(name: str) -> Callable[..., Dataset] | None:
    """The function registered under a name, after importing the file of that name, if any."""
    if name not in _SOURCES and re.fullmatch("[a-z][a-z0-9_]*", name):
        module = f"{_PACKAGE}.{name}"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    return _SOURCES.get(name)


def _names() -> list[str]:
    """The names of all registered sets, including all sets of this package."""
    for module in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        importlib.import_module(f"{_PACKAGE}.{module.name}")
    return sorted(_SOURCES)


def _nearest(name: str, known: list[str]) -> str:
    plain = {_plain(each): each for each in reversed(known)}
    base = _plain(re.split("[/:]", name)[0])
    found = difflib.get_close_matches(name, known) or [
        plain[each] for each in difflib.get_close_matches(base, plain)
    ]
    return " or ".join(dict.fromkeys(found))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _identity(read: Callable[..., Any]) -> tuple[str, str]:
    return read.__module__, read.__qualname__
