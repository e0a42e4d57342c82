"""The vocabulary of architecture search: spaces of choices."""

from typing import NamedTuple, Protocol

from jax.typing import ArrayLike

from jaxmeta.core import Array, Key, PyTree


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
