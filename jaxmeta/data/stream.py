"""Tasks from the host: for sets that don't fit on a device, and for fixed lists of tasks.

`task_stream` draws tasks from the same distribution as `jaxmeta.data.episodes`, but on the host,
through Grain. Task i depends only on the seed and on i, so that any process can read any task.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxmeta.core import Batch, Task
from jaxmeta.data._episodes import Rotations, check_episode, turned_classes
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.groups import Groups, large_groups
from jaxmeta.data.scaling import scaled
from jaxmeta.extras import extra


class Tasks(Protocol):
    """`tasks[i] -> task` and `len(tasks)`: a sequence of tasks in NumPy, each made on access.

    A length of 2⁶² or more means that the sequence is endless.
    """

    def __getitem__(self, index: Any, /) -> Any: ...
    def __len__(self) -> int: ...


class TaskStream(NamedTuple):
    """Numbered tasks on the host. Samplers on the device are `Sampler`s.

    Attributes:
      tasks: `tasks[i]` is the i-th `Task`, in NumPy, for example with uint8 inputs; `len(tasks)`
        is their number. A `grain.MapDataset` or any other sequence.
      prepare: `prepare(task) -> task` for learners, for example with float32 inputs in [0, 1];
        pure, for `jit` and `vmap`, and run on the device.
    """

    tasks: Tasks
    prepare: Callable[[Any], Task]


class Streams(NamedTuple):
    """Streams one after the other, each with tasks of its own shape, for an evaluation.

    Attributes:
      streams: finite streams, each of which has its own compiled program.
    """

    streams: tuple[TaskStream, ...]


class TaskIterator(Protocol):
    """The return type of `iterate`: Grain's iterator over batches of tasks."""

    def __next__(self) -> Task: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...


def task_stream(
    classes: ClassImages,
    *,
    ways: int,
    shots: int,
    queries: int,
    rotations: Rotations = "none",
    shuffle_labels: bool = False,
    groups: Mapping[str, str] | None = None,
    seed: int | tuple[int, ...] = 0,
) -> TaskStream:
    """The N-way K-shot tasks of `jaxmeta.data.episodes`, as a seeded sequence on the host.

    Args:
      classes: the images of a split; they are not copied.
      ways, shots, queries, rotations, shuffle_labels, groups: see `episodes`.
      seed: of the sequence, one or several numbers.

    Raises:
      ValueError: as `episodes`.

    >>> from jaxmeta.data.classes import class_images
    >>> pixels = np.zeros((60, 28, 28, 1), np.uint8)
    >>> letters = class_images(pixels, np.repeat(np.arange(3), 20), ("a", "b", "c"))
    >>> stream = task_stream(letters, ways=2, shots=1, queries=5)
    >>> stream.tasks[1000].query.inputs.shape, stream.tasks[1000].support.targets.tolist()
    ((10, 28, 28, 1), [0, 1])
    >>> stream.prepare(stream.tasks[1000]).query.inputs.dtype
    dtype('float32')
    """
    with extra("data"):
        import grain

    check_episode(classes, ways, shots, queries, rotations)
    large = None
    if groups is not None:
        large = large_groups(classes, groups, ways, turned_classes(rotations))
    draw = functools.partial(
        _draw_task,
        classes=classes,
        ways=ways,
        shots=shots,
        queries=queries,
        rotations=rotations,
        shuffle_labels=shuffle_labels,
        groups=large,
    )
    (grain_seed,) = np.random.SeedSequence(seed).generate_state(1).tolist()
    indices = grain.MapDataset.range(_ENDLESS).seed(grain_seed)
    return TaskStream(indices.random_map(draw), jax.tree_util.Partial(_as_floats))


def enumerated(tasks: Sequence[Task]) -> TaskStream:
    """A fixed list of tasks as a stream.

    An evaluation uses each task once; training cycles through them in their order. Inputs of type
    uint8 are scaled to [0, 1], like all images; others are unchanged.

    Args:
      tasks: tasks of the same structure and shapes, so that they share one compiled program; pad
        smaller ones, with `Batch.mask`.

    Raises:
      ValueError: there are no tasks, a task has no query examples, or shapes differ.

    >>> batch = Batch(np.zeros((3, 2), np.float32), np.zeros((3,), np.int32))
    >>> stream = enumerated([Task(batch, batch), Task(batch, batch)])
    >>> len(stream.tasks), stream.prepare(stream.tasks[1]).query.inputs.shape
    (2, (3, 2))
    """
    tasks = tuple(jax.tree.map(np.asarray, task) for task in tasks)
    if not tasks:
        raise ValueError("enumerated: no tasks; give at least one")
    for index, task in enumerate(tasks):
        if any(0 in leaf.shape for leaf in jax.tree.leaves(task.query)):
            raise ValueError(f"enumerated: task {index} has no query examples; leave it out")
    described = [
        (jax.tree.structure(task), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(task)])
        for task in tasks
    ]
    for index, found in enumerate(described):
        if found != described[0]:
            raise ValueError(
                f"enumerated: task {index} is {found}, but task 0 is {described[0]}; pad them to "
                "one shape and mark valid examples in the mask, or make a stream for each shape"
            )
    return TaskStream(tasks, jax.tree_util.Partial(_as_floats))


def iterate(
    stream: TaskStream, task_batch: int, *, share: int = 0, shares: int = 1
) -> TaskIterator:
    """Iterates over batches of tasks, prefetched by threads: leaves `[task_batch / shares, ...]`.

    The iterator is endless: after its last task a finite stream starts again. Its state is the
    position of the next batch, and is the same for any number of shares.

    Args:
      stream: see `task_stream` and `enumerated`.
      task_batch: T; batch b contains the tasks b T to (b + 1) T - 1.
      share, shares: every batch has `shares` equal parts, of which this iterator reads number
        `share`.
    """
    with extra("data"):
        import grain

    tasks: Any = stream.tasks
    if not isinstance(tasks, grain.MapDataset):
        tasks = grain.MapDataset.source(tasks)
    if len(tasks) < _ENDLESS:
        tasks = tasks.repeat()
    batches = tasks.batch(task_batch // shares)[share::shares]
    ahead = max(_THREADS, min(64, _BYTES_AHEAD // (bytes_of_task(stream) * task_batch // shares)))
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))


_THREADS, _BYTES_AHEAD = 4, 2**29
_ENDLESS = 2**62  # tasks


def bytes_of_task(stream: TaskStream) -> int:
    """The bytes of a task on the host."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(stream.tasks[0]))


def read(stream: TaskStream, start: int, count: int) -> Task:
    """The tasks `start` to `start + count - 1`, stacked: leaves `[count, ...]`.

    Raises:
      ValueError: the stream has fewer tasks.
    """
    if start + count > len(stream.tasks):
        raise ValueError(
            f"tasks {start} to {start + count - 1} are requested, but the stream has only "
            f"{len(stream.tasks)}; request fewer tasks"
        )
    return stack(stream.tasks[index] for index in range(start, start + count))


def stack(tasks: Iterable[Task]) -> Task:
    """Stacks the leaves of tasks along a new first axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def _draw_task(
    index: int,
    rng: np.random.Generator,
    *,
    classes: ClassImages,
    ways: int,
    shots: int,
    queries: int,
    rotations: Rotations,
    shuffle_labels: bool,
    groups: Groups | None,
) -> Task:
    turns, total, members = turned_classes(rotations), classes.starts.size, None
    if groups is not None:
        group = rng.integers(groups.counts.size)
        start, total = groups.starts[group], groups.counts[group]
        members = groups.members[start : start + total]
    drawn_W = rng.choice(turns * total, ways, replace=False)
    classes_W, turns_W = np.divmod(drawn_W, turns)
    classes_W = classes_W if members is None else members[classes_W]
    if rotations == "per-task":
        turns_W = rng.integers(0, 4, ways)

    def images_of(class_: int, turns: int) -> np.ndarray:
        rows = rng.choice(classes.counts[class_], shots + queries, replace=False)
        return np.rot90(classes.images[classes.starts[class_] + rows], turns, axes=(1, 2))

    images_WEHWC = np.stack([images_of(*drawn) for drawn in zip(classes_W, turns_W)])

    def batch(images_WEHWC: np.ndarray) -> Batch:
        inputs = images_WEHWC.reshape(-1, *images_WEHWC.shape[2:])
        targets = np.repeat(np.arange(ways, dtype=np.int32), images_WEHWC.shape[1])
        return Batch(inputs, rng.permutation(targets) if shuffle_labels else targets)

    return Task(batch(images_WEHWC[:, :shots]), batch(images_WEHWC[:, shots:]))


def _as_floats(task: Task) -> Task:
    # On the device, so that uint8 is sent: a quarter of the bytes. Other inputs are unchanged.
    def scaled_images(leaf: Any) -> Any:
        return scaled(leaf) if leaf.dtype == np.uint8 else leaf

    return Task(
        *(
            part._replace(inputs=jax.tree.map(scaled_images, part.inputs)) if part else part
            for part in task
        )
    )
