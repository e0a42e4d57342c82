"""How compiled steps get their tasks: drawn on the device, or read from a stream on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta.core import PyTree, Task
from jaxmeta.data.stream import TaskStream, bytes_of_task, iterate, read, stack
from jaxmeta.training.parallel import place_tasks, replicate
from jaxmeta.training.update import Sample

Source = Sample | TaskStream


class Feed(NamedTuple):
    """The tasks of a training run.

    Attributes:
      sample: what the compiled steps are given: it draws from a key, or unpacks what was read.
      take: `take(length)`, the tasks of the next `length` steps, `[length, task_batch, ...]`;
        None where the steps draw their own.
      position: `position()`, where the stream stands, fit for JSON; `{}` where there is none.
      longest: steps that `take` may be asked for at once; None stands for any number.
    """

    sample: Sample
    take: Callable[[int], PyTree]
    position: Callable[[], dict[str, Any]]
    longest: int | None = None


_BYTES_A_CHUNK = 2**29  # on the devices; the chunk before may still be there


def open_feed(source: Source, task_batch: int, mesh: Mesh | None, position: dict[str, Any]) -> Feed:
    """The feed of a run that goes on at `position`; `{}` stands for the beginning."""
    if not isinstance(source, TaskStream):
        return Feed(source, lambda length: None, dict)
    batches = iterate(source, task_batch, share=jax.process_index(), shares=jax.process_count())
    if position:
        batches.set_state(position)

    def take(length: int) -> PyTree:
        return place_tasks(stack(next(batches) for _ in range(length)), mesh, axis=1)

    longest = max(1, _BYTES_A_CHUNK // (bytes_of_task(source) * task_batch))
    return Feed(source.prepare, take, batches.get_state, longest)


def on_all_devices(source: Source, mesh: Mesh | None) -> Source:
    """The source with what it keeps on the devices laid on all of the mesh, once and for all."""
    if isinstance(source, TaskStream):
        return source
    return replicate(source, mesh)


def sampler(source: Source) -> Sample:
    """What steps compiled for this source are given; see `Feed.sample`."""
    if isinstance(source, TaskStream):
        return source.prepare
    # A plain function is none of the values that a compiled one takes as an argument.
    return source if isinstance(source, jax.tree_util.Partial) else jax.tree_util.Partial(source)


def tasks_at(source: Source, start: int, count: int, mesh: Mesh | None) -> PyTree:
    """`count` tasks of a stream from the `start`-th on; None where the steps draw their own."""
    if not isinstance(source, TaskStream):
        return None
    share = count // jax.process_count()
    return place_tasks(read(source, start + jax.process_index() * share, share), mesh)


def first_task(source: Source) -> Sample:
    """A sampler for where one task will do: of a stream it gives the first, whatever the key."""
    if not isinstance(source, TaskStream):
        return source
    return jax.tree_util.Partial(_constant, source.prepare(read(source, 0, 1)))


def _constant(task: Task, key: Any) -> Task:
    return jax.tree.map(lambda leaf: leaf[0], task)
