"""The mean over the tasks of one device: of gradients, infos, and changes of shared values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmeta.core import Array, Carry, GradientOf, Info, Key, MetaLearner, PyTree, Task
from jaxmeta.training.aggregation import Aggregate, mean
from jaxmeta.training.parallel import (
    OverTasks,
    averaged_over_devices,
    check_apart,
    check_divides,
    size_of,
    vary,
)
from jaxmeta.training.state import Sample, TrainState, draw


def mean_over_batch(
    learner: MetaLearner,
    task_batch: int,
    tasks_at_once: int | None = None,
    *,
    aggregate: Aggregate = mean,
    mesh: Mesh | None = None,
) -> Callable[..., tuple[PyTree, PyTree]]:
    """`mean(state, sample, keys, given, slots) -> ((grads, info, change), (slots, each))`.

    The mean of `mean_over_tasks` over a whole batch of tasks, shared by the devices of a mesh. A
    batch that doesn't divide evenly is padded with tasks of zero weight.

    Raises:
      ValueError: as `meta_update`.
    """
    devices = size_of(mesh)
    if task_batch < 1 or (tasks_at_once is not None and tasks_at_once < 1):
        raise ValueError(
            f"task batch {task_batch}, tasks at once {tasks_at_once}: give at least 1 each."
        )
    if task_batch % (tasks_at_once or 1):
        raise ValueError(
            f"a task batch of {task_batch} cannot be mapped {tasks_at_once} at a time; "
            f"give a number that divides {task_batch}."
        )
    together = tasks_at_once or -(-task_batch // devices)
    padded = -(-task_batch // (together * devices)) * together * devices
    if mesh is None:
        over_tasks = mean_over_tasks(learner, together, aggregate=aggregate)
    else:
        over_tasks = averaged_over_devices(
            mean_over_tasks(learner, together, aggregate=aggregate, vary=vary), mesh
        )

    def over_batch(
        state: TrainState, sample: Sample, keys: Key, given: PyTree, slots: PyTree
    ) -> tuple[PyTree, PyTree]:
        per_task, weights = (keys, given, slots), None
        if padded > task_batch:
            if given is not None:
                check_divides(task_batch, devices)
            # Pads with the first tasks, with zero weight.
            again = jnp.arange(padded) % task_batch
            per_task = jax.tree.map(lambda leaf: leaf[again], per_task)
            weights = jnp.where(jnp.arange(padded) < task_batch, padded / task_batch, 0.0)
        means, kept = over_tasks((state, sample), (*per_task, weights))
        return means, jax.tree.map(lambda leaf: leaf[:task_batch], kept)

    return over_batch


def mean_over_tasks(
    learner: MetaLearner,
    tasks_at_once: int | None = None,
    *,
    aggregate: Aggregate = mean,
    vary: Callable[[PyTree], PyTree] = lambda tree: tree,
) -> OverTasks:
    """`mean((state, sample), (keys, given, slots, weights)) -> ((grads, info, change), (slots,
    each))`, for the tasks of one device, weighted by `weights`, which default to 1. `change` is the
    mean change of `state.shared`, with None for leaves that no task changes.

    Args:
      learner: the learner whose `grad` is averaged. If this is the gradient of its loss, and
        `aggregate` is the mean, the mean loss is differentiated instead.
      tasks_at_once: number of tasks mapped at once by `vmap`. Defaults to all.
      aggregate: if it has a function `together`, the gradients of each task are returned in `each`
        instead of their mean in `grads`.
      vary: applied to the initial sum; `parallel.vary` under `shard_map`.
    """

    def of_one_task(
        state: TrainState,
        sample: Sample,
        key: Key,
        given: PyTree,
        slot: PyTree,
        weight: Array | None,
    ) -> tuple[PyTree, PyTree]:
        task, learn_key = draw(sample, key, given)
        carry = Carry(state.step, state.shared, slot)
        grads, info, after = learner.grad(learn_key, state.meta_params, task, carry)
        change, each = _change(state.shared, after.shared), ()
        if aggregate.each is not None:
            grads = aggregate.each(grads)
        if aggregate.together is not None:
            grads, each = (), grads
        return _weighed((grads, info, change), weight), (after.slot, each)

    def total_of_gradients(replicated: PyTree, group: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
        """The sum of the gradients of a group of tasks, and the values kept for each task."""
        to_sum, to_keep = jax.vmap(partial(of_one_task, *replicated))(*group)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), to_sum), to_keep

    total_over = total_of_gradients
    if isinstance(learner.grad, GradientOf) and aggregate == mean:
        total_over = partial(_gradient_of_total, learner.grad.loss)

    def on_one_device(replicated: PyTree, per_task: PyTree) -> tuple[PyTree, PyTree]:
        tasks = jax.tree.leaves(per_task)[0].shape[0]
        at_once = tasks if tasks_at_once is None else tasks_at_once
        groups = jax.tree.map(
            lambda leaf: leaf.reshape(tasks // at_once, at_once, *leaf.shape[1:]), per_task
        )

        def add_group(total: PyTree, group: tuple[Any, ...]) -> tuple[PyTree, PyTree]:
            of_group, to_keep = total_over(replicated, group)
            return jax.tree.map(jnp.add, total, of_group), to_keep

        first = jax.tree.map(lambda leaf: leaf[0], groups)
        program, (shapes, _) = jax.make_jaxpr(partial(total_over, replicated), return_shape=True)(
            first
        )
        check_apart(program)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, kept = jax.lax.scan(add_group, vary(zeros), groups)
        kept = jax.tree.map(lambda leaf: leaf.reshape(tasks, *leaf.shape[2:]), kept)
        return jax.tree.map(lambda leaf: leaf / tasks, total), kept

    return on_one_device


def _gradient_of_total(
    loss: Callable[[Key, PyTree, Task], tuple[Array, Info]],
    replicated: tuple[TrainState, Sample],
    group: tuple[Any, ...],
) -> tuple[PyTree, PyTree]:
    """The sum of the gradients as the gradient of a sum, without the gradients of single tasks.

    Equal up to rounding. The gradient of shared weights is then one product with the examples of
    all tasks instead of a matrix per task, which makes recurrent networks and neural processes
    train 1.2 to 3 times as fast on a CPU.
    """
    state, sample = replicated
    keys, given, slots, weights = group

    def of_one_task(
        meta_params: PyTree, key: Key, given: PyTree, weight: Array | None
    ) -> tuple[Array, Info]:
        task, learn_key = draw(sample, key, given)
        return _weighed(loss(learn_key, meta_params, task), weight)

    def total_loss(meta_params: PyTree) -> tuple[Array, Info]:
        of_each = jax.vmap(partial(of_one_task, meta_params))(keys, given, weights)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), of_each)

    grads, info = jax.grad(total_loss, has_aux=True)(state.meta_params)
    return (grads, info, jax.tree.map(lambda leaf: None, state.shared)), (slots, ())


def _change(before: PyTree, after: PyTree) -> PyTree:
    """The change of each shared leaf by one task; None for leaves that are unchanged."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise TypeError(
            f"grad returns a carry.shared of structure {jax.tree.structure(after)}, but was given "
            f"{jax.tree.structure(before)}; return `carry._replace(shared=...)` with the same "
            "structure."
        )

    def of_leaf(path: Any, old: Any, new: Any) -> Array | None:
        if new is old:
            return None
        found, expected = jax.typeof(new), jax.typeof(old)
        name = f"carry.shared{jax.tree_util.keystr(path)}"
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise TypeError(
                f"grad returns {name} as {found.str_short()}, but was given "
                f"{expected.str_short()}; keep its shape and dtype."
            )
        if not jnp.issubdtype(found.dtype, jnp.inexact):
            raise TypeError(
                f"grad returns a new {name} of type {found.str_short()}, which has no mean over "
                "tasks: return the given leaf itself, not through a `jit`, and change it in an "
                "`update` that wraps the one of `meta_update`."
            )
        return jnp.where(new == old, 0, new - old)  # the difference of equal infinities is NaN

    return jax.tree_util.tree_map_with_path(of_leaf, before, after)


def with_changes(shared: PyTree, change: PyTree) -> PyTree:
    """The shared values after their mean change; leaves with change None are unchanged."""
    return jax.tree.map(lambda leaf, by: leaf if by is None else leaf + by, shared, change)


def _weighed(tree: PyTree, weight: Array | None) -> PyTree:
    if weight is None:
        return tree
    return jax.tree.map(lambda leaf: leaf * weight.astype(jnp.result_type(leaf, 1.0)), tree)
