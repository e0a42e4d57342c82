"""Learning to optimize: a learner that adapts by running a learned optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta.core import (
    Array,
    Batch,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    meta_learner,
)
from jaxmeta.inner import Differentiation, first_order, query_loss, support_loss, unroll
from jaxmeta.inner._unroll import Unrolled
from jaxmeta.inner.optimizers import check_params
from jaxmeta.learners.gradient._maml import Adapted
from jaxmeta.learners.truncation import Unroll
from jaxmeta.objectives import check_metrics


class LearnedOptimizer(NamedTuple):
    """An update rule with parameters to be learned.

    Attributes:
      init: `init(key) -> meta_params`, independent of the parameters to be optimized.
      transformation: `transformation(meta_params) -> optax.GradientTransformation`, for use like
        any other, for example in a chain.
      value: whether its `update` requires the loss, as optax's extra argument `value`.
    """

    init: Callable[[Key], PyTree]
    transformation: Callable[[PyTree], optax.GradientTransformation]
    value: bool = False


class Run(NamedTuple):
    """State of an optimizer's run between two windows, for `windows`."""

    params: PyTree
    optimizer_state: PyTree


def optimizer_learner(
    model: Model,
    objective: Objective,
    optimizer: LearnedOptimizer,
    horizon: int,
    *,
    problem_batch: int | None = None,
    differentiation: Differentiation = first_order,
) -> MetaLearner:
    """A learner whose meta-parameters define an optimizer, which trains a new network in each task.

        θ_0 from model.init, new in every task,  θ_{k+1} = θ_k + optimizer(∇L(θ_k; minibatch); φ)
        loss(φ; task) = 1/K Σ_{k ≥ 1} L(θ_k; query)

    With a query set of other examples, the optimizer is trained for generalisation; with the
    support set as query set, for the training loss, as published.

    Args:
      model, objective: the network to be trained and its loss.
      optimizer: a learned optimizer such as `lstm_optimizer()` or `mlp_optimizer()`.
      horizon: K, steps of the run.
      problem_batch: support examples per step. Defaults to the whole support set.
      differentiation: as in `maml`. Defaults to first order, as in the papers, which take the
        gradients that the optimizer reads as constants.

    `info` has the objective's metrics and the loss after the last step, `final_loss`; the objective
    must not have a metric of this name.

    Raises:
      ValueError: as `jaxmeta.inner.unroll`; a horizon below 1.

    Source: Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    equation 3.
    """
    if horizon < 1:
        raise ValueError(f"optimizer_learner: horizon {horizon}; give at least 1.")
    run = _runs(model, objective, optimizer, horizon, problem_batch, differentiation)

    def init(key: Key, task: Task) -> PyTree:
        return optimizer.init(key)

    def run_anew(key: Key, meta_params: PyTree, support: Batch, observe: Any = None) -> Unrolled:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key, support.inputs)
        transformation = optimizer.transformation(meta_params)
        return run(run_key, params, support, optimizer=transformation, observe=observe)

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Adapted:
        return Adapted(run_anew(key, meta_params, support).params, support.inputs)

    def predict(adapted: Adapted, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        return model.apply(adapted.params, inputs, reference=adapted.reference, key=key)

    def trajectory(key: Key, meta_params: PyTree, support: Batch, inputs: PyTree) -> PyTree:
        observe = lambda params: predict(Adapted(params, support.inputs), inputs)  # noqa: E731
        return run_anew(key, meta_params, support, observe).observations

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        judge = query_loss(model, objective, task)
        losses, metrics = run_anew(key, meta_params, task.support, judge).observations
        check_metrics(metrics, "final_loss")
        last = jax.tree.map(lambda values: values[-1], {**metrics, "final_loss": losses})
        value = losses[1:].mean()
        return value, Info(value, last)

    return meta_learner(init, adapt, predict, objective, loss=loss, trajectory=trajectory)


def windows(
    model: Model,
    objective: Objective,
    optimizer: LearnedOptimizer,
    horizon: int,
    window: int,
    *,
    problem_batch: int | None = None,
    differentiation: Differentiation = first_order,
) -> Unroll:
    """The run of `optimizer_learner` in windows of `window` steps.

    For `truncated_backpropagation` and `persistent_es`. The loss of a window is the mean of the
    query losses after each of its steps. Other arguments as in `optimizer_learner`.

    Raises:
      ValueError: `horizon` is not a multiple of `window`.
    """
    if window < 1 or horizon < 1 or horizon % window:
        raise ValueError(
            f"windows of {window} steps don't divide a horizon of {horizon}; give a divisor."
        )
    run = _runs(model, objective, optimizer, window, problem_batch, differentiation)

    def start(key: Key, meta_params: PyTree, task: Task) -> Run:
        params = model.init(key, task.support.inputs)
        return Run(params, optimizer.transformation(meta_params).init(params))

    def advance(key: Key, meta_params: PyTree, task: Task, state: Run) -> tuple[Run, Array]:
        end = run(
            key,
            state.params,
            task.support,
            optimizer=optimizer.transformation(meta_params),
            optimizer_state=state.optimizer_state,
            observe=query_loss(model, objective, task),
        )
        losses, _ = end.observations
        return Run(end.params, end.optimizer_state), losses[1:].mean()

    return Unroll(start, advance, horizon // window)


def _runs(
    model: Model,
    objective: Objective,
    optimizer: LearnedOptimizer,
    steps: int,
    batch_size: int | None,
    differentiation: Differentiation,
):
    return unroll(
        support_loss(model, objective),
        None,
        steps,
        differentiation=differentiation,
        batch_size=batch_size,
        value=optimizer.value,
    )


def wide(leaf: Array) -> Array:
    """The leaf in float32 or wider, because a state in a shorter dtype would lose small updates."""
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def ravelled(
    name: str,
    start: Callable[[Array], PyTree],
    step: Callable[[Array, PyTree, Array], tuple[Array, PyTree]],
) -> optax.GradientTransformation:
    """A transformation of all parameters as one vector `[N]`.

    `start(params_N) -> state` and `step(grads_N, state, params_N) -> (updates_N, state)` work in
    float32 or wider; updates have the parameters' dtypes. `name` is for error messages.
    """

    def init(params: PyTree) -> PyTree:
        return start(ravel_pytree(jax.tree.map(wide, params))[0])

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        check_params(name, params)
        params_N, unravel = ravel_pytree(jax.tree.map(wide, params))
        grads_N, _ = ravel_pytree(jax.tree.map(wide, updates))
        updates_N, state = step(grads_N, state, params_N)
        moves = unravel(jnp.asarray(updates_N, params_N.dtype))
        return jax.tree.map(lambda move, p: move.astype(p.dtype), moves, params), state

    return optax.GradientTransformation(init, update)
