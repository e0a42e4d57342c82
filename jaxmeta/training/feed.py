"""The tasks of compiled steps: drawn on the device, or read from a stream on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmeta.core import PyTree, Task
from jaxmeta.data.samplers import as_argument
from jaxmeta.data.stream import Streams, TaskStream, bytes_of_task, iterate, read, stack
from jaxmeta.training.parallel import place_tasks, replicate
from jaxmeta.training.state import Sample
from jaxmeta.training.update import Supplied

Source = Sample | TaskStream | Streams | Supplied
"""A source of tasks: a sampler, a stream, or one of them with constants; for an evaluation, also
several streams."""


class Feed(NamedTuple):
    """The tasks of a training run.

    Attributes:
      sample: the sampler argument of the compiled steps: it draws a task from a key, or prepares
        a task from the host; in a `Supplied` if the source has constants.
      take: `take(length)` returns the tasks of the next `length` steps,
        `[length, task_batch, ...]`, or None if the steps draw their own tasks.
      position: `position()` returns the position of the stream, serialisable as JSON; `{}` for a
        sampler.
      longest: the largest length for `take`. Defaults to any length.
    """

    sample: Any
    take: Callable[[int], PyTree]
    position: Callable[[], dict[str, Any]]
    longest: int | None = None


_BYTES_A_CHUNK = 2**29  # on the devices, which may still hold the previous chunk


def open_feed(source: Source, task_batch: int, mesh: Mesh | None, position: dict[str, Any]) -> Feed:
    """The feed of a run, starting at `position`; `{}` is the beginning."""
    sample, stream = sampler(source), without_constants(source)
    if isinstance(sample, Supplied) and mesh is None:
        # Sent to the device once, instead of with every chunk.
        sample = sample._replace(constants=jax.tree.map(jnp.asarray, sample.constants))
    if not isinstance(stream, TaskStream):
        return Feed(sample, lambda length: None, dict)
    batches = iterate(stream, task_batch, share=jax.process_index(), shares=jax.process_count())
    if position:
        batches.set_state(position)

    def take(length: int) -> PyTree:
        return place_tasks(stack(next(batches) for _ in range(length)), mesh, axis=1)

    longest = max(1, _BYTES_A_CHUNK // (bytes_of_task(stream) * task_batch))
    return Feed(sample, take, batches.get_state, longest)


def without_constants(source: Source) -> Sample | TaskStream | Streams:
    """The sampler or stream of a source."""
    return source[0] if isinstance(source, Supplied) else source


def on_all_devices(source: Source, mesh: Mesh | None) -> Source:
    """The source with its arrays replicated on all devices of the mesh."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(on_all_devices(inner, mesh), replicate(constants, mesh))
    if isinstance(source, TaskStream | Streams):
        return source
    return replicate(sampler(source), mesh)


def sampler(source: Source) -> Any:
    """The sampler argument of steps compiled for this source, see `Feed.sample`."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(sampler(inner), constants)
    if isinstance(source, TaskStream):
        source = source.prepare
    return as_argument(source)


def count_tasks(source: Source) -> int | None:
    """The number of tasks of streams, 2⁶² or more if one is endless; None for a sampler."""
    source = without_constants(source)
    if isinstance(source, Streams):
        return sum(len(stream.tasks) for stream in source.streams)
    return len(source.tasks) if isinstance(source, TaskStream) else None


def tasks_at(source: Source, start: int, count: int, mesh: Mesh | None) -> PyTree:
    """`count` tasks of a stream from the `start`-th on; None for a sampler.

    The last task of a stream is repeated past its end, so that all calls have the same shape.
    """
    source = without_constants(source)
    if not isinstance(source, TaskStream):
        return None
    share = count // jax.process_count()
    first, available = start + jax.process_index() * share, count_tasks(source)
    indices = range(first, first + share)
    if available is not None:
        indices = [min(index, available - 1) for index in indices]
    return place_tasks(stack(source.tasks[index] for index in indices), mesh)


def first_task(source: Source) -> Any:
    """A sampler for initialisation: of a stream it returns the first task, whatever the key."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(first_task(inner), constants)
    if isinstance(source, Streams):
        source = source.streams[0]
    if not isinstance(source, TaskStream):
        return sampler(source)
    return jax.tree_util.Partial(_constant, source.prepare(read(source, 0, 1)))


def _constant(task: Task, key: Any) -> Task:
    return jax.tree.map(lambda leaf: leaf[0], task)
