"""A machine that sees images through a network."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.learners.memory.machine import Machine


def embedded(machine: Machine, encoder: Model, shape: tuple[int, ...]) -> Machine:
    """The machine behind an encoder of a part of its inputs, trained with it.

        step t:  machine([f(x_t), y_{t−1}])  of an input  [x_t, y_{t−1}],  x_t laid out flat

    Args:
      machine: of any kind.
      encoder: f, maps inputs `[N, *shape]` to features `[N, D]`.
      shape: of x_t; what an input has beyond its numbers reaches the machine as it is.

    Raises:
      ValueError: inputs of fewer numbers than x_t has.

    Source: the embedding of Mishra et al. 2018, section 3, before another memory.

    >>> from jaxmeta.learners.memory import lstm_machine, run
    >>> from jaxmeta.models import mlp
    >>> machine = embedded(lstm_machine(8, 2), mlp((16,), 4), shape=(3, 3))
    >>> inputs = jnp.ones((5, 9 + 2))
    >>> run(machine, machine.init(jax.random.key(0), inputs[0]), inputs)[1].shape
    (5, 2)
    """
    size = math.prod(shape)

    def seen(params: PyTree, inputs_D: Array) -> Array:
        features_1D = encoder.apply(params, inputs_D[:size].reshape(1, *shape))
        return jnp.concatenate([features_1D[0], inputs_D[size:]])

    def init(key: Key, inputs_D: Array) -> dict[str, Any]:
        if len(inputs_D) < size:
            raise ValueError(
                f"embedded: x_t of shape {shape} has {size} numbers, an input {len(inputs_D)}."
            )
        encoder_key, machine_key = jax.random.split(key)
        params = encoder.init(encoder_key, inputs_D[:size].reshape(1, *shape))
        return {"encoder": params, "machine": machine.init(machine_key, seen(params, inputs_D))}

    def start(params: dict[str, Any]) -> PyTree:
        return machine.start(params["machine"])

    def step(
        params: dict[str, Any], state: PyTree, inputs_D: Array
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        return machine.step(params["machine"], state, seen(params["encoder"], inputs_D))

    return Machine(init, start, step)
