"""The vocabulary of architecture search: spaces of choices, and NAS-Bench-201's cells."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from jax.typing import ArrayLike

from jaxmeta.core import Array, Key, PyTree

CELL_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The operations of an edge, in the order of NAS-Bench-201."""
CELL_EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""The edges of a cell, (to, from), in the order in which NAS-Bench-201 writes them."""


def cell_text(architecture: Iterable[int]) -> str:
    """The cell as NAS-Bench-201 writes it.

    >>> cell_text([1, 3, 3, 1, 0, 2])
    '|skip_connect~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|'
    """
    rows: list[list[str]] = [[], [], []]
    for (to, start), index in zip(CELL_EDGES, architecture):
        rows[to - 1].append(f"{CELL_OPERATIONS[index]}~{start}")
    return "+".join(f"|{'|'.join(row)}|" for row in rows)


class Accuracy(Protocol):
    """`accuracy(key, architecture, task) -> float scalar`, the figure that a search maximises.

    The architecture is int32 `[decisions]`; the task holds the examples that its network is trained
    and validated on, where networks are trained.
    """

    def __call__(self, key: Key, architecture: Array, task: PyTree, /) -> Array: ...


class SearchSpace(NamedTuple):
    """A space of architectures: one of the same options for each of a few decisions.

    An architecture is int32 `[decisions]`, the index of an option for each decision.

    Attributes:
      decisions: number of decisions.
      options: the names of the options.
      allowed: bool array `[options + 1, options]`, the options that may follow the option of the
        decision before, and in the last row those of the first decision.
      accuracy: `accuracy(key, architecture, task)`, see `Accuracy`.
    """

    decisions: int
    options: tuple[str, ...]
    allowed: ArrayLike
    accuracy: Accuracy
