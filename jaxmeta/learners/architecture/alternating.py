"""The `grad` of a learner whose shared values are trained beside its meta-parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxmeta.core import Carry, Info, Key, PyTree, Task


# Not a NamedTuple: `jax.jit` requires a function that supports weak references; tuples do not.
@dataclass(frozen=True)
class Alternating:
    """The `grad` of a learner that changes its shared values after its meta-parameters.

        grads, info = gradient(key, φ, task, carry),  φ' = optimizer(φ, grads)
        shared = follow(key, φ', task, carry)

    `jaxmeta.training.alternating_update` does this in turn. As a plain `grad`, shared values follow
    φ instead of φ'.

    Attributes:
      gradient: `gradient(key, meta_params, task, carry) -> (grads, info)`.
      follow: `follow(key, meta_params, task, carry) -> shared`.
    """

    gradient: Callable[[Key, PyTree, Task, Carry], tuple[PyTree, Info]]
    follow: Callable[[Key, PyTree, Task, Carry], Any]

    def __call__(
        self, key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]:
        grads, info = self.gradient(key, meta_params, task, carry)
        return grads, info, carry._replace(shared=self.follow(key, meta_params, task, carry))
