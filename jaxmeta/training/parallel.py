"""The tasks of a batch over several devices, with one all-reduce per meta-update.

All collectives of the library are in this module. Several processes, on one host or many, run the
same program: each has some of the devices, all have the meta-parameters, and the first one writes.

A run is bit-identical on the same number of devices. On another number, the mean over tasks is
summed in another order, and training may amplify the rounding error: after 100 updates of Adam,
few-shot parameters on 1 and 8 devices differ by 1e-2 in float32 with batch statistics, and by 6e-8
without statistics; in float64 by 5e-15 and 2e-16.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.interpreters import partial_eval
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmeta.core import PyTree
from jaxmeta.ops.derivatives import equations

TASKS = "tasks"  # the one axis of the mesh

Result = TypeVar("Result")

# Returns (mean, kept): the first is averaged over all tasks, the second is per task.
OverTasks = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def task_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, `tasks`, over the first `devices` devices. Defaults to all.

    Raises:
      ValueError: `devices` is less than one, or more than the available devices.

    >>> dict(task_mesh(1).shape)
    {'tasks': 1}
    """
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise ValueError(f"{count} devices: give 1 to {len(available)}, the available devices.")
    # In process order, which `jax.make_mesh` may change; it also requires whole TPU slices.
    return Mesh(np.array(available[:count]), (TASKS,), axis_types=(AxisType.Auto,))


def mesh_for(
    task_batch: int,
    devices: int | None = None,
    *,
    tasks_at_once: int | None = None,
    evenly: bool = False,
) -> Mesh | None:
    """The devices that share a task batch; None for one device.

    Several processes always share a batch among all their devices.

    Args:
      task_batch: number of tasks to share.
      devices: number of devices. Defaults to the smallest number with the shortest time per batch,
        without devices that would only wait for others.
      tasks_at_once: tasks that are mapped together, and stay on one device. Defaults to 1.
      evenly: require the same number of tasks on each device, as for tasks from the host, which
        can't be padded.

    Raises:
      ValueError: there are fewer devices; the batch doesn't divide among them, with `evenly`; not
        all devices of several processes would take part.

    >>> mesh_for(1) is None
    True
    """
    available = jax.device_count()
    if devices is None and jax.process_count() == 1:
        groups = task_batch // (tasks_at_once or 1)
        choices = [n for n in range(1, available + 1) if not evenly or groups % n == 0]
        devices = min(choices, key=lambda n: (-(-groups // n), n))
    mesh = task_mesh(devices)
    if evenly:
        check_divides(task_batch, mesh.size)
    if mesh.size < available and jax.process_count() > 1:
        raise ValueError(
            f"devices is {mesh.size} of {available}, but all devices of all processes must take "
            "part; leave devices out."
        )
    return mesh if mesh.size > 1 else None


def with_all_cores() -> None:
    """Configures one JAX CPU device per core (at most 16), so that tasks run in parallel.

    On two cores, small perceptrons are 2 times and convolutions 1.4 times as fast as with one
    device that splits each operation. Must be called before any array is made;
    `JAX_NUM_CPU_DEVICES` overrides it.
    """
    if jax.config.jax_num_cpu_devices == -1:  # pyright: ignore[reportAttributeAccessIssue]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", min(cores or 1, 16))


def size_of(mesh: Mesh | None) -> int:
    """The number of devices of a mesh; 1 without a mesh.

    >>> size_of(None)
    1
    """
    return 1 if mesh is None else mesh.size


def averaged_over_devices(over_tasks: OverTasks, mesh: Mesh) -> OverTasks:
    """`over_tasks(replicated, per_task)` with the tasks divided evenly among the devices.

        mean = 1/D Σ_d mean_d

    A batch that doesn't divide evenly must be padded with tasks of zero weight first.

    Args:
      over_tasks: `(replicated, per_task) -> (mean, kept)`, for the tasks of one device; the
        leaves of `per_task` and `kept` have a leading task axis.
      mesh: see `task_mesh`.

    Raises:
      ValueError: the tasks don't divide evenly among the devices.
    """

    def on_one_device(replicated: PyTree, per_task: PyTree) -> tuple[PyTree, PyTree]:
        return average_over(TASKS, over_tasks, vary(replicated), per_task)

    return _shared_out(on_one_device, mesh, (P(), P(TASKS)))


def mapped_over_devices(
    over_tasks: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    """`over_tasks(replicated, per_task)`, whose results are per task, divided among the devices.

    All devices, and so all processes, get the values of all tasks.

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
    """Raises `ValueError` if the tasks don't divide evenly among the devices."""
    if tasks % devices:
        own_choice = f", or a number of devices that divides {tasks}"
        own_choice = own_choice if jax.process_count() == 1 else ""
        near = sorted({tasks - tasks % devices, tasks - tasks % devices + devices} - {0})
        raise ValueError(
            f"{tasks} tasks don't divide among {devices} devices; give a task batch of "
            f"{' or '.join(map(str, near))}{own_choice}."
        )


def average_over(
    axis: str, over_tasks: OverTasks, replicated: PyTree, per_task: PyTree
) -> tuple[PyTree, PyTree]:
    """The program of one device, under `shard_map` or `jax.pmap`: averages the mean over `axis`."""
    mean, kept = over_tasks(replicated, per_task)
    # As one array, since each all-reduce between processes costs a round trip (3 ms on loopback).
    flat, unravel = ravel_pytree(mean)
    return unravel(lax.pmean(flat, axis)), kept


def check_apart(program: Any) -> None:
    """Raises `ValueError` if the computation of one device depends on the tasks of others.

    This happens if a learner differentiates with respect to an array that it closes over: all
    devices share the array, so `shard_map` would silently sum the gradient over them.

    Args:
      program: the program of one device, from `jax.make_jaxpr`.
    """
    if not _sums_over_devices(program.jaxpr):
        return
    # Derivatives may contain sums whose result is not used.
    used, _ = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    if _sums_over_devices(used):
        raise ValueError(
            "the learner takes a gradient with respect to an array that it closes over, which "
            "would be summed over all devices. Take it with respect to "
            "`jaxmeta.ops.varying_with(array, support)`, or make the array part of the "
            "meta-parameters."
        )


def _sums_over_devices(jaxpr: Any) -> bool:
    return any(
        "psum" in equation.primitive.name and TASKS in equation.params.get("axes", ())
        for equation in equations(jaxpr)
    )


def vary(replicated: PyTree) -> PyTree:
    """Makes replicated values vary over devices, under `shard_map`.

    Otherwise `shard_map` would sum the gradient of an inner loop with respect to replicated
    meta-parameters over all devices inside the inner loop, so that tasks of different devices would
    silently learn from each other.
    """

    def cast(leaf: Any) -> Any:
        return lax.pcast(leaf, TASKS, to="varying")

    return jax.tree.map(cast, replicated)


# --- several processes --------------------------------------------------------------------


def is_first_process() -> bool:
    """Whether this is the process that writes logs, checkpoints and results.

    >>> is_first_process()
    True
    """
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether the flag is true in any process; every process gets the same answer.

    >>> any_process(False)
    False
    """
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def check_same(number: int | None, remedy: str) -> None:
    """Raises `ValueError` with a remedy if the number differs between processes."""
    if jax.process_count() > 1:
        own = np.asarray(-1 if number is None else number)
        numbers = multihost_utils.process_allgather(own).tolist()
        if len(set(numbers)) > 1:
            raise ValueError(f"the processes differ, {numbers}: {remedy}")


def raise_on_all_processes(work: Callable[[], Result]) -> Result:
    """Returns `work()`; if it raises in one process, all processes raise.

    Otherwise the other processes would wait for the failed one.

    Raises:
      Exception: the exception of `work`; ValueError in processes where `work` succeeded.
    """
    try:
        result, failure = work(), None
    except Exception as error:
        result, failure = None, error
    elsewhere = any_process(failure is not None)
    if failure is not None:
        raise failure
    if elsewhere:
        raise ValueError("another process failed; see its message for the reason.")
    return result  # pyright: ignore[reportReturnType]


def on_first_process(work: Callable[[], Any]) -> None:
    """Runs `work()` in process 0 while the others wait; if it raises, all processes raise."""
    raise_on_all_processes(work if is_first_process() else lambda: None)


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Replicates a tree on all devices of the mesh, of all processes; without a mesh, a no-op.

    All processes must pass the same values, which are not communicated.

    >>> replicate(jnp.ones(3), task_mesh()).sharding.is_fully_replicated
    True
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, P())

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf

        def on_every_device(bits: Any) -> jax.Array:
            # Each device has its own copy, since training donates its state.
            return jax.make_array_from_callback(bits.shape, everywhere, lambda _: np.array(bits))

        return _through_keys(on_every_device, jnp.asarray(leaf))

    return jax.tree.map(put, tree)


def place_tasks(tree: PyTree, mesh: Mesh | None, *, axis: int = 0) -> PyTree:
    """Puts tasks from the host on the devices of the mesh, divided along an axis.

    Every process passes its own part of the tasks, in process order.
    """
    if mesh is None:
        return jax.device_put(tree)
    shared_out = NamedSharding(mesh, P(*[None] * axis, TASKS))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(shared_out, leaf), tree)


def gather(tree: PyTree) -> PyTree:
    """The tree with all values in this process, including those held by other processes.

    A collective: all processes must call it.
    """

    def fetch(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        return _through_keys(
            lambda bits: jnp.asarray(multihost_utils.process_allgather(bits, tiled=True)), leaf
        )

    return jax.tree.map(fetch, tree)


def _through_keys(move: Callable[[Any], Any], leaf: Any) -> Any:
    """`move(leaf)`; a typed key is moved as its data."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        moved = move(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(moved, impl=jax.random.key_impl(leaf))
    return move(leaf)
