"""The vocabulary of jaxmeta: six words, and nothing else is needed to read any file.

A *task* is a small learning problem: a support set to learn from and a query set to be
judged on. A *model* turns parameters and inputs into outputs. An *objective* turns outputs
and targets into a scalar loss. A *meta-learner* is a bundle of pure functions of **one**
task: `vmap` over tasks belongs to the caller, collectives to `jaxmeta.training`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

from jaxmeta.objectives import (
    binary_cross_entropy as binary_cross_entropy,  # names of this page too
)
from jaxmeta.objectives import cross_entropy as cross_entropy
from jaxmeta.objectives import fill_padding as fill_padding
from jaxmeta.objectives import masked_mean as masked_mean
from jaxmeta.objectives import squared_error as squared_error
from jaxmeta.objectives import valid_mask as valid_mask

Array = jax.Array
PyTree = Any
"""Nested containers of arrays, as `jax.tree` knows them."""
Key = jax.Array
"""A typed PRNG key, as `jax.random.key` makes it."""


class Batch(NamedTuple):
    """Examples with their targets; the leading axis counts examples.

    Attributes:
      inputs: PyTree of arrays `[examples, ...]`.
      targets: PyTree of arrays `[examples, ...]`; class indices are int32 `[examples]`.
      mask: None, or bool `[examples]`, True where the example is valid. Padding lets tasks
        of different sizes share one compiled shape. What the padded rows hold, NaN or labels out
        of range, changes no value and no gradient. Models that normalise by batch statistics are
        refused: give padded tasks one that normalises each example by itself (`layer`, `group` or
        `none`).

    >>> import jax.numpy as jnp
    >>> Batch(jnp.zeros((5, 28, 28, 1)), jnp.arange(5)).inputs.shape
    (5, 28, 28, 1)
    """

    inputs: PyTree
    targets: PyTree
    mask: Array | None = None


# Set while a program is traced, and only to refuse one: no result depends on it.
_padded: ContextVar[bool] = ContextVar("padded", default=False)


@contextmanager
def unpadded(*batches: PyTree) -> Iterator[tuple[PyTree, ...]]:
    """The batches with their padding filled by valid examples; they keep their masks.

    Within, models that normalise by the statistics of several examples are refused if one of the
    batches has a mask: they would count the padding. Support or query sets that are no `Batch` are
    passed on.

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
    """Raises `ValueError` within `unpadded` of a batch with a mask: statistics would count it all.

    >>> check_no_padding("batch")
    """
    if _padded.get():
        raise ValueError(
            f"the model normalises by statistics of several examples ({statistics!r}), which would "
            "count the padded ones: the task has a mask. Give a model that normalises each example "
            'by itself, query_statistics="layer", "group" or "none", or tasks without a mask.'
        )


class Task(NamedTuple):
    """One learning problem: what to learn from, and what to be judged on.

    Attributes:
      support: any PyTree, usually a `Batch`.
      query: any PyTree, usually a `Batch`.

    A batch of tasks is a `Task` with one axis more in front of every leaf.
    """

    support: PyTree
    query: PyTree


class ModelInit(Protocol):
    """`init(key, inputs) -> params`, from one batch of examples.

    Only the shapes of `inputs` `[examples, ...]` matter, not the values or the number of examples.
    """

    def __call__(self, key: Key, inputs: PyTree, /) -> PyTree: ...


class ModelApply(Protocol):
    """`apply(params, inputs, *, reference=None, key=None) -> outputs`, of `[examples, ...]` each.

    `reference` holds the inputs whose statistics normalise, where the model normalises by the
    support's statistics. Defaults to the inputs' own. `key` is for dropout and the like; a
    model without chance ignores it, and one with dropout leaves nothing out without a key.
    """

    def __call__(
        self, params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree: ...


class Model(NamedTuple):
    """A network as a pair of pure functions, free of any framework.

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
    """What may be logged about one task, never needed by the next step.

    Attributes:
      loss: scalar, the query loss after adaptation.
      metrics: the objective's named scalars on the query set, such as `accuracy`.
    """

    loss: Array
    metrics: Mapping[str, Array]


class Carry(NamedTuple):
    """What changes over training but is not learned.

    Attributes:
      step: int32 scalar, the number of meta-updates so far (an annealed loss needs it).
      shared: PyTree shared by all tasks, `()` by default: running statistics, or weights that are
        trained beside the meta-parameters.
      slot: PyTree of this place in the task batch, `()` by default: the state of a
        truncated unroll, for one. Mapped and sharded with the tasks.
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
    """`adapt(key, meta_params, support) -> adapted`, what is learned from one support set.

    `support` is that of a `Task`, usually a `Batch` `[examples, ...]`; `adapted` is any PyTree, and
    all that `predict` needs. A learner with a `shared` of its own is called with it as the keyword
    `shared`.
    """

    def __call__(self, key: Key, meta_params: PyTree, support: PyTree, /) -> PyTree: ...


class Predict(Protocol):
    """`predict(adapted, inputs, *, key=None) -> outputs`, of `[examples, ...]` each.

    `outputs` are what the objective takes. `key` is for dropout and for stochastic policies;
    without it the predictions are deterministic.
    """

    def __call__(self, adapted: PyTree, inputs: PyTree, /, *, key: Key | None = None) -> PyTree: ...


class LearnerLoss(Protocol):
    """`loss(key, meta_params, task) -> (loss, info)`, the query loss after adaptation.

    The loss is a scalar. The key is for the adaptation: the query is predicted without one, so that
    the loss of adapted parameters is deterministic. A learner with a `shared` of its own is called
    with it as the keyword `shared`.
    """

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> tuple[Array, Info]: ...


class LearnerGrad(Protocol):
    """`grad(key, meta_params, task, carry) -> (grads, info, carry)`, the meta-gradient of one task.

    `grads` is like the meta-parameters. `carry.slot` comes back for the same place of the task
    batch at the next meta-update. Float leaves of `carry.shared` that a task changes are averaged
    over the tasks by the training step. `carry.step` is counted there, whatever comes back.
    """

    def __call__(
        self, key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]: ...


class Trajectory(Protocol):
    """`trajectory(key, meta_params, support, inputs) -> outputs`, after 0, 1, 2, ... inner steps.

    Each leaf of `outputs` is `[steps + 1, examples, ...]`, the last as `predict` gives it. A
    learner with a `shared` of its own is called with it as the keyword `shared`.
    """

    def __call__(
        self, key: Key, meta_params: PyTree, support: PyTree, inputs: PyTree, /
    ) -> PyTree: ...


class SlotInit(Protocol):
    """`slot(key, meta_params, task) -> slot`, what `carry.slot` is before the first meta-update."""

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> PyTree: ...


class SharedInit(Protocol):
    """`shared(key, meta_params, task) -> shared`, what `carry.shared` is before training.

    Only the shapes of the task matter, not its values.
    """

    def __call__(self, key: Key, meta_params: PyTree, task: Task, /) -> PyTree: ...


class MetaLearner(NamedTuple):
    """A way of learning to learn, as pure functions of one task, key first.

    Attributes:
      init: `init(key, task) -> meta_params`, see `LearnerInit`.
      adapt: `adapt(key, meta_params, support) -> adapted`, see `Adapt`.
      predict: `predict(adapted, inputs, *, key=None) -> outputs`, see `Predict`.
      loss: `loss(key, meta_params, task) -> (loss, info)`, see `LearnerLoss`.
      grad: `grad(key, meta_params, task, carry) -> (grads, info, carry)`, see `LearnerGrad`:
        `GradientOf(loss)`, unless the method has its own (Reptile's).
      trajectory: None, or `trajectory(key, meta_params, support, inputs) -> outputs`, see
        `Trajectory`.
      slot: None, or `slot(key, meta_params, task) -> slot`, see `SlotInit`, where `grad` keeps
        something of each task from one meta-update to the next (a truncated unroll).
      shared: None, or `shared(key, meta_params, task) -> shared`, see `SharedInit`, where `grad`
        keeps something for all tasks that is not a meta-parameter (running statistics).
    """

    init: LearnerInit
    adapt: Adapt
    predict: Predict
    loss: LearnerLoss
    grad: LearnerGrad
    trajectory: Trajectory | None = None
    slot: SlotInit | None = None
    shared: SharedInit | None = None


# No NamedTuple: `jax.jit` requires a function that it can refer to weakly, which no tuple is.
@dataclass(frozen=True)
class GradientOf:
    """`grad` of a learner that has none of its own: the gradient of its loss, the carry unchanged.

    By its name the training step knows that it may average first and differentiate then: networks
    that many tasks share need not give a gradient for each.

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

    or another `loss`, and whose `grad` is the gradient of it. The query is predicted without a key:
    the loss of adapted parameters is deterministic. A method with a gradient of its own replaces
    the field: `learner._replace(grad=...)`. Where a support or query set has a mask, the functions
    given here get valid examples in place of the padded ones, see `unpadded`.

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
        value, metrics = objective(outputs, task.query.targets, task.query.mask)
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
