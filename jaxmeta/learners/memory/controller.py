"""Controllers: networks that map the input and the last reads to the signals of a memory."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.learners.memory.machine import applied

ControllerKind = Literal["lstm", "feedforward"]


class Controller(NamedTuple):
    """A controller as pure functions, shared by all memories.

    Attributes:
      init: `init(key, inputs) -> params`.
      start: `start(params) -> state`, before the first step.
      forward: `forward(params, state, inputs, reads) -> (state, hidden, signals)`, from the input
        and the last reads to the signals for the heads.
      read_out: `read_out(params, hidden, reads) -> outputs`, from the new reads.
    """

    init: Callable[[Key, Array], dict[str, Any]]
    start: Callable[[dict[str, Any]], PyTree]
    forward: Callable[[dict[str, Any], PyTree, Array, Array], tuple[PyTree, Array, Array]]
    read_out: Callable[[dict[str, Any], Array, Array], Array]


def controller(
    outputs: int, signals: int, reads: int, controller_width: int, *, kind: ControllerKind = "lstm"
) -> Controller:
    """A controller with an LSTM or one hidden layer.

        h_t = LSTM([x_t, r_{t−1}]) or tanh(W [x_t, r_{t−1}])
        signals = U h_t,   y_t = V [h_t, r_t]

    Args:
      outputs, signals: sizes of y and of the signals.
      reads: size of r, for all heads together.
      controller_width: size of h.
      kind: `lstm`, or `feedforward` without a state.
    """
    network = _Network(kind, controller_width)
    interface, output = nn.Dense(signals), nn.Dense(outputs)

    def init(key: Key, inputs_D: Array) -> dict[str, Any]:
        network_key, interface_key, output_key = jax.random.split(key, 3)
        hidden, read = jnp.zeros((controller_width,)), jnp.zeros((reads,))
        heard = jnp.concatenate([inputs_D, read])
        return {
            "controller": network.init(network_key, (hidden, hidden), heard)["params"],
            "interface": interface.init(interface_key, hidden)["params"],
            "output": output.init(output_key, jnp.concatenate([hidden, read]))["params"],
        }

    def start(params: dict[str, Any]) -> PyTree:
        zeros = jnp.zeros((controller_width,), params["output"]["bias"].dtype)
        return (zeros, zeros) if kind == "lstm" else ()

    def forward(
        params: dict[str, Any], state: PyTree, inputs_D: Array, reads: Array
    ) -> tuple[PyTree, Array, Array]:
        heard = jnp.concatenate([inputs_D, reads.ravel()])
        state, hidden = applied(network, params["controller"], state, heard)
        return state, hidden, applied(interface, params["interface"], hidden)

    def read_out(params: dict[str, Any], hidden: Array, reads: Array) -> Array:
        return applied(output, params["output"], jnp.concatenate([hidden, reads.ravel()]))

    return Controller(init, start, forward, read_out)


class _Network(nn.Module):
    kind: ControllerKind
    width: int

    @nn.compact
    def __call__(self, state: PyTree, heard_D: Array) -> tuple[PyTree, Array]:
        if self.kind == "lstm":
            return nn.OptimizedLSTMCell(self.width, name="cell")(state, heard_D)
        return (), nn.tanh(nn.Dense(self.width, name="hidden")(heard_D))
