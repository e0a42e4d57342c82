"""Meta-LSTM: an LSTM whose cell state is the learner and whose gates are its rates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import Differentiation, first_order, log_and_sign, support_loss, unroll
from jaxmeta.learners.gradient.maml import gradient_learner


class Gate(NamedTuple):
    """σ(w·[h, θ, previous gate] + b) of one coordinate: w float `[hidden + 2]`, b a number."""

    weights: Array
    bias: Array


class MetaLSTMParams(NamedTuple):
    """Meta-parameters of Meta-LSTM; all but the first are shared by all coordinates.

    Attributes:
      initial: φ, the learner's initialisation: the first cell state.
      cell: of the LSTM that reads gradients and losses.
      forget_gate: how much of the parameters stays.
      input_gate: the rate.
    """

    initial: PyTree
    cell: PyTree
    forget_gate: Gate
    input_gate: Gate


class _State(NamedTuple):
    memory: PyTree
    forget_N: Array
    rate_N: Array


def meta_lstm(
    model: Model,
    objective: Objective,
    steps: int,
    *,
    hidden: int = 20,
    differentiation: Differentiation = first_order,
    batch_size: int | None = None,
) -> MetaLearner:
    """Meta-LSTM: an LSTM, the same for every coordinate, turns gradients and losses into steps.

        h_t = LSTM(log-and-sign of ∇_t and L_t, h_{t−1})
        f_t = σ(W_F [h_t, θ_{t−1}, f_{t−1}] + b_F),  i_t = σ(W_I [h_t, θ_{t−1}, i_{t−1}] + b_I)
        θ_t = f_t ∘ θ_{t−1} − i_t ∘ ∇_t

    Args:
      model, objective, batch_size: as in `maml`.
      steps: T.
      hidden: numbers that the LSTM keeps for each coordinate.
      differentiation: the paper's takes inner gradients and losses as constants.

    At first the forget gates are near 1, the rates near 0.01: almost gradient descent.

    Raises:
      ValueError: as `maml`.

    Source: Ravi, Larochelle 2017, "Optimization as a model for few-shot learning", section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = meta_lstm(mlp((8,), 1), jaxmeta.squared_error, steps=5)
    """
    inner = unroll(
        support_loss(model, objective),
        None,
        steps,
        differentiation=differentiation,
        batch_size=batch_size,
        value=True,
    )
    cell = nn.OptimizedLSTMCell(hidden)

    def init(key: Key, task: Task) -> MetaLSTMParams:
        model_key, cell_key, *gate_keys = jax.random.split(key, 4)
        memory = cell.initialize_carry(cell_key, (1, 4))

        def gate(key: Key, low: float, high: float) -> Gate:
            weights_key, bias_key = jax.random.split(key)
            weights = jax.random.uniform(weights_key, (hidden + 2,), minval=-0.01, maxval=0.01)
            return Gate(weights, jax.random.uniform(bias_key, minval=low, maxval=high))

        return MetaLSTMParams(
            model.init(model_key, task.support.inputs),
            cell.init(cell_key, memory, jnp.zeros((1, 4)))["params"],
            gate(gate_keys[0], 4.0, 5.0),
            gate(gate_keys[1], -5.0, -4.0),
        )

    def optimizer_of(meta_params: MetaLSTMParams) -> optax.GradientTransformationExtraArgs:
        def start(params: PyTree) -> _State:
            theta_N, _ = ravel_pytree(params)
            zeros_N = jnp.zeros_like(theta_N)
            return _State((jnp.zeros((theta_N.size, hidden), theta_N.dtype),) * 2, zeros_N, zeros_N)

        def opened(gate: Gate, hidden_NH: Array, theta_N: Array, before_N: Array) -> Array:
            inputs = jnp.concatenate([hidden_NH, theta_N[:, None], before_N[:, None]], axis=1)
            return jax.nn.sigmoid(inputs @ gate.weights + gate.bias)

        def update(
            updates: PyTree, state: Any, params: PyTree = None, **extra: Any
        ) -> tuple[PyTree, Any]:
            gradient_N, _ = ravel_pytree(updates)
            theta_N, unravel = ravel_pytree(params)
            loss_N = jnp.broadcast_to(extra["value"], gradient_N.shape)
            inputs = jnp.concatenate([log_and_sign(gradient_N), log_and_sign(loss_N)], axis=1)
            memory, hidden_NH = _read(cell, meta_params.cell, state.memory, inputs)
            forget_N = opened(meta_params.forget_gate, hidden_NH, theta_N, state.forget_N)
            rate_N = opened(meta_params.input_gate, hidden_NH, theta_N, state.rate_N)
            moved_N = forget_N * theta_N - rate_N * gradient_N
            return unravel(moved_N - theta_N), _State(memory, forget_N, rate_N)

        return optax.GradientTransformationExtraArgs(start, update)

    def unpack(meta_params: MetaLSTMParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        return meta_params.initial, {"optimizer": optimizer_of(meta_params)}

    return gradient_learner(model, objective, inner, init=init, unpack=unpack)


def _read(cell: nn.OptimizedLSTMCell, params: PyTree, memory: PyTree, inputs: Array) -> Any:
    """A step of the LSTM: its memory and its output."""
    return cell.apply({"params": params}, memory, inputs)
