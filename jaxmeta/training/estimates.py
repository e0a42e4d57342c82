"""Means over held-out tasks, with the interval that belongs to them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta.core import Array, Key, MetaLearner, Objective, PyTree, Task
from jaxmeta.training.feed import Source, sampler, tasks_at
from jaxmeta.training.parallel import mapped_over_devices, replicate, size_of
from jaxmeta.training.update import Sample, draw


class Estimate(NamedTuple):
    """A mean over tasks.

    Attributes:
      mean: over tasks; a number, or an array where each task gives one.
      ci95: half the width of its 95 % interval, 1.96 s / √n with s the deviation between tasks.
    """

    mean: np.ndarray
    ci95: np.ndarray


Evaluate = Callable[[PyTree, Source, Key], dict[str, Estimate]]


def evaluation(
    learner: MetaLearner, num_tasks: int, *, tasks_at_once: int = 1, mesh: Mesh | None = None
) -> Evaluate:
    """`evaluate(meta_params, source, key)`: loss and metrics on `num_tasks` tasks.

        mean ± 1.96 s / √n over tasks,  task_i = sample(key_i), or the i-th of a stream

    Args:
      learner: whose `loss` is evaluated: it adapts on the support, is judged on the query.
      num_tasks: n.
      tasks_at_once: tasks that `vmap` takes together.
      mesh: the devices that share the tasks; None stands for one device. See
        `jaxmeta.training.parallel`.

    Returns:
      a function that compiles once, for all calls with tasks of one shape.

    Raises:
      ValueError: fewer than two tasks, of which no deviation can be told.

    >>> import jaxmeta, jax.numpy as jnp
    >>> from jaxmeta.data import sinusoids
    >>> guess = jaxmeta.meta_learner(
    ...     init=lambda key, task: (),
    ...     adapt=lambda key, meta_params, support: support.targets.mean(),
    ...     predict=lambda adapted, inputs, key=None: jnp.full(inputs.shape, adapted),
    ...     objective=jaxmeta.squared_error)
    >>> estimates = evaluation(guess, 100)((), sinusoids(shots=5, queries=5), jax.random.key(0))
    >>> 1 < float(estimates["loss"].mean) < 10
    True
    """

    def of_one_task(meta_params: PyTree, task: Task, key: Key) -> dict[str, Array]:
        loss, info = learner.loss(key, meta_params, task)
        return {"loss": loss, **info.metrics}

    return _over_tasks(of_one_task, num_tasks, tasks_at_once, mesh)


def trajectory_evaluation(
    learner: MetaLearner,
    objective: Objective,
    num_tasks: int,
    *,
    tasks_at_once: int = 1,
    mesh: Mesh | None = None,
) -> Evaluate:
    """As `evaluation`, with the estimates after 0, 1, 2, ... inner steps: arrays `[steps + 1]`.

    Raises:
      ValueError: the learner has no trajectory; fewer than two tasks.
    """
    if learner.trajectory is None:
        raise ValueError("this learner takes no inner steps: it has no trajectory to evaluate.")
    trajectory = learner.trajectory

    def of_one_task(meta_params: PyTree, task: Task, key: Key) -> dict[str, Array]:
        outputs = trajectory(key, meta_params, task.support, task.query.inputs)
        losses, metrics = jax.vmap(
            lambda outputs: objective(outputs, task.query.targets, task.query.mask)
        )(outputs)
        return {"loss": losses, **metrics}

    return _over_tasks(of_one_task, num_tasks, tasks_at_once, mesh)


# The host hears from the device this often, so that an interrupt is not left waiting.
_TASKS_A_CALL = 100


def _over_tasks(
    of_one_task: Callable[[PyTree, Task, Key], dict[str, Array]],
    num_tasks: int,
    tasks_at_once: int,
    mesh: Mesh | None,
) -> Evaluate:
    if num_tasks < 2:
        raise ValueError(f"{num_tasks} tasks to evaluate: an interval needs at least 2.")

    def on_one_device(
        replicated: tuple[PyTree, Sample], per_task: tuple[Key, PyTree]
    ) -> dict[str, Array]:
        meta_params, sample = replicated

        def of_drawn(drawn: tuple[Key, PyTree]) -> dict[str, Array]:
            return of_one_task(meta_params, *draw(sample, *drawn))

        return jax.lax.map(of_drawn, per_task, batch_size=tasks_at_once)

    some = jax.jit(on_one_device) if mesh is None else mapped_over_devices(on_one_device, mesh)
    devices = size_of(mesh)

    def evaluate(meta_params: PyTree, source: Source, key: Key) -> dict[str, Estimate]:
        # Every call has one shape; tasks beyond the last are left out of the mean.
        size = -(-min(num_tasks, _TASKS_A_CALL) // devices) * devices
        keys = jax.random.split(key, -(-num_tasks // size) * size).reshape(-1, size)
        shared = replicate((meta_params, sampler(source)), mesh)
        parts = [
            jax.device_get(
                some(shared, (replicate(group, mesh), tasks_at(source, number * size, size, mesh)))
            )
            for number, group in enumerate(keys)
        ]
        values = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num_tasks], *parts)
        return {name: estimate(value) for name, value in values.items()}

    return evaluate


def estimate(values: np.ndarray) -> Estimate:
    """The mean over the first axis, of tasks, and the half-width of its interval.

    >>> estimate(np.array([0.0, 1.0, 1.0, 0.0])).mean.item()
    0.5
    """
    values = values.astype(np.float64)
    return Estimate(
        values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / np.sqrt(values.shape[0])
    )
