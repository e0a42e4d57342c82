"""A finite number of training tasks, each with a number."""

import inspect
from typing import Any

import jax

from jaxmeta.core import Key, Task
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.numbered import Numbered


def numbered(sample: Any, tasks: int) -> Sampler:
    """A sampler of a fixed number of tasks, whose support sets carry the number of their task.

    Task i always has the same classes in the same order; its examples are drawn anew each time.
    For learners with parameters for each training task, such as `jaxmeta.multi_task`.

    Args:
      sample: a sampler of `episodes` or `sentence_episodes`.
      tasks: the number of tasks, drawn uniformly.

    Returns:
      a sampler of tasks with the support `Numbered(number, examples)`.

    Raises:
      ValueError: fewer than one task, or a sampler of another kind.

    >>> import numpy as np
    >>> from jaxmeta.data.classes import class_images
    >>> from jaxmeta.data._episodes import episodes
    >>> letters = class_images(np.zeros((30, 8, 8, 1), np.uint8), np.arange(30) // 10, "abc")
    >>> sample = numbered(episodes(letters, ways=2, shots=1, queries=1), tasks=1)
    >>> task = sample(jax.random.key(0))
    >>> int(task.support.number), task.support.examples.targets.tolist()
    (0, [0, 1])
    """
    if tasks < 1:
        raise ValueError(f"numbered: {tasks} tasks; give at least 1")
    function = getattr(getattr(sample, "func", None), "func", None)  # of `sampler`
    if function is None or "task_key" not in inspect.signature(function).parameters:
        raise ValueError(
            "numbered: tasks of this sampler have no number; give one of episodes or "
            "sentence_episodes, without distortions, unlabelled examples or another order"
        )
    return sampler(_draw_numbered, sample, tasks=tasks)


def _draw_numbered(sample: Any, key: Key, *, tasks: int) -> Task:
    index_key, key = jax.random.split(key)
    index = jax.random.randint(index_key, (), 0, tasks)
    task = sample(key, task_key=jax.random.fold_in(jax.random.key(0), index))
    return Task(Numbered(index, task.support), task.query)
