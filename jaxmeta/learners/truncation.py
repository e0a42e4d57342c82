"""Long inner problems in windows: one meta-update per window, with the state in the slot."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree, Task


class Unroll(NamedTuple):
    """An inner problem that can be unrolled in windows.

    Attributes:
      start: `start(key, meta_params, task) -> state`.
      advance: `advance(key, meta_params, task, state) -> (state, loss)`, one window.
      windows: number of windows of the whole problem.
    """

    start: Callable[[Key, PyTree, Task], PyTree]
    advance: Callable[[Key, PyTree, Task, PyTree], tuple[PyTree, Array]]
    windows: int


class Position(NamedTuple):
    """The slot of `truncated_backpropagation`.

    Attributes:
      state: state of the unroll.
      task: task of the unroll.
      window: number of completed windows.
    """

    state: PyTree
    task: Task
    window: Array


def truncated_backpropagation(learner: MetaLearner, unroll: Unroll) -> MetaLearner:
    """Truncated backpropagation: the meta-gradient of one window at a time.

        ḡ = ∇_φ L_w(φ, state_w),  state_{w+1} = advance(φ, state_w) taken as a constant

    The effect of φ on later windows is ignored, so that the gradient is biased towards short-term
    gains. Each position of the task batch continues its own unroll, and takes the meta-update's
    task when it begins a new one. As published, all unrolls begin together.

    Args:
      learner: the learner of the whole unroll; its `grad` and `slot` are replaced.
      unroll: the same inner problem in windows.

    Source: Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    section 2; Werbos 1990.
    """

    def begin(key: Key, meta_params: PyTree, task: Task) -> Position:
        return Position(unroll.start(key, meta_params, task), task, jnp.zeros((), jnp.int32))

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info, Carry]:
        start_key, advance_key = jax.random.split(key)
        position: Position = carry.slot

        def window(meta_params: PyTree) -> tuple[Array, PyTree]:
            state, loss = unroll.advance(advance_key, meta_params, position.task, position.state)
            return loss, state

        (loss, state), grads = jax.value_and_grad(window, has_aux=True)(meta_params)
        going_on = Position(jax.lax.stop_gradient(state), position.task, position.window + 1)
        anew = begin(start_key, meta_params, task)
        slot = jax.tree.map(
            lambda a, b: jnp.where(going_on.window == unroll.windows, a, b), anew, going_on
        )
        return grads, Info(loss, {}), carry._replace(slot=slot)

    return learner._replace(grad=grad, slot=begin)
