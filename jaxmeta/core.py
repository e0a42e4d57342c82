"""The vocabulary of jaxmeta: the types that every other module uses.

A *task* is a small learning problem: a support set to learn from and a query set to be
evaluated on. A *model* turns parameters and inputs into outputs. An *objective* turns outputs
and targets into a scalar loss. A *meta-learner* is a bundle of pure functions of **one**
task: `vmap` over tasks belongs to the caller, collectives to `jaxmeta.training`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

# Also part of this module:
from jaxmeta.objectives import binary_cross_entropy as binary_cross_entropy
from jaxmeta.objectives import cross_entropy as cross_entropy
from jaxmeta.objectives import fill_padding as fill_padding
from jaxmeta.objectives import judged
from jaxmeta.objectives import masked_mean as masked_mean
from jaxmeta.objectives import squared_error as squared_error
from jaxmeta.objectives import valid_mask as valid_mask

Array = jax.Array
PyTree = Any
"""Nested containers of arrays, as in `jax.tree`."""
Key = jax.Array
"""A typed PRNG key, as returned by `jax.random.key`."""


class Batch(NamedTuple):
    """Examples with their targets; the leading axis is the example axis.

    Attributes:
      inputs: PyTree of arrays `[examples, ...]`.
      targets: PyTree of arrays `[examples, ...]`; class indices are int32 `[examples]`.
      mask: None, or bool `[examples]`, True where the example is valid. Padding lets tasks
        of different sizes share one compiled shape. The contents of padded rows, even NaN or
        labels out of range, affect neither values nor gradients. Models that normalise by the
        statistics of several examples raise an error on padded tasks; use a model with `layer`,
        `group` or `none` instead.

    >>> import jax.numpy as jnp
    >>> Batch(jnp.zeros((5, 28, 28, 1)), jnp.arange(5)).inputs.shape
    (5, 28, 28, 1)
    """

    inputs: PyTree
    targets: PyTree
    mask: Array | None = None


# Set while a program is traced, only to raise an error; no result depends on it.
_padded: ContextVar[bool] = ContextVar("padded", default=False)


@contextmanager
def unpadded(*batches: PyTree) -> Iterator[tuple[PyTree, ...]]:
    """The batches with valid examples in place of the padding; masks are kept.

    If one of the batches has a mask, models that normalise by the statistics of several examples
    raise an error inside this context, because the padding would enter the statistics. Support or
    query sets that are not a `Batch` are returned unchanged.

    >>> import jax.numpy as jnp
    >>> batch = Batch(jnp.array([[1.0], [jnp.nan]]), jnp.array([1, 7]), jnp.array([True, False]))
    >>> with unpadded(batch) as (batch,):
    ...     print(batch.inputs.tolist(), batch.targets.tolist())
    [[1.0], [1.0]] [1, 1]
    """

    def fill(batch: PyTree) -> PyTree:
        if not isinstance(batch, Batch) or batch.mask is None:
            return batch
        inputs, targets = fill_padding((batch.inputs, batch.targets), batch.mask)
        return Batch(inputs, targets, batch.mask)

    masked = any(isinstance(batch, Batch) and batch.mask is not None for batch in batches)
    token = _padded.set(_padded.get() or masked)
    try:
        yield tuple(map(fill, batches))
    finally:
        _padded.reset(token)


def check_no_padding(statistics: str) -> None:
    """Raise `ValueError` inside `unpadded` of a batch with a mask.

    A layer calls this if it normalises by `statistics` that would include the padding.

    >>> check_no_padding("batch")
    """
    if _padded.get():
        raise ValueError(
            f"the model normalises by statistics of several examples ({statistics!r}), which would "
            "include padded ones: the task has a mask. Give a model that normalises each example "
            'by itself, query_statistics="layer", "group" or "none", or tasks without a mask.'
        )


class Task(NamedTuple):
    """One learning problem: a support set to learn from and a query set to be evaluated on.

    Attributes:
      support: any PyTree, usually a `Batch`.
      query: any PyTree, usually a `Batch`.

    A batch of tasks is a `Task` whose leaves have an additional leading axis.
    """

    support: PyTree
    query: PyTree


class ModelInit(Protocol):
    """`init(key, inputs) -> params`, from one batch of examples.

    Only the shapes of `inputs` `[examples, ...]` matter, not the values or the number of examples.
    """

    def __call__(self, key: Key, inputs: PyTree, /) -> PyTree: ...


class ModelApply(Protocol):
    """`apply(params, inputs, *, reference=None, key=None) -> outputs`, both `[examples, ...]`.

    `reference` holds the inputs whose statistics are used for normalisation, for a model that
    normalises by the support's statistics. Defaults to `inputs`. `key` is for dropout and the
    like; a deterministic model ignores it, and without a key dropout is off.
    """

    def __call__(
        self, params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree: ...


class Model(NamedTuple):
    """A network as a pair of pure functions, independent of any framework.

    Attributes:
      init: `init(key, inputs) -> params`, see `ModelInit`.
      apply: `apply(params, inputs, *, reference=None, key=None) -> outputs`, see `ModelApply`.
    """

    init: ModelInit
    apply: ModelApply


class Objective(Protocol):
    """`objective(outputs, targets, mask=None) -> (loss, metrics)`, a scalar and named scalars."""

    def __call__(
        self, outputs: PyTree, targets: PyTree, mask: Array | None = None, /
    ) -> tuple[Array, dict[str, Array]]: ...


class Info(NamedTuple):
    """Values of one task for logging; the next step never depends on them.

    Attributes:
      loss: scalar, the query loss after adaptation.
      metrics: the objective's named scalars on the query set, such as `accuracy`.
    """

    loss: Array
    metrics: Mapping[str, Array]


class Carry(NamedTuple):
    """State that changes over training but is not learned.

    Attributes:
      step: int32 scalar, the number of meta-updates so far (an annealed loss needs it).
      shared: PyTree shared by all tasks, `()` by default: running statistics, or weights that are
        trained beside the meta-parameters.
      slot: PyTree of this position in the task batch, `()` by default, such as the state of a
        truncated unroll. Mapped and sharded with the tasks.
    """

    step: Array
    shared: PyTree = ()
    slot: PyTree = ()


class LearnerInit(Protocol):
    """`init(key, task) -> meta_params`, the meta-parameters before training.

    Only the shapes of the task matter, not its values.
    """

    def __call__(self, key: Key, task: Task, /) -> PyTree: ...


class Adapt(Protocol):
    """`adapt(key, meta_params, support) -> adapted`, learning from one support set.

    `support` is the support set of a `Task`, usually a `Batch` `[examples, ...]`; `adapted` is any
    PyTree with everything that `predict` needs. If the learner has a `shared` field, the shared
    state is passed as the keyword `shared`.
    """

    def __call__(self, key: Key, meta_params: PyTree, support: PyTree, /) -> PyTree: ...


class Predict(Protocol):
    """`predict(adapted, inputs, *, key=None) -> outputs`, both `[examples, ...]`.

    The objective takes `outputs`. `key` is for dropout and for stochastic policies;
    without it the predictions are deterministic.
    """

    def __call__(self, adapted: PyTree, inputs: PyTree, /, *, key: Key | None = None) -> PyTree: ...


class LearnerLoss(Protocol):
    """`loss(key, meta_params, task) -> (loss, info)`, the query loss after adaptation.

    The loss is a scalar. The key is for the adaptation: the query is predicted without one, so that
    the loss of adapted parameters is deterministic. If the learner has a `shared` field, the shared
    state is passed as the keyword `shared`.
    """

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> tuple[Array, Info]: ...


class LearnerGrad(Protocol):
    """`grad(key, meta_params, task, carry) -> (grads, info, carry)`, the meta-gradient of one task.

    `grads` has the structure of the meta-parameters. `carry.slot` is passed to the same position
    of the task batch at the next meta-update. The training step averages float leaves of
    `carry.shared` that a task changes over the tasks. It also counts `carry.step`; a returned value
    is ignored.
    """

    def __call__(
        self, key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]: ...


class Trajectory(Protocol):
    """`trajectory(key, meta_params, support, inputs) -> outputs`, after 0, 1, 2, ... inner steps.

    Each leaf of `outputs` is `[steps + 1, examples, ...]`; the last step equals the outputs of
    `predict`. If the learner has a `shared` field, the shared state is passed as the keyword
    `shared`.
    """

    def __call__(
        self, key: Key, meta_params: PyTree, support: PyTree, inputs: PyTree, /
    ) -> PyTree: ...


class SlotInit(Protocol):
    """`slot(key, meta_params, task) -> slot`, the initial value of `carry.slot`."""

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> PyTree: ...


class SharedInit(Protocol):
    """`shared(key, meta_params, task) -> shared`, the initial value of `carry.shared`.

    Only the shapes of the task matter, not its values.
    """

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> PyTree: ...


class Rollout(Protocol):
    """`rollout(key, meta_params, task) -> episodes`, those after 0, 1, 2, ... adaptations."""

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> PyTree: ...


class Derive(Protocol):
    """`derive(meta_params, shared) -> architecture`, int32 `[decisions]`."""

    def __call__(self, meta_params: PyTree, shared: PyTree, /) -> Array: ...


class MetaLearner(NamedTuple):
    """A meta-learning method as pure functions of one task, key first.

    Attributes:
      init: `init(key, task) -> meta_params`, see `LearnerInit`.
      adapt: `adapt(key, meta_params, support) -> adapted`, see `Adapt`.
      predict: `predict(adapted, inputs, *, key=None) -> outputs`, see `Predict`.
      loss: `loss(key, meta_params, task) -> (loss, info)`, see `LearnerLoss`.
      grad: `grad(key, meta_params, task, carry) -> (grads, info, carry)`, see `LearnerGrad`.
      trajectory: None, or the outputs after every inner step, see `Trajectory`.
      slot: None, or the initial state of each task that `grad` keeps, see `SlotInit`.
      shared: None, or the initial state for all tasks that `grad` keeps, see `SharedInit`.
      rollout: None, or the episodes of a policy, see `Rollout`.
      derive: None, or the architecture that a search has found, see `Derive`.
    """

    init: LearnerInit
    adapt: Adapt
    predict: Predict
    loss: LearnerLoss
    grad: LearnerGrad
    trajectory: Trajectory | None = None
    slot: SlotInit | None = None
    shared: SharedInit | None = None
    rollout: Rollout | None = None
    derive: Derive | None = None


# Not a NamedTuple: `jax.jit` requires a function that supports weak references; tuples do not.
@dataclass(frozen=True)
class GradientOf:
    """The default `grad` of a learner: the gradient of its loss, with the carry unchanged.

    The training step recognises this type and differentiates the sum of the losses instead of each
    loss, so that parameters shared by the tasks need not have a gradient per task.

    >>> import jax.numpy as jnp
    >>> grad = GradientOf(lambda key, w, task: (w * task, Info(w * task, {})))
    >>> grads, info, _ = grad(jax.random.key(0), 2.0, 3.0, Carry(jnp.zeros((), jnp.int32)))
    >>> float(grads), float(info.loss)
    (3.0, 6.0)
    """

    loss: LearnerLoss

    def __call__(
        self, key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]:
        grads, info = jax.grad(self.loss, argnums=1, has_aux=True)(key, meta_params, task)
        return grads, info, carry


def meta_learner(
    init: LearnerInit,
    adapt: Adapt,
    predict: Predict,
    objective: Objective,
    *,
    loss: LearnerLoss | None = None,
    trajectory: Trajectory | None = None,
) -> MetaLearner:
    """A `MetaLearner` whose loss is the objective of the adapted predictions on the query set.

        L(φ; task) = objective(predict(adapt(φ, support), query.inputs), query.targets)

    unless `loss` gives another. `grad` is the gradient of the loss; a method with its own
    meta-gradient replaces the field: `learner._replace(grad=...)`. The query is predicted without a
    key, so that the loss of adapted parameters is deterministic. If a support or query set has a
    mask, the functions given here receive valid examples in place of the padded ones, see
    `unpadded`.

    >>> import jax.numpy as jnp
    >>> import jaxmeta
    >>> def mean_of_targets(key, meta_params, support):
    ...     return meta_params * support.targets.mean()
    >>> shrunken_mean = meta_learner(
    ...     init=lambda key, task: jnp.ones(()),
    ...     adapt=mean_of_targets,
    ...     predict=lambda adapted, inputs, key=None: jnp.full(inputs.shape, adapted),
    ...     objective=jaxmeta.squared_error)
    >>> batch = Batch(jnp.zeros((3, 1)), jnp.full((3, 1), 2.0))
    >>> loss, info = shrunken_mean.loss(jax.random.key(0), jnp.asarray(0.5), Task(batch, batch))
    >>> float(loss)
    1.0
    """

    def adapt_to_valid(key: Key, meta_params: PyTree, support: PyTree, /, **shared: Any) -> PyTree:
        with unpadded(support) as (support,):
            return adapt(key, meta_params, support, **shared)

    def query_loss(key: Key, meta_params: PyTree, task: Task, /) -> tuple[Array, Info]:
        adapted = adapt(key, meta_params, task.support)
        outputs = predict(adapted, task.query.inputs)
        value, metrics = judged(objective, outputs, task.query.targets, task.query.mask)
        return value, Info(value, metrics)

    of_valid = query_loss if loss is None else loss

    def loss_of_valid(
        key: Key, meta_params: PyTree, task: Task, /, **shared: Any
    ) -> tuple[Array, Info]:
        with unpadded(task.support, task.query) as (support, query):
            return of_valid(key, meta_params, Task(support, query), **shared)

    def path_of_valid(
        key: Key, meta_params: PyTree, support: PyTree, inputs: PyTree, /, **shared: Any
    ) -> PyTree:
        assert trajectory is not None
        with unpadded(support) as (support,):
            return trajectory(key, meta_params, support, inputs, **shared)

    return MetaLearner(
        init,
        adapt_to_valid,
        predict,
        loss_of_valid,
        GradientOf(loss_of_valid),
        None if trajectory is None else path_of_valid,
    )
