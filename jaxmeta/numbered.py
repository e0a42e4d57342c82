"""Support sets that carry the number of their task, for learners with parameters per task."""

from typing import NamedTuple

from jaxmeta.core import Array, Batch


class Numbered(NamedTuple):
    """A support set with the number of its task; `jaxmeta.data.numbered` draws them.

    Attributes:
      number: int32 scalar, the number of the task.
      examples: the support set.
    """

    number: Array
    examples: Batch
