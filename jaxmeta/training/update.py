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
from jaxmeta.training.state import Sample, TrainState, draw, task_keys
from jaxmeta.training.state import Trained as Trained  # re-exported
from jaxmeta.training.task_mean import mean_over_batch, with_changes


class MetaUpdate(NamedTuple):
    """A pair of functions that train a learner.

    Attributes:
      init: `init(key, sample) -> TrainState`.
      update: `update(state, sample, given=None) -> (state, info)`, one meta-update; `info` is
        the mean over the task batch. If tasks come from the host, `given` is the stacked batch,
        and `sample` is called with each task instead of a key.
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
    """The training step of any learner.

        φ ← optimizer(φ, 1/T Σ_t grad(φ; task_t)),  task_t = sample(key_t)
        s ← s + 1/T Σ_t (s_t − s),  s_t the float leaves of the `carry.shared` that grad returns

    Args:
      learner: its `grad` is averaged, and its `shared` and `slot` initialise the state.
      optimizer: the outer optimizer.
      task_batch: T, tasks per meta-update.
      tasks_at_once: number of tasks mapped at once by `vmap`, the groups being processed
        sequentially. Smaller numbers use less memory; the gradient is equal up to rounding.
        Defaults to all.
      aggregate: how gradients are aggregated, see `jaxmeta.training.aggregation`. Defaults to the
        mean.
      mesh: the devices that share the tasks. Defaults to one device. A batch that doesn't
        divide among them is padded with tasks of zero weight. See
        `jaxmeta.training.parallel`.

    Raises:
      ValueError: `task_batch` or `tasks_at_once` is not positive, or the first is not a multiple
        of the second; tasks from the host don't divide among the devices.
      TypeError: `optimizer` is not an optax transformation; when traced, if `grad` changes a leaf
        of `carry.shared` that is not a float.

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
    if not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer: {optimizer}; give one of optax, such as optax.adam(1e-3).")
    over_batch = mean_over_batch(learner, task_batch, tasks_at_once, aggregate=aggregate, mesh=mesh)

    def init(key: Key, sample: Sample) -> TrainState:
        init_key, task_key, run_key = jax.random.split(key, 3)
        task = sample(task_key)
        meta_params = learner.init(init_key, task)
        state = TrainState(
            jnp.zeros((), jnp.int32), run_key, meta_params, optimizer.init(meta_params)
        )
        # Copied, since the state is donated, and its leaves must not share buffers.
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

    def update(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        keys = task_keys(state, task_batch)
        aggregate_key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), task_batch)
        (grads, info, change), kept = over_batch(state, sample, keys, given, state.slots)
        check_metrics(info.metrics)
        slots, each = kept
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
    """A sampler with the constants of a meta-update `with_constants`.

    Attributes:
      sample: the sampler, or a stream (`jaxmeta.data.stream`) for tasks from the host.
      constants: PyTree of arrays that are not optimised, such as pre-trained weights.

    A PyTree, to be passed to compiled functions as an argument. See `with_constants`.
    """

    sample: Any
    constants: PyTree


def with_constants(build: Callable[[PyTree], MetaUpdate]) -> MetaUpdate:
    """A meta-update with frozen arrays as an argument, outside the state and the program.

        init(key, supplied) = build(supplied.constants).init(key, supplied.sample)
        update(state, supplied, given) = build(supplied.constants).update(state, ..., given)

    The constants are neither optimised, nor stored in checkpoints, nor part of the compiled
    program. `build` is called each time that `init` or `update` is traced. Inner loops may start
    from the constants with `jaxmeta.inner.unroll`; on a mesh, other gradients with respect to the
    constants require `jaxmeta.ops.varying_with`, and raise an error without it.

    Args:
      build: `build(constants)`, the meta-update of the learner that uses the constants.

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

    Returns the state, and the infos of all steps. `given` are the tasks of all steps,
    `[length, task_batch, ...]`, if they come from the host. The state is donated: the state passed
    in can't be used afterwards. Results are bit-identical for any division into chunks.
    """

    @partial(jax.jit, static_argnames="length", donate_argnames="state")
    def compiled(
        state: TrainState, sample: Sample, given: PyTree, *, length: int
    ) -> tuple[TrainState, Info]:
        def step(state: TrainState, given: PyTree) -> tuple[TrainState, Info]:
            return update(state, sample, given)

        if length > 1:
            return jax.lax.scan(step, state, given, length=length)
        # XLA would inline a loop with one iteration and round its body differently (jax 0.12), so
        # the number of iterations is hidden from the compiler.
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
