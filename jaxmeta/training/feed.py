"""How compiled steps get their tasks: drawn on the device, or read from a stream on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxmeta.core import PyTree, Task
from jaxmeta.data.samplers import as_argument
from jaxmeta.data.stream import TaskStream, bytes_of_task, iterate, read, stack
from jaxmeta.training.parallel import place_tasks, replicate
from jaxmeta.training.state import Sample
from jaxmeta.training.update import Supplied

Source = Sample | TaskStream | Supplied
"""Of tasks: a sampler, a stream, or one of them with constants."""


class Feed(NamedTuple):
    """The tasks of a training run.

    Attributes:
      sample: what the compiled steps are given: it draws from a key, or unpacks what was read;
        a `Supplied` with it where the source has constants.
      take: `take(length)`, the tasks of the next `length` steps, `[length, task_batch, ...]`;
        None where the steps draw their own.
      position: `position()`, where the stream stands, fit for JSON; `{}` where there is none.
      longest: steps that `take` may be asked for at once. Defaults to any number.
    """

    sample: Any
    take: Callable[[int], PyTree]
    position: Callable[[], dict[str, Any]]
    longest: int | None = None


_BYTES_A_CHUNK = 2**29  # on the devices; the chunk before may still be there


def open_feed(source: Source, task_batch: int, mesh: Mesh | None, position: dict[str, Any]) -> Feed:
    """The feed of a run that goes on at `position`; `{}` stands for the beginning."""
    sample, stream = sampler(source), without_constants(source)
    if isinstance(sample, Supplied) and mesh is None:
        # Sent to the device once, not with every chunk.
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


def without_constants(source: Source) -> Sample | TaskStream:
    """The sampler or the stream itself."""
    return source[0] if isinstance(source, Supplied) else source


def on_all_devices(source: Source, mesh: Mesh | None) -> Source:
    """The source with what it keeps on the devices laid on all of the mesh, once and for all."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(on_all_devices(inner, mesh), replicate(constants, mesh))
    if isinstance(source, TaskStream):
        return source
    return replicate(sampler(source), mesh)


def sampler(source: Source) -> Any:
    """What steps compiled for this source are given; see `Feed.sample`."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(sampler(inner), constants)
    if isinstance(source, TaskStream):
        source = source.prepare
    return as_argument(source)


def count_tasks(source: Source) -> int | None:
    """How many tasks a stream has, some 2⁶³ where it is endless; None of a sampler."""
    source = without_constants(source)
    return len(source.tasks) if isinstance(source, TaskStream) else None


def tasks_at(source: Source, start: int, count: int, mesh: Mesh | None) -> PyTree:
    """`count` tasks of a stream from the `start`-th on; None where the steps draw their own.

    Past the end of a stream its last task stands, so that every call has one shape.
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
    """A sampler for where one task will do: of a stream it gives the first, whatever the key."""
    if isinstance(source, Supplied):
        inner, constants = source
        return Supplied(first_task(inner), constants)
    if not isinstance(source, TaskStream):
        return sampler(source)
    return jax.tree_util.Partial(_constant, source.prepare(read(source, 0, 1)))


def _constant(task: Task, key: Any) -> Task:
    return jax.tree.map(lambda leaf: leaf[0], task)
