"""Identification of classes or pools of examples, so that no class seen in training is tested."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_PARTS = ("train", "validation")
_KEPT = 16  # digests per class


class Classes(NamedTuple):
    """What identifies classes, or pools of examples such as users or assays.

    Attributes:
      source: identifies the data set; classes of the same source and name are the same class.
      examples: digests of the examples of each class, by its name.
    """

    source: str
    examples: Mapping[str, frozenset[str]]


class Seen(NamedTuple):
    """The data that a run was trained and validated on.

    Attributes:
      data: the digest of all its data, including test data.
      classes: its training classes and its validation classes.
    """

    data: str
    classes: tuple[Classes, ...]


NOTHING = Seen("", ())  # before training


def classes_by(source: str, groups: Mapping[str, Iterable[Any]]) -> Classes:
    """The classes of a source, from the examples of each class: arrays of any shapes.

    >>> photographs = {"apple": np.zeros((2, 4, 4, 1)), "pear": np.ones((3, 4, 4, 1))}
    >>> fruit = classes_by("market", photographs)
    >>> fruit.source, len(fruit.examples["apple"])  # equal examples count once
    ('market', 1)
    """
    return Classes(
        source, {name: frozenset(map(_digest, examples)) for name, examples in groups.items()}
    )


def names_seen(tested: Classes, seen: Iterable[Classes]) -> list[str]:
    """The names of the tested classes that were seen before: those with the source and name of a
    seen class, and those that share an example with one.

    >>> market = classes_by("market", {"apple": np.zeros((2, 3)), "pear": np.ones((2, 3))})
    >>> copied = classes_by("copy", {"pomme": np.zeros((1, 3)), "pear": np.full((2, 3), 7.0)})
    >>> names_seen(copied, [market])
    ['pomme']
    """
    seen = list(seen)
    names = {name for own in seen if own.source == tested.source for name in own.examples}
    examples = frozenset().union(*(group for own in seen for group in own.examples.values()))
    return [
        name
        for name, own in tested.examples.items()
        if name in names or not own.isdisjoint(examples)
    ]


def seen_to_json(seen: Seen) -> dict[str, Any]:
    """A dictionary for `seen_from_json`, with the 16 smallest digests of each class.

    These are enough to recognise a class, even if some examples were added or removed.
    """

    def kept(classes: Classes) -> dict[str, str]:
        return {name: " ".join(sorted(own)[:_KEPT]) for name, own in classes.examples.items()}

    parts = [{"source": own.source, "classes": kept(own)} for own in seen.classes]
    return {"data": seen.data, **dict(zip(_PARTS, parts, strict=True))}


def seen_from_json(fields: Any) -> Seen:
    """The inverse of `seen_to_json`.

    Raises:
      ValueError: the fields have another form.
    """
    try:
        data, *parts = (fields[name] for name in ("data", *_PARTS))
        classes = tuple(
            Classes(
                str(part["source"]),
                {name: frozenset(own.split()) for name, own in part["classes"].items()},
            )
            for part in parts
        )
        return Seen(str(data), classes)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it does not contain the classes of a run") from error


def listed_names(names: Sequence[str]) -> str:
    """The first three of some names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _digest(example: Any) -> str:
    array = np.ascontiguousarray(example)
    found = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=8)
    found.update(array.tobytes())
    return found.hexdigest()
