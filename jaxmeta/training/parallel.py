"""The tasks of a batch over several devices: one all-reduce a meta-update, nothing else crosses.

All collectives of the library are here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta.core import PyTree

TASKS = "tasks"  # the one axis of the mesh

# mean, kept: the first is averaged over all tasks, the second stays with its tasks.
OverTasks = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def task_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, `tasks`, over the first `devices` devices; None stands for all.

    Raises:
      ValueError: there are not so many devices, or fewer than one is asked for.

    >>> dict(task_mesh(1).shape)
    {'tasks': 1}
    """
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise ValueError(f"{count} devices: give 1 to {len(available)}, which are here.")
    return jax.make_mesh((count,), (TASKS,), axis_types=(AxisType.Auto,), devices=available[:count])


def mesh_for(
    task_batch: int, devices: int | None = None, *, tasks_at_once: int | None = None
) -> Mesh | None:
    """The devices to share a task batch: as many as asked for, or as many of all as divide it.

    Several processes share it among all their devices. Tasks that are to be mapped together stay
    together. None stands for one device alone.

    Raises:
      ValueError: there are not so many devices, or the batch doesn't divide among them.

    >>> mesh_for(1) is None
    True
    """
    available = jax.device_count()
    if devices is None and jax.process_count() == 1:
        together = tasks_at_once or 1
        shares = (n for n in range(2, available + 1) if task_batch % (n * together) == 0)
        devices = max(shares, default=1)
    mesh = task_mesh(devices)
    check_divides(task_batch, mesh.size)
    if mesh.size < available and jax.process_count() > 1:
        raise ValueError(
            f"--devices {mesh.size} of {available}: all devices of all processes take part; "
            "leave --devices out."
        )
    return mesh if mesh.size > 1 else None


def size_of(mesh: Mesh | None) -> int:
    """Its devices; None stands for one.

    >>> size_of(None)
    1
    """
    return 1 if mesh is None else mesh.size


def averaged_over_devices(over_tasks: OverTasks, mesh: Mesh) -> OverTasks:
    """`over_tasks(replicated, per_task)` with the tasks shared out evenly over the mesh.

        mean = 1/D Σ_d mean_d

    Args:
      over_tasks: `(replicated, per_task) -> (mean, kept)`, for the tasks of one device: the
        leaves of `per_task` and of `kept` have the task axis in front.
      mesh: see `task_mesh`.

    Raises:
      ValueError: the tasks don't divide evenly among the devices (an uneven mean would be
        wrong).
    """

    def on_one_device(replicated: PyTree, per_task: PyTree) -> tuple[PyTree, PyTree]:
        return average_over(TASKS, over_tasks, vary(replicated), per_task)

    return _shared_out(on_one_device, mesh, (P(), P(TASKS)))


def mapped_over_devices(
    over_tasks: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    """`over_tasks(replicated, per_task)`, whose leaves have the task axis in front, shared out.

    Every device, and so every process, ends with the values of all tasks.

    Raises:
      ValueError: the tasks don't divide evenly among the devices.
    """

    def on_one_device(replicated: PyTree, per_task: PyTree) -> PyTree:
        return over_tasks(vary(replicated), per_task)

    shared = _shared_out(on_one_device, mesh, P(TASKS))
    return jax.jit(shared, out_shardings=NamedSharding(mesh, P()))


def _shared_out(
    on_one_device: Callable[..., Any], mesh: Mesh, out_specs: Any
) -> Callable[..., Any]:
    sharded = jax.shard_map(on_one_device, mesh=mesh, in_specs=(P(), P(TASKS)), out_specs=out_specs)

    def over_all(replicated: PyTree, per_task: PyTree) -> Any:
        check_divides(jax.tree.leaves(per_task)[0].shape[0], mesh.size)
        return sharded(replicated, per_task)

    return over_all


def check_divides(tasks: int, devices: int) -> None:
    """Raises `ValueError` where the tasks can't be shared out evenly."""
    if tasks % devices:
        near = sorted({tasks - tasks % devices, tasks - tasks % devices + devices} - {0})
        raise ValueError(
            f"{tasks} tasks don't divide among {devices} devices; give a task batch of "
            f"{' or '.join(map(str, near))}, or --devices with a divisor of {tasks}."
        )


def average_over(
    axis: str, over_tasks: OverTasks, replicated: PyTree, per_task: PyTree
) -> tuple[PyTree, PyTree]:
    """What one device of the axis does, under `shard_map` as under `jax.pmap`."""
    mean, kept = over_tasks(replicated, per_task)
    return jax.tree.map(partial(lax.pmean, axis_name=axis), mean), kept


def vary(replicated: PyTree) -> PyTree:
    """What all devices share, each device's own.

    Without it `shard_map` would take an inner loop's gradient with respect to shared
    meta-parameters for one over all devices and sum it over them inside the inner loop: the
    tasks of different devices would learn from each other, without a word.
    """

    def cast(leaf: Any) -> Any:
        return lax.pcast(leaf, TASKS, to="varying")

    return jax.tree.map(cast, replicated)
