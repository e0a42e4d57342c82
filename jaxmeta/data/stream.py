"""Few-shot episodes from images that stay on the host: for sets that don't fit on a device.

The same tasks, to the distribution, as `jaxmeta.data.episodes` draws on the device, read by
Grain: task i is a function of the seed and of i alone, so any process can read any of them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Task
from jaxmeta.data._episodes import Rotations, check_episode, turned_classes
from jaxmeta.data.classes import ClassImages


class TaskStream(NamedTuple):
    """An endless sequence of tasks.

    Attributes:
      tasks: a `grain.MapDataset`; `tasks[i]` is the i-th `Task`, in NumPy, with uint8 inputs.
      sample: such a task to one with float32 inputs in [0, 1]; pure, for `jit` and `vmap`.
    """

    tasks: Any
    sample: Callable[[Any], Task]


class TaskIterator(Protocol):
    """What `iterate` gives: Grain's iterator of task batches."""

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
    seed: int | tuple[int, ...] = 0,
) -> TaskStream:
    """The N-way K-shot tasks of `jaxmeta.data.episodes`, as a seeded sequence on the host.

    Args:
      classes: the images of a split; they stay where they are.
      ways, shots, queries, rotations, shuffle_labels: see `episodes`.
      seed: of the sequence; one number or several.

    Raises:
      ValueError: as `episodes`.

    >>> from jaxmeta.data.classes import class_images
    >>> pixels = np.zeros((60, 28, 28, 1), np.uint8)
    >>> letters = class_images(pixels, np.repeat(np.arange(3), 20), ("a", "b", "c"))
    >>> stream = task_stream(letters, ways=2, shots=1, queries=5)
    >>> stream.tasks[1000].query.inputs.shape, stream.tasks[1000].support.targets.tolist()
    ((10, 28, 28, 1), [0, 1])
    >>> stream.sample(stream.tasks[1000]).query.inputs.dtype
    dtype('float32')
    """
    import grain

    check_episode(classes, ways, shots, queries, rotations)
    draw = functools.partial(
        _draw_task,
        classes=classes,
        ways=ways,
        shots=shots,
        queries=queries,
        rotations=rotations,
        shuffle_labels=shuffle_labels,
    )
    (grain_seed,) = np.random.SeedSequence(seed).generate_state(1).tolist()
    indices = grain.MapDataset.range(2**62).seed(grain_seed)
    return TaskStream(indices.random_map(draw), jax.tree_util.Partial(_as_floats))


def iterate(
    stream: TaskStream, task_batch: int, *, share: int = 0, shares: int = 1
) -> TaskIterator:
    """The tasks in batches, read ahead by threads: leaves `[task_batch / shares, ...]`.

    Its state says which batch is next, and is the same for any number of shares.

    Args:
      stream: see `task_stream`.
      task_batch: T; batch b holds the tasks b T to (b + 1) T - 1.
      share, shares: this process takes the share-th of `shares` equal parts of every batch.
    """
    import grain

    batches = stream.tasks.batch(task_batch // shares)[share::shares]
    ahead = max(_THREADS, min(64, _BYTES_AHEAD // (bytes_of_task(stream) * task_batch // shares)))
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))


_THREADS, _BYTES_AHEAD = 4, 2**29


def bytes_of_task(stream: TaskStream) -> int:
    """What a task takes on its way to the device."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(stream.tasks[0]))


def read(stream: TaskStream, start: int, count: int) -> Task:
    """The tasks `start` to `start + count - 1`, stacked: leaves `[count, ...]`."""
    return stack(stream.tasks[index] for index in range(start, start + count))


def stack(tasks: Iterator[Task]) -> Task:
    """One leaf of all, with a new axis in front."""
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
) -> Task:
    turns = turned_classes(rotations)
    drawn_W = rng.choice(turns * classes.starts.size, ways, replace=False)
    classes_W, turns_W = np.divmod(drawn_W, turns)
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
    # On the device: a quarter of the bytes to send there.
    return Task(*(part._replace(inputs=part.inputs.astype(jnp.float32) / 255) for part in task))
