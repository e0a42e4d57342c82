"""The meta-update: sample tasks, average their meta-gradients, take one step of optax."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta.core import Info, Key, MetaLearner, PyTree
from jaxmeta.data.samplers import as_argument
from jaxmeta.objectives import check_metrics
from jaxmeta.training.aggregation import Aggregate, mean
from jaxmeta.training.parallel import averaged_over_devices, check_divides, size_of, vary
from jaxmeta.training.state import Sample, TrainState, draw, task_keys
from jaxmeta.training.state import Trained as Trained  # the name that others import from here
from jaxmeta.training.task_mean import mean_over_tasks, with_changes


class MetaUpdate(NamedTuple):
    """How to train a learner.

    Attributes:
      init: `init(key, sample) -> TrainState`.
      update: `update(state, sample, given=None) -> (state, info)`, one meta-update; `info` is
        the mean over the task batch. Where the tasks come from the host, `given` holds them,
        stacked, and `sample` is called with each in place of a key.
    """

    init: Callable[[Key, Sample], TrainState]
    update: Callable[..., tuple[TrainState, Info]]


def meta_update(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    task_batch: int,
    tasks_at_once: int | None = None,
    aggregate: Aggregate = mean,
    mesh: Mesh | None = None,
) -> MetaUpdate:
    """The training step that serves every learner.

        φ ← optimizer(φ, 1/T Σ_t grad(φ; task_t)),  task_t = sample(key_t)
        s ← s + 1/T Σ_t (s_t − s),  s_t the float leaves of the `carry.shared` that grad returns

    Args:
      learner: whose `grad` is averaged, and whose `shared` and `slot` fill the first state.
      optimizer: the outer optimizer.
      task_batch: T, tasks of a meta-update.
      tasks_at_once: how many of them `vmap` takes together; the others wait their turn. The
        same mean gradient (to rounding) in less memory. Defaults to all.
      aggregate: what to take in place of the mean, see `jaxmeta.training.aggregation`.
      mesh: the devices that share the tasks. Defaults to one device. A batch that doesn't
        divide among them is padded with tasks of zero weight. See
        `jaxmeta.training.parallel`.

    Raises:
      ValueError: `task_batch` or `tasks_at_once` is not positive, or the first no multiple of the
        second; tasks that the host sends don't divide among the devices.
      TypeError: when traced, where `grad` changes a leaf of `carry.shared` that is no float.

    >>> import jaxmeta
    >>> from jaxmeta.data import sinusoids
    >>> from jaxmeta.learners import maml
    >>> from jaxmeta.models import mlp
    >>> learner = maml(mlp((8,), 1), jaxmeta.squared_error, optax.sgd(0.01), inner_steps=1)
    >>> init, update = meta_update(learner, optax.adam(1e-3), task_batch=4)
    >>> sample = sinusoids(shots=5, queries=5)
    >>> state, info = update(init(jax.random.key(0), sample), sample)
    >>> int(state.step)
    1
    """
    devices = size_of(mesh)
    if task_batch < 1 or (tasks_at_once is not None and tasks_at_once < 1):
        raise ValueError(
            f"task batch {task_batch}, tasks at once {tasks_at_once}: give at least 1 each."
        )
    if task_batch % (tasks_at_once or 1):
        raise ValueError(
            f"a task batch of {task_batch} cannot be mapped {tasks_at_once} at a time; "
            f"give a number that divides {task_batch}."
        )
    together = tasks_at_once or -(-task_batch // devices)
    padded = -(-task_batch // (together * devices)) * together * devices

    def init(key: Key, sample: Sample) -> TrainState:
        init_key, task_key, run_key = jax.random.split(key, 3)
        task = sample(task_key)
        meta_params = learner.init(init_key, task)
        state = TrainState(
            jnp.zeros((), jnp.int32), run_key, meta_params, optimizer.init(meta_params)
        )
        # What is filled in is copied, for a state is donated: no two leaves may be one buffer.
        if learner.shared is not None:
            shared = learner.shared(jax.random.fold_in(key, 4), meta_params, task)
            state = state._replace(shared=jax.tree.map(jnp.copy, shared))
        first_slot = learner.slot
        if first_slot is None:
            return state

        def fill(key: Key) -> PyTree:
            task, learn_key = draw(sample, key)
            return first_slot(learn_key, meta_params, task)

        slot_keys = jax.random.split(jax.random.fold_in(key, 3), task_batch)
        return state._replace(slots=jax.tree.map(jnp.copy, jax.vmap(fill)(slot_keys)))

    if mesh is None:
        over_tasks = mean_over_tasks(learner, together, aggregate=aggregate)
    else:
        over_tasks = averaged_over_devices(
            mean_over_tasks(learner, together, aggregate=aggregate, vary=vary), mesh
        )

    def update(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        keys = task_keys(state, task_batch)
        aggregate_key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), task_batch)
        per_task, weights = (keys, given, state.slots), None
        if padded > task_batch:
            if given is not None:
                check_divides(task_batch, devices)
            # Tasks again from the first on, with zero weight.
            again = jnp.arange(padded) % task_batch
            per_task = jax.tree.map(lambda leaf: leaf[again], per_task)
            weights = jnp.where(jnp.arange(padded) < task_batch, padded / task_batch, 0.0)
        (grads, info, change), kept = over_tasks((state, sample), (*per_task, weights))
        check_metrics(info.metrics)
        slots, each = jax.tree.map(lambda leaf: leaf[:task_batch], kept)
        if aggregate.together is not None:
            grads = aggregate.together(aggregate_key, each)
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.meta_params)
        meta_params = optax.apply_updates(state.meta_params, updates)
        return (
            state._replace(
                step=state.step + 1,
                meta_params=meta_params,
                optimizer_state=optimizer_state,
                shared=with_changes(state.shared, change),
                slots=slots,
            ),
            info,
        )

    return MetaUpdate(init, update)


class Supplied(NamedTuple):
    """A sampler, and the constants that a learner is built from where it is compiled.

    Attributes:
      sample: the sampler, or a stream (`jaxmeta.data.stream`) where the tasks come from the host.
      constants: PyTree of arrays that are never optimised, such as pre-trained weights.

    A PyTree: an argument of compiled functions. See `with_constants`.
    """

    sample: Any
    constants: PyTree


def with_constants(build: Callable[[PyTree], MetaUpdate]) -> MetaUpdate:
    """A meta-update with frozen arrays as an argument: no part of the state or the program.

        init(key, supplied) = build(supplied.constants).init(key, supplied.sample)
        update(state, supplied, given) = build(supplied.constants).update(state, ..., given)

    Neither the optimizer nor a checkpoint sees the constants, and the compiled program holds none.
    `build` is called each time that `init` or `update` is traced. Inner loops may start from the
    constants, by `jaxmeta.inner.unroll`; a gradient of your own with respect to them requires
    `jaxmeta.ops.varying_with` on a mesh, and is refused without it.

    Args:
      build: of the constants, the meta-update of the learner that uses them.

    >>> import jaxmeta
    >>> from jaxmeta.data import sinusoids
    >>> from jaxmeta.learners import maml
    >>> from jaxmeta.models import mlp
    >>> features, head = mlp((8,), 4), mlp((), 1)
    >>> def build(frozen):
    ...     on_features = jaxmeta.Model(
    ...         init=lambda key, inputs: head.init(key, features.apply(frozen, inputs)),
    ...         apply=lambda params, inputs, **options: head.apply(
    ...             params, features.apply(frozen, inputs)))
    ...     learner = maml(on_features, jaxmeta.squared_error, optax.sgd(0.01), 1)
    ...     return meta_update(learner, optax.adam(1e-3), task_batch=4)
    >>> frozen = features.init(jax.random.key(1), jnp.zeros((1, 1)))
    >>> supplied = Supplied(sinusoids(shots=5, queries=5), frozen)
    >>> init, update = with_constants(build)
    >>> state, info = jax.jit(update)(init(jax.random.key(0), supplied), supplied)
    >>> int(state.step)
    1
    """

    def init(key: Key, supplied: Supplied) -> TrainState:
        return build(supplied.constants).init(key, supplied.sample)

    def update(
        state: TrainState, supplied: Supplied, given: PyTree = None
    ) -> tuple[TrainState, Info]:
        return build(supplied.constants).update(state, supplied.sample, given)

    return MetaUpdate(init, update)  # pyright: ignore[reportArgumentType]


def chunk_of(update: Callable[..., tuple[TrainState, Info]]) -> Callable[..., Any]:
    """`chunk(state, sample, given=None, *, length)`: `length` updates as one compiled scan.

    It gives the state and the info of every step. `given` holds the tasks of all of them,
    `[length, task_batch, ...]`, where they come from the host. The state is donated: its
    buffers are used again, and the one passed in is gone. The updates are the same to the bit
    however they are cut into chunks.
    """

    @partial(jax.jit, static_argnames="length", donate_argnames="state")
    def compiled(
        state: TrainState, sample: Sample, given: PyTree, *, length: int
    ) -> tuple[TrainState, Info]:
        def step(state: TrainState, given: PyTree) -> tuple[TrainState, Info]:
            return update(state, sample, given)

        if length > 1:
            return jax.lax.scan(step, state, given, length=length)
        # A loop of one turn would be compiled as none, and rounded otherwise than its body within
        # a loop (jax 0.12 does). So the compiler is not to know that there is but one turn.
        turns = jnp.where(state.step < 0, 2, 1)
        alone = jax.tree.map(lambda leaf: leaf[0], given)
        info = jax.eval_shape(step, state, alone)[1]
        info = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)
        state, info = jax.lax.fori_loop(0, turns, lambda _, now: step(now[0], alone), (state, info))
        return state, jax.tree.map(lambda leaf: leaf[None], info)

    def chunk(
        state: TrainState, sample: Sample, given: PyTree = None, *, length: int
    ) -> tuple[TrainState, Info]:
        return compiled(state, as_argument(sample), given, length=length)

    return chunk
