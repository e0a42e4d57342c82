"""The meta-update: sample tasks, average their meta-gradients, take one step of optax."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree, Task

Sample = Callable[
    [Key], Task
]  # pure; a `jax.tree_util.Partial`, so that jit takes it as an argument


class TrainState(NamedTuple):
    """All that a training run carries from step to step, and all that a checkpoint holds.

    Attributes:
      step: int32 scalar, meta-updates done.
      key: typed PRNG key of the run, never changed: step t uses `fold_in(key, t)`.
      meta_params: the learner's meta-parameters.
      optimizer_state: of the outer optimizer.
      shared: see `jaxmeta.Carry`.
      slots: one slot per task of the batch, stacked; see `jaxmeta.Carry`.
    """

    step: Array
    key: Key
    meta_params: PyTree
    optimizer_state: PyTree
    shared: PyTree = ()
    slots: PyTree = ()


class MetaUpdate(NamedTuple):
    """How to train a learner.

    Attributes:
      init: `init(key, sample) -> TrainState`.
      update: `update(state, sample) -> (state, info)`, one meta-update; `info` is the mean
        over the task batch.
    """

    init: Callable[[Key, Sample], TrainState]
    update: Callable[[TrainState, Sample], tuple[TrainState, Info]]


def meta_update(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    task_batch: int,
    tasks_at_once: int | None = None,
) -> MetaUpdate:
    """The training step that serves every learner.

        φ ← optimizer(φ, 1/T Σ_t grad(φ; task_t)),  task_t = sample(key_t)

    Args:
      learner: whose `grad` is averaged.
      optimizer: the outer optimizer.
      task_batch: T, tasks of a meta-update.
      tasks_at_once: how many of them `vmap` takes together; the others wait their turn. The
        same mean gradient (to rounding) in less memory. None stands for all.

    Raises:
      ValueError: `task_batch` or `tasks_at_once` is not positive, or the first is no
        multiple of the second.

    >>> import jaxmeta
    >>> from jaxmeta.data import sinusoids
    >>> from jaxmeta.learners import maml
    >>> from jaxmeta.models import mlp
    >>> learner = maml(mlp((8,), 1), jaxmeta.squared_error, optax.sgd(0.01), steps=1)
    >>> init, update = meta_update(learner, optax.adam(1e-3), task_batch=4)
    >>> sample = sinusoids(shots=5, queries=5)
    >>> state, info = update(init(jax.random.key(0), sample), sample)
    >>> int(state.step)
    1
    """
    at_once = task_batch if tasks_at_once is None else tasks_at_once
    if task_batch < 1 or at_once < 1:
        raise ValueError(f"task batch {task_batch}, tasks at once {at_once}: give at least 1 each.")
    if task_batch % at_once:
        raise ValueError(
            f"a task batch of {task_batch} cannot be mapped {at_once} at a time; "
            f"give a number that divides {task_batch}."
        )

    def init(key: Key, sample: Sample) -> TrainState:
        init_key, task_key, run_key = jax.random.split(key, 3)
        meta_params = learner.init(init_key, sample(task_key))
        return TrainState(
            jnp.zeros((), jnp.int32), run_key, meta_params, optimizer.init(meta_params)
        )

    def of_one_task(state: TrainState, sample: Sample, key: Key, slot: PyTree) -> Any:
        sample_key, learn_key = jax.random.split(key)
        carry = Carry(state.step, state.shared, slot)
        return learner.grad(learn_key, state.meta_params, sample(sample_key), carry)

    def update(state: TrainState, sample: Sample) -> tuple[TrainState, Info]:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), task_batch)
        mapped = jax.vmap(partial(of_one_task, state, sample))
        groups = jax.tree.map(
            lambda leaf: leaf.reshape(task_batch // at_once, at_once, *leaf.shape[1:]),
            (keys, state.slots),
        )

        def add_group(total: PyTree, group: tuple[Key, PyTree]) -> tuple[PyTree, PyTree]:
            grads, info, slots = mapped(*group)
            summed = jax.tree.map(lambda leaf: leaf.sum(axis=0), (grads, info))
            return jax.tree.map(jnp.add, total, summed), slots

        first = jax.tree.map(lambda leaf: leaf[0], groups)
        shapes = jax.eval_shape(mapped, *first)[:2]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shapes)
        (grads, info), slots = jax.lax.scan(add_group, zeros, groups)
        grads, info = jax.tree.map(lambda leaf: leaf / task_batch, (grads, info))
        slots = jax.tree.map(lambda leaf: leaf.reshape(task_batch, *leaf.shape[2:]), slots)

        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.meta_params)
        meta_params = optax.apply_updates(state.meta_params, updates)
        return (
            state._replace(
                step=state.step + 1,
                meta_params=meta_params,
                optimizer_state=optimizer_state,
                slots=slots,
            ),
            info,
        )

    return MetaUpdate(init, update)


def chunk_of(update: Callable[[TrainState, Sample], tuple[TrainState, Info]]) -> Callable[..., Any]:
    """`chunk(state, sample, length) -> (state, infos)`: `length` updates as one compiled scan.

    The state is donated: its buffers are used again, and the one passed in is gone.
    """

    @partial(jax.jit, static_argnames="length", donate_argnames="state")
    def chunk(state: TrainState, sample: Sample, length: int) -> tuple[TrainState, Info]:
        return jax.lax.scan(lambda state, _: update(state, sample), state, length=length)

    return chunk
