"""Meta-LSTM: an LSTM cell state holds the parameters, and its gates are the learning rates."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import Differentiation, first_order, log_and_sign, support_loss, unroll
from jaxmeta.inner.optimizers import check_params
from jaxmeta.learners.gradient._maml import gradient_learner


class Cell(NamedTuple):
    """An LSTM with four inputs; its input, forget, cell and output gates are stacked in this order.

    Attributes:
      weights: weights of the inputs and of its last output, float `[4 lstm_width, 4 + lstm_width]`.
      bias: float `[4 lstm_width]`.
    """

    weights: Array
    bias: Array


class Gate(NamedTuple):
    """σ(w·[h, θ, previous gate] + b) of one coordinate: w float `[lstm_width + 2]`, b a scalar."""

    weights: Array
    bias: Array


class MetaLSTMParams(NamedTuple):
    """Meta-parameters of Meta-LSTM; all except `initial` are shared by all coordinates.

    Attributes:
      initial: φ, the initialisation, which is the first cell state.
      cell: parameters of the LSTM that reads gradients and losses.
      forget_gate: parameters of the factor of the previous parameters.
      input_gate: parameters of the learning rate.
    """

    initial: PyTree
    cell: Cell
    forget_gate: Gate
    input_gate: Gate


class _State(NamedTuple):
    memory_HN: Array
    output_HN: Array
    forget_N: Array
    rate_N: Array


def meta_lstm(
    model: Model,
    objective: Objective,
    inner_steps: int,
    *,
    lstm_width: int = 20,
    inner_rate: float = 0.01,
    differentiation: Differentiation = first_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """Meta-LSTM: an LSTM, shared by all coordinates, maps gradients and losses to inner steps.

        h_t = LSTM(log-and-sign of ∇_t and L_t, h_{t−1})
        f_t = σ(W_F [h_t, θ_{t−1}, f_{t−1}] + b_F),  i_t = σ(W_I [h_t, θ_{t−1}, i_{t−1}] + b_I)
        θ_t = f_t ∘ θ_{t−1} − i_t ∘ ∇_t

    Args:
      model, objective, inner_batch: as in `maml`.
      inner_steps: T.
      lstm_width: size of the LSTM's state for each coordinate.
      inner_rate: about the initial value of i (its odds times e^±½). A nearly closed gate opens
        slowly, so that it should not be far below the rate that the learner will need.
      differentiation: as in `maml`. Defaults to first order, as in the paper, which takes inner
        gradients and losses as constants.

    The forget gates are initialised near 1: almost gradient descent with that rate.

    Raises:
      ValueError: as `maml`; `inner_rate` is not between 0 and 1.

    Source: Ravi, Larochelle 2017, "Optimization as a model for few-shot learning", section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = meta_lstm(mlp((8,), 1), jaxmeta.squared_error, inner_steps=5)
    """
    if not 0 < inner_rate < 1:
        raise ValueError(
            f"meta_lstm: inner_rate {inner_rate} is the opening of a gate; give a number between 0 "
            "and 1."
        )
    inner = unroll(
        support_loss(model, objective),
        None,
        inner_steps,
        differentiation=differentiation,
        batch_size=inner_batch,
        value=True,
    )

    def init(key: Key, task: Task) -> MetaLSTMParams:
        model_key, cell_key, *gate_keys = jax.random.split(key, 4)
        initial = model.init(model_key, task.support.inputs)
        dtype = ravel_pytree(initial)[0].dtype
        spread = jax.nn.initializers.lecun_normal(-1, -2)
        cell_weights = spread(cell_key, (4 * lstm_width, 4 + lstm_width), dtype)

        def gate(key: Key, bias: float) -> Gate:
            weights_key, bias_key = jax.random.split(key)
            weights = jax.random.uniform(weights_key, (lstm_width + 2,), dtype, -0.01, 0.01)
            return Gate(weights, bias + jax.random.uniform(bias_key, (), dtype, -0.5, 0.5))

        return MetaLSTMParams(
            initial,
            Cell(cell_weights, jnp.zeros(4 * lstm_width, dtype)),
            gate(gate_keys[0], 4.5),
            gate(gate_keys[1], math.log(inner_rate / (1 - inner_rate))),
        )

    def optimizer_of(meta_params: MetaLSTMParams) -> optax.GradientTransformationExtraArgs:
        def start(params: PyTree) -> _State:
            theta_N, _ = ravel_pytree(params)
            zeros_N = jnp.zeros_like(theta_N)
            zeros_HN = jnp.zeros((lstm_width, theta_N.size), theta_N.dtype)
            return _State(zeros_HN, zeros_HN, zeros_N, zeros_N)

        def update(
            updates: PyTree, state: Any, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, Any]:
            check_params("meta_lstm", params)
            gradient_N, _ = ravel_pytree(updates)
            theta_N, unravel = ravel_pytree(params)
            moved_N, state = _step(meta_params, state, theta_N, gradient_N, extra["value"])
            return unravel(moved_N - theta_N), state

        return optax.GradientTransformationExtraArgs(start, update)

    def unpack(meta_params: MetaLSTMParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        return meta_params.initial, {"optimizer": optimizer_of(meta_params)}

    return gradient_learner(model, objective, inner, init=init, unpack=unpack)


# Written out instead of Flax's cell, for speed: with the coordinates along the last axis the gates
# are slices without a copy. Recomputing them in the backward pass is faster than storing them.
@jax.checkpoint
def _step(
    meta_params: MetaLSTMParams, state: _State, theta_N: Array, gradient_N: Array, loss: Array
) -> tuple[Array, _State]:
    """The parameters after a step of the LSTM, and its new state."""
    memory_HN, output_HN, forget_N, rate_N = state
    loss_N = jnp.broadcast_to(loss.astype(gradient_N.dtype), gradient_N.shape)
    read = [log_and_sign(values_N).T for values_N in (gradient_N, loss_N)]
    weights, bias = meta_params.cell
    gates = jnp.split(weights @ jnp.concatenate([*read, output_HN]) + bias[:, None], 4)
    write_HN, keep_HN, show_HN = (jax.nn.sigmoid(gates[index]) for index in (0, 1, 3))
    memory_HN = keep_HN * memory_HN + write_HN * jnp.tanh(gates[2])
    output_HN = show_HN * jnp.tanh(memory_HN)

    def opened(gate: Gate, before_N: Array) -> Array:
        seen = jnp.concatenate([output_HN, theta_N[None], before_N[None]])
        return jax.nn.sigmoid(gate.weights @ seen + gate.bias)

    forget_N = opened(meta_params.forget_gate, forget_N)
    rate_N = opened(meta_params.input_gate, rate_N)
    moved_N = forget_N * theta_N - rate_N * gradient_N
    return moved_N, _State(memory_HN, output_HN, forget_N, rate_N)
