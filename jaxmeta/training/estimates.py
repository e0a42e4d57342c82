"""Evaluation on held-out tasks: values for each task, their means and intervals."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta.core import Array, Key, MetaLearner, Objective, PyTree, Task, unpadded
from jaxmeta.data.stream import Streams
from jaxmeta.objectives import check_metrics
from jaxmeta.training.feed import Source, count_tasks, sampler, tasks_at, without_constants
from jaxmeta.training.parallel import mapped_over_devices, replicate, size_of
from jaxmeta.training.state import Sample, Trained, draw


class Estimate(NamedTuple):
    """A mean over tasks.

    Attributes:
      mean: the mean over tasks; a number, or an array if each task has an array.
      ci95: half-width of the 95 % interval, 1.96 s / √n, with the standard deviation s over tasks.
    """

    mean: np.ndarray
    ci95: np.ndarray


Judge = Callable[[Key, PyTree, Task], tuple[Array, Mapping[str, Array]]]
PerTask = Callable[[PyTree, Source, Key], dict[str, np.ndarray]]
Evaluate = Callable[[PyTree, Source, Key], dict[str, Estimate]]

# Tasks per compiled call, limited so that an interrupt takes effect soon.
_TASKS_A_CALL = 100


def per_task(
    judge: Judge, num_tasks: int, *, tasks_at_once: int = 1, mesh: Mesh | None = None
) -> PerTask:
    """Evaluates each task: `evaluate(given, source, key)` returns the loss and metrics of all.

        values[name][i] = judge(key_i, given, task_i)[name],
        task_i = sample(key_i), or the i-th task of a stream, or of several streams

    Args:
      judge: `judge(key, given, task) -> (loss, metrics)`, for one task; arrays of any shape.
      num_tasks: n, the number of tasks.
      tasks_at_once: number of tasks mapped at once by `vmap`.
      mesh: the devices that share the tasks. Defaults to one device. See
        `jaxmeta.training.parallel`.

    Returns:
      a function that compiles once for all calls with tasks of one shape. `given` is any PyTree,
      such as a `Trained`; it must include the constants that the judge needs, since those of a
      `Supplied` source are ignored. The values are `[num_tasks, ...]` by name, with the loss as
      `loss`, in the order of the tasks, on any number of devices.

    Raises:
      ValueError: fewer than one task, or more than the source has; when traced, a metric with a
        reserved name, such as `loss`.

    >>> import jax.numpy as jnp
    >>> from jaxmeta.data import sinusoids
    >>> def judge(key, scale, task):
    ...     targets = task.query.targets
    ...     return scale * jnp.square(targets).mean(), {"first": targets[0, 0]}
    >>> evaluate = per_task(judge, num_tasks=20)
    >>> values = evaluate(jnp.asarray(2.0), sinusoids(shots=5, queries=5), jax.random.key(0))
    >>> sorted(values), values["loss"].shape
    (['first', 'loss'], (20,))
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks is {num_tasks}: give at least 1.")

    def on_one_device(
        replicated: tuple[PyTree, Sample], tasks: tuple[Key, PyTree]
    ) -> dict[str, Array]:
        given, sample = replicated

        def of_drawn(drawn: tuple[Key, PyTree]) -> dict[str, Array]:
            task, key = draw(sample, *drawn)
            loss, metrics = judge(key, given, task)
            check_metrics(metrics)
            return {"loss": loss, **metrics}

        return jax.lax.map(of_drawn, tasks, batch_size=tasks_at_once)

    some = jax.jit(on_one_device) if mesh is None else mapped_over_devices(on_one_device, mesh)
    devices = size_of(mesh)

    def of_source(
        given: PyTree, source: Source, key: Key, start: int, count: int
    ) -> dict[str, np.ndarray]:
        # All calls have the same shape; tasks beyond the last are dropped.
        size = -(-min(count, _TASKS_A_CALL) // devices) * devices
        # The i-th key does not depend on the number of keys.
        keys = jax.random.split(key, start + -(-count // size) * size)[start:].reshape(-1, size)
        replicated = replicate((given, sampler(source)), mesh)
        parts = [
            jax.device_get(
                some(
                    replicated,
                    (replicate(group, mesh), tasks_at(source, number * size, size, mesh)),
                )
            )
            for number, group in enumerate(keys)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)

    def evaluate(given: PyTree, source: Source, key: Key) -> dict[str, np.ndarray]:
        source = without_constants(source)
        available = count_tasks(source)
        if available is not None and num_tasks > available:
            raise ValueError(f"num_tasks is {num_tasks}, but the source has {available} tasks.")
        if not isinstance(source, Streams):
            return of_source(given, source, key, 0, num_tasks)
        parts, start = [], 0
        for stream in source.streams:
            count = min(len(stream.tasks), num_tasks - start)
            if count:
                parts.append(of_source(given, stream, key, start, count))
            start += count
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    return evaluate


def evaluation(
    learner: MetaLearner, num_tasks: int, *, tasks_at_once: int = 1, mesh: Mesh | None = None
) -> Evaluate:
    """Mean loss and metrics on `num_tasks` tasks: `evaluate(meta_params, source, key)`.

        mean ± 1.96 s / √n over tasks,  task_i = sample(key_i), or the i-th task of a stream

    Args:
      learner: the learner whose `loss` is evaluated: adaptation on the support, loss on the query.
      num_tasks: n, the number of tasks.
      tasks_at_once: number of tasks mapped at once by `vmap`.
      mesh: the devices that share the tasks. Defaults to one device. See
        `jaxmeta.training.parallel`.

    Returns:
      a function that compiles once for all calls with tasks of one shape. It also takes a
      `Trained` instead of meta-parameters, which is required for learners with shared values.

    Raises:
      ValueError: fewer than two tasks, whose standard deviation is undefined.

    >>> import jaxmeta, jax.numpy as jnp
    >>> from jaxmeta.data import sinusoids
    >>> guess = jaxmeta.meta_learner(
    ...     init=lambda key, task: (),
    ...     adapt=lambda key, meta_params, support: support.targets.mean(),
    ...     predict=lambda adapted, inputs, **options: jnp.full(inputs.shape, adapted),
    ...     objective=jaxmeta.squared_error)
    >>> found = evaluation(guess, 100)((), sinusoids(shots=5, queries=5), jax.random.key(0))
    >>> 1 < float(found["loss"].mean) < 10
    True
    """

    def judge(key: Key, given: PyTree, task: Task) -> tuple[Array, Mapping[str, Array]]:
        meta_params, shared = _parts(learner, given)
        loss, info = learner.loss(key, meta_params, task, **shared)
        return loss, info.metrics

    return _means(judge, num_tasks, tasks_at_once, mesh)


def trajectory_evaluation(
    learner: MetaLearner,
    objective: Objective,
    num_tasks: int,
    *,
    tasks_at_once: int = 1,
    mesh: Mesh | None = None,
) -> Evaluate:
    """As `evaluation`, with estimates after 0, 1, 2, ... inner steps: arrays `[steps + 1]`.

    Raises:
      ValueError: the learner has no trajectory; fewer than two tasks.
    """
    if learner.trajectory is None:
        raise ValueError("this learner has no inner steps, and so no trajectory to evaluate.")

    def judge(key: Key, given: PyTree, task: Task) -> tuple[Array, Mapping[str, Array]]:
        meta_params, shared = _parts(learner, given)
        return after_steps(learner, objective, key, meta_params, task, **shared)

    return _means(judge, num_tasks, tasks_at_once, mesh)


def after_steps(
    learner: MetaLearner,
    objective: Objective,
    key: Key,
    meta_params: PyTree,
    task: Task,
    **shared: PyTree,
) -> tuple[Array, dict[str, Array]]:
    """Loss and metrics on the query of one task after 0, 1, 2, ... inner steps: `[steps + 1]`."""
    assert learner.trajectory is not None
    with unpadded(task.query) as (query,):
        outputs = learner.trajectory(key, meta_params, task.support, query.inputs, **shared)
    return jax.vmap(lambda outputs: objective(outputs, query.targets, query.mask))(outputs)


def _parts(learner: MetaLearner, given: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
    """The meta-parameters to evaluate, and the learner's keyword arguments."""
    trained = given if isinstance(given, Trained) else None
    if learner.shared is None:
        return (given if trained is None else trained.meta_params), {}
    if trained is None:
        raise ValueError(
            "this learner has shared values: evaluate a `Trained(meta_params, shared)`, such as "
            "`state.trained`, instead of only the meta-parameters."
        )
    return trained.meta_params, {"shared": trained.shared}


def _means(judge: Judge, num_tasks: int, tasks_at_once: int, mesh: Mesh | None) -> Evaluate:
    if num_tasks < 2:
        raise ValueError(f"num_tasks is {num_tasks}: a 95 % interval needs at least 2 tasks.")
    evaluate = per_task(judge, num_tasks, tasks_at_once=tasks_at_once, mesh=mesh)
    return lambda given, source, key: estimates(evaluate(given, source, key))


def estimates(values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """The `estimate` of every entry of the result of `per_task`, `[tasks, ...]` each.

    >>> estimates({"loss": np.array([1.0, 3.0])})["loss"].mean.item()
    2.0
    """
    return {name: estimate(value) for name, value in values.items()}


def estimate(values: np.ndarray) -> Estimate:
    """The mean over the first axis, the tasks, and the half-width of its 95 % interval.

    The half-width of a single task is NaN.

    >>> estimate(np.array([0.0, 1.0, 1.0, 0.0])).mean.item()
    0.5
    """
    values = values.astype(np.float64)
    if len(values) == 1:
        return Estimate(values[0], np.full_like(values[0], np.nan))
    with np.errstate(all="ignore"):  # the mean of diverged values is NaN or infinite
        return Estimate(
            values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / np.sqrt(values.shape[0])
        )
