"""A plain LSTM as a machine, the baseline for memories."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.learners.memory.machine import Machine, applied


def lstm_machine(width: int, outputs: int, *, layers: int = 1) -> Machine:
    """An LSTM with one or more layers and a linear output.

    Args:
      width: width of each layer.
      outputs: size of each output.
      layers: number of layers.

    Raises:
      ValueError: an argument below 1.

    Source: Hochreiter, Schmidhuber 1997, "Long short-term memory"; with forget gates, Gers et al.
    2000.

    >>> from jaxmeta.learners.memory import run
    >>> machine, inputs = lstm_machine(8, 2), jnp.ones((5, 3))
    >>> params = machine.init(jax.random.key(0), inputs[0])
    >>> run(machine, params, inputs)[1].shape
    (5, 2)
    """
    if min(width, outputs, layers) < 1:
        raise ValueError(
            f"lstm_machine: width {width}, {outputs} outputs, {layers} layers; "
            "give at least 1 each."
        )
    cell, output = nn.OptimizedLSTMCell(width), nn.Dense(outputs)

    def init(key: Key, inputs_D: Array) -> dict[str, Any]:
        hidden = jnp.zeros((width,))
        params, below = {}, inputs_D
        for index, layer_key in enumerate(jax.random.split(key, layers)):
            params[f"layer_{index}"] = cell.init(layer_key, (hidden, hidden), below)["params"]
            below = hidden
        key = jax.random.fold_in(key, layers)
        return {**params, "output": output.init(key, hidden)["params"]}

    def start(params: dict[str, Any]) -> PyTree:
        zeros = jnp.zeros((width,), params["output"]["bias"].dtype)
        return ((zeros, zeros),) * layers

    def step(
        params: dict[str, Any], state: PyTree, inputs_D: Array
    ) -> tuple[PyTree, Array, dict[str, Array]]:
        after, below = [], inputs_D
        for index, before in enumerate(state):
            of_layer, below = applied(cell, params[f"layer_{index}"], before, below)
            after.append(of_layer)
        return tuple(after), applied(output, params["output"], below), {}

    return Machine(init, start, step)
