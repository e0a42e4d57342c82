"""DARTS: an architecture learned by gradient descent, beside the weights of a supernet."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta.core import Array, Batch, Carry, Info, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.learners.architecture.alternating import Alternating
from jaxmeta.learners.architecture.stopping import Stop, never

ArchitectureGradient = Literal["second-order", "first-order", "finite-difference"]
"""How the step of the weights is differentiated."""
Relaxation = Callable[[Key, Array, Array], Array]
"""`relaxation(key, logits, step) -> mixing weights`, both `[edges, operations]`."""
_REACH = 0.01  # norm of the step of the finite difference, as published


class SupernetState(NamedTuple):
    """The shared values of `darts`.

    Attributes:
      weights: the parameters of the supernet, with `architecture` left out.
      optimizer_state: of the weights.
      logits: the architecture that is derived: the meta-parameters, until the search is stopped.
      stopped: float scalar, 1 after the search is stopped, else 0.
      stop: the state of the rule that stops it.
    """

    weights: PyTree
    optimizer_state: PyTree
    logits: Array
    stopped: Array
    stop: PyTree


class Mixed(NamedTuple):
    """The adapted state of `darts`: all parameters of the supernet.

    Attributes:
      params: the weights after a step, and the mixing weights as `architecture`.
    """

    params: PyTree


def softmax_relaxation(key: Key, logits: Array, step: Array) -> Array:
    """Mixing weights of DARTS: the softmax of the logits of every edge.

    Source: Liu, Simonyan, Yang 2019, equation 2.

    >>> softmax_relaxation(jax.random.key(0), jnp.zeros((1, 4)), jnp.array(0)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    return jax.nn.softmax(logits)


def gumbel_relaxation(schedule: optax.Schedule) -> Relaxation:
    """Mixing weights of GDAS: one operation of every edge, sampled with the Gumbel trick.

        i = argmax(α + g),  g ~ Gumbel(0, 1),  m_i = 1 and 0 elsewhere
        ∂m := ∂ softmax((log softmax(α) + g) / τ)

    For a `supernet(..., sampled=True)`, which computes one operation of every edge only.

    Args:
      schedule: `schedule(step) -> τ`, the temperature; `optax.linear_schedule(10, 0.1, steps)` as
        published.

    Source: Dong, Yang 2019, "Searching for a robust neural architecture in four GPU hours",
    equations 3 to 5.

    >>> relaxation = gumbel_relaxation(optax.constant_schedule(1.0))
    >>> relaxation(jax.random.key(0), jnp.zeros((2, 3)), jnp.array(0)).sum(axis=1).tolist()
    [1.0, 1.0]
    """

    def relaxation(key: Key, logits: Array, step: Array) -> Array:
        noise = jax.random.gumbel(key, logits.shape, logits.dtype)
        noisy = jax.nn.log_softmax(logits) + noise
        soft = jax.nn.softmax(noisy / schedule(step))
        hard = jax.nn.one_hot(noisy.argmax(axis=-1), logits.shape[-1], dtype=logits.dtype)
        return hard + (soft - jax.lax.stop_gradient(soft))

    return relaxation


def darts(
    supernet: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    differentiation: ArchitectureGradient = "second-order",
    relaxation: Relaxation = softmax_relaxation,
    stop: Stop = never,
) -> MetaLearner:
    """DARTS: the meta-parameters are the logits α of an architecture, the weights w are shared.

        α ← α − η ∇_α L(w'(α), α; query),  w'(α) = optimizer(w, ∇_w L(w, α; support))
        w ← optimizer(w, ∇_w L(w, α; support)),  with the new α

    A task is a batch of training examples, the support, and a batch of other ones, the query. The
    weights, the state of their optimizer, and the logits to derive are `carry.shared`; train it
    with `jaxmeta.training.alternating_update`.

    Args:
      supernet: a model with mixing weights `architecture` among its parameters, see
        `jaxmeta.models.supernet`.
      objective: of outputs and targets.
      optimizer: of the weights, any optax transformation.
      differentiation: `second-order`, through the step of the weights; `first-order`, with
        w' = w; `finite-difference`, the second-order term from the gradients in α of the support's
        loss at w ± ε v, with v = (∂w'/∂∇_w L)ᵀ ∇_{w'} L and ε = 0.01 / ‖v‖.
      relaxation: mixing weights from logits, `softmax_relaxation` or `gumbel_relaxation`.
      stop: a rule after which the derived architecture no longer changes, see
        `jaxmeta.learners.architecture.Stop`.

    `derive` gives the operation with the largest logit of every edge, int32 `[edges]`. `adapt`
    gives the weights after one more step, mixed as at step 0 of the relaxation.

    Raises:
      ValueError: an unknown way to differentiate; when initialised, a model without the parameter
        `architecture`.

    Source: Liu, Simonyan, Yang 2019, "DARTS: differentiable architecture search", Algorithm 1,
    equations 5 to 8. With the step of the published code, which includes momentum and weight
    decay, in place of plain gradient descent.

    >>> import jaxmeta
    >>> from jaxmeta.models import supernet
    >>> model = supernet(3, width=2, cells=1)
    >>> learner = darts(model, jaxmeta.cross_entropy, optax.sgd(0.025, momentum=0.9))
    >>> batch = Batch(jnp.ones((3, 8, 8, 1)), jnp.arange(3))
    >>> learner.init(jax.random.key(0), Task(batch, batch)).shape
    (6, 5)
    """
    if differentiation not in get_args(ArchitectureGradient):
        raise ValueError(
            f"darts: differentiation {differentiation!r}; give "
            f"{', '.join(get_args(ArchitectureGradient))}."
        )

    def loss_of(weights: PyTree, mixing: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        outputs = supernet.apply({**weights, "architecture": mixing}, batch.inputs)
        return objective(outputs, batch.targets, batch.mask)

    def stepped(
        weights: PyTree, optimizer_state: PyTree, mixing: Array, batch: Batch
    ) -> tuple[PyTree, PyTree]:
        slope = jax.grad(lambda own: loss_of(own, mixing, batch)[0])(weights)
        updates, optimizer_state = optimizer.update(slope, optimizer_state, weights)
        return optax.apply_updates(weights, updates), optimizer_state

    def adapted_weights(mixing: Array, shared: SupernetState, batch: Batch) -> PyTree:
        if differentiation == "first-order":
            return shared.weights
        return stepped(shared.weights, shared.optimizer_state, mixing, batch)[0]

    def query_loss(
        key: Key, logits: Array, task: Task, shared: SupernetState, step: Array
    ) -> tuple[Array, Info]:
        mixing = relaxation(key, logits, step)
        weights = adapted_weights(mixing, shared, task.support)
        if differentiation == "finite-difference":
            weights = jax.lax.stop_gradient(weights)
        value, metrics = loss_of(weights, mixing, task.query)
        return value, Info(value, metrics)

    def support_slope(key: Key, logits: Array, weights: PyTree, batch: Batch, step: Array) -> Array:
        """The gradient of the support's loss in the logits."""
        mixed = lambda logits: relaxation(key, logits, step)  # noqa: E731
        return jax.grad(lambda logits: loss_of(weights, mixed(logits), batch)[0])(logits)

    def correction(
        key: Key, logits: Array, task: Task, shared: SupernetState, step: Array
    ) -> Array:
        """The second-order term, by a central difference along v."""
        mixing = relaxation(key, logits, step)
        slope = jax.grad(lambda own: loss_of(own, mixing, task.support)[0])(shared.weights)
        flat, unravel = ravel_pytree(slope)

        def after(flat: Array) -> PyTree:
            state = shared.optimizer_state
            updates, _ = optimizer.update(unravel(flat), state, shared.weights)
            return optax.apply_updates(shared.weights, updates)

        weights, back = jax.vjp(after, flat)
        ahead = jax.grad(lambda own: loss_of(own, mixing, task.query)[0])(weights)
        (direction,) = back(ahead)
        reach = _REACH / (jnp.linalg.norm(direction) + 1e-12)
        along = unravel(direction * reach)
        plus = optax.apply_updates(shared.weights, along)
        minus = jax.tree.map(jnp.subtract, shared.weights, along)
        slopes = [support_slope(key, logits, own, task.support, step) for own in (plus, minus)]
        return (slopes[0] - slopes[1]) / (2 * reach)

    def gradient(key: Key, logits: Array, task: Task, carry: Carry) -> tuple[Array, Info]:
        given = (key, logits, task, carry.shared, carry.step)
        grads, info = jax.grad(query_loss, argnums=1, has_aux=True)(*given)
        if differentiation == "finite-difference":
            grads = grads + correction(*given)
        return grads, info

    def follow(key: Key, logits: Array, task: Task, carry: Carry) -> SupernetState:
        shared: SupernetState = carry.shared
        weights_key, stop_key = jax.random.split(jax.random.fold_in(key, 1))
        mixing = relaxation(weights_key, logits, carry.step)
        weights, state = stepped(shared.weights, shared.optimizer_state, mixing, task.support)

        def held_out_loss(logits: Array) -> Array:
            mixing = relaxation(stop_key, logits, carry.step)
            return loss_of(weights, mixing, task.query)[0]

        rule, met, kept = stop.check(shared.stop, carry.step, logits, held_out_loss)
        stopped = jnp.maximum(shared.stopped, met.astype(shared.stopped.dtype))
        now = jnp.where(stopped > 0, kept, logits)
        derived = jnp.where(shared.stopped > 0, shared.logits, now)
        return SupernetState(weights, state, derived, stopped, rule)

    def init(key: Key, task: Task) -> Array:
        params = supernet.init(key, task.support.inputs)
        if "architecture" not in params:
            raise ValueError(
                "darts: the model has no parameter 'architecture'; give a supernet, whose mixing "
                "weights have that name."
            )
        mixing = params["architecture"]
        return 1e-3 * jax.random.normal(jax.random.fold_in(key, 1), mixing.shape, mixing.dtype)

    def shared(key: Key, logits: Array, task: Task) -> SupernetState:
        params = supernet.init(key, task.support.inputs)
        weights = {name: own for name, own in params.items() if name != "architecture"}
        not_stopped = jnp.zeros((), logits.dtype)
        rule = stop.init(logits)
        return SupernetState(weights, optimizer.init(weights), logits, not_stopped, rule)

    def adapt(key: Key, logits: Array, support: Batch, *, shared: SupernetState) -> Mixed:
        mixing = relaxation(key, logits, jnp.zeros((), jnp.int32))
        weights, _ = stepped(shared.weights, shared.optimizer_state, mixing, support)
        return Mixed({**weights, "architecture": mixing})

    def predict(adapted: Mixed, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        return supernet.apply(adapted.params, inputs)

    def loss(key: Key, logits: Array, task: Task, *, shared: SupernetState) -> tuple[Array, Info]:
        outputs = predict(adapt(key, logits, task.support, shared=shared), task.query.inputs)
        value, metrics = objective(outputs, task.query.targets, task.query.mask)
        return value, Info(value, metrics)

    def derive(logits: Array, shared: SupernetState) -> Array:
        return shared.logits.argmax(axis=-1)

    # The shared state is a keyword argument beyond the protocols' signatures.
    return MetaLearner(
        init,
        adapt,  # pyright: ignore[reportArgumentType]
        predict,
        loss,  # pyright: ignore[reportArgumentType]
        Alternating(gradient, follow),
        shared=shared,
        derive=derive,
    )
