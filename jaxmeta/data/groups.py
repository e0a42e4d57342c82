"""Groups of classes, such as alphabets, from which tasks within a group are drawn."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.classes import ClassImages

_NAMED = 10  # groups that an error lists, the largest first


class Groups(NamedTuple):
    """The classes of each group that is large enough for a task.

    Attributes:
      members: int32 `[classes]`, the indices of the classes, sorted by group; an array of NumPy or
        JAX, as the others.
      starts: int32 `[groups]`, the position in `members` of the first class of each group.
      counts: int32 `[groups]`, the number of classes of each group.
    """

    members: Any
    starts: Any
    counts: Any


def group_sizes(classes: ClassImages, groups: Mapping[str, str], turns: int = 1) -> dict[str, int]:
    """The number of classes of each group, the largest group first.

    Args:
      classes: the classes of a split.
      groups: the group of each class by class name, see `jaxmeta.data.Dataset`.
      turns: the number of classes that one class becomes with its rotations, which belong to its
        group.

    Raises:
      ValueError: a class has no group.

    >>> from jaxmeta.data.classes import class_images
    >>> three = class_images(np.zeros((3, 1, 1, 1), np.uint8), np.arange(3), ("a", "b", "c"))
    >>> group_sizes(three, {"a": "second", "b": "first", "c": "first"})
    {'first': 2, 'second': 1}
    """
    sizes: dict[str, int] = {}
    for name in classes.names:
        if name not in groups:
            raise ValueError(
                f"the class {name!r} has no group; give groups an entry for every class"
            )
        sizes[groups[name]] = sizes.get(groups[name], 0) + turns
    return dict(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])))


def large_groups(
    classes: ClassImages, groups: Mapping[str, str], ways: int, turns: int = 1
) -> Groups:
    """The groups with at least `ways` classes, sorted by name; smaller ones are left out.

    Args:
      ways: classes per task.
      classes, groups, turns: see `group_sizes`.

    Raises:
      ValueError: a class has no group; no group is large enough, with the sizes of the groups.

    >>> from jaxmeta.data.classes import class_images
    >>> five = class_images(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5), tuple("abcde"))
    >>> groups = {"a": "latin", "b": "greek", "c": "latin", "d": "runes", "e": "greek"}
    >>> found = large_groups(five, groups, ways=2)
    >>> found.members.tolist(), found.starts.tolist(), found.counts.tolist()
    ([1, 4, 0, 2], [0, 2], [2, 2])
    """
    sizes = group_sizes(classes, groups, turns)
    large = sorted(name for name, size in sizes.items() if size >= ways)
    if not large:
        named = ", ".join(f"{name} {size}" for name, size in [*sizes.items()][:_NAMED])
        rest = f", and {len(sizes) - _NAMED} with fewer" if len(sizes) > _NAMED else ""
        raise ValueError(
            f"{ways}-way tasks within a group require a group of {ways} classes, but the groups "
            f"of this split have fewer{' with their rotations' if turns > 1 else ''} ({named}"
            f"{rest}): lower the ways to {max(sizes.values())} at most, or draw tasks from all "
            "classes"
        )
    of_group: dict[str, list[int]] = {name: [] for name in large}
    for index, name in enumerate(classes.names):
        if groups[name] in of_group:
            of_group[groups[name]].append(index)
    counts = np.array([*map(len, of_group.values())], np.int32)
    return Groups(
        np.concatenate([*of_group.values()]).astype(np.int32),
        (np.cumsum(counts) - counts).astype(np.int32),
        counts,
    )
