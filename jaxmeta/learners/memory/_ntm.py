"""Neural Turing machines: a controller that reads and writes a memory, differentiable."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.learners.memory.addressing import (
    by_content,
    interpolated,
    sharpened,
    shifted,
    written,
)
from jaxmeta.learners.memory.controller import ControllerKind
from jaxmeta.learners.memory.controller import controller as make_controller
from jaxmeta.learners.memory.machine import Machine

_SHIFTS = 3  # by −1, 0 and 1 rows


class NTMState(NamedTuple):
    """State of a neural Turing machine.

    Attributes:
      memory_NW: the memory.
      weights_HN: the weightings of the heads, read heads before write heads.
      reads_RW: the last reads.
      controller: state of the controller; `()` for a feed-forward one.
    """

    memory_NW: Array
    weights_HN: Array
    reads_RW: Array
    controller: PyTree


def ntm(
    outputs: int,
    *,
    slots: int = 128,
    slot_width: int = 20,
    controller: ControllerKind = "lstm",
    controller_width: int = 100,
    read_heads: int = 1,
    write_heads: int = 1,
) -> Machine:
    """The neural Turing machine.

        h_t = controller(x_t, r_{t−1})
        each head:   w^c = softmax_i β cos(k, M_i),  w^g = g w^c + (1 − g) w_{t−1},
                     w^s = s ∗ w^g (a ring),  w_t = w^s ^ γ / Σ
        write heads: M ← M ∘ ∏ (1 − w eᵀ) + Σ w aᵀ,   read heads: r_t = Mᵀ w
        y_t = W [h_t, r_t]

    with k and a linear in h_t, and β = softplus, g = σ, s = softmax of 3, γ = 1 + softplus and
    e = σ of linear functions of h_t. Writes come before reads. The initial memory, reads and
    weightings are learned.

    Args:
      outputs: size of each output.
      slots: N, rows of the memory.
      slot_width: W, size of a row.
      controller: `lstm`, or `feedforward`, one hidden layer without a state.
      controller_width: width of the controller.
      read_heads, write_heads: number of heads, at least 1 each.

    Raises:
      ValueError: an unknown controller, a size below 1.

    Source: Graves, Wayne, Danihelka 2014, "Neural Turing machines", sections 3.1 to 3.4.

    >>> from jaxmeta.learners.memory import run
    >>> machine = ntm(2, slots=8, slot_width=4, controller_width=16)
    >>> inputs = jnp.ones((5, 3))
    >>> params = jax.jit(machine.init)(jax.random.key(0), inputs[0])
    >>> _, outputs, seen = run(machine, params, inputs)
    >>> outputs.shape, seen["read"].shape
    ((5, 2), (5, 1, 8))
    """
    sizes = (outputs, slots, slot_width, controller_width, read_heads, write_heads)
    if controller not in ("lstm", "feedforward") or min(sizes) < 1:
        raise ValueError(
            f"ntm: controller {controller!r} and sizes {sizes}; give lstm or feedforward, and "
            "sizes of at least 1 each."
        )
    heads = read_heads + write_heads
    of_head = slot_width + 1 + 1 + _SHIFTS + 1  # key, strength, gate, shifts, exponent
    signals = heads * of_head + write_heads * 2 * slot_width
    control = make_controller(
        outputs, signals, read_heads * slot_width, controller_width, kind=controller
    )

    def init(key: Key, inputs_D: Array) -> dict[str, Any]:
        keys = jax.random.split(key, 4)
        return {
            **control.init(keys[0], inputs_D),
            "memory": 0.1 * jax.random.normal(keys[1], (slots, slot_width)),
            "reads": 0.1 * jax.random.normal(keys[2], (read_heads, slot_width)),
            "places": jax.random.normal(keys[3], (heads, slots)),
        }

    def start(params: dict[str, Any]) -> NTMState:
        return NTMState(
            params["memory"],
            jax.nn.softmax(params["places"]),
            jnp.tanh(params["reads"]),
            control.start(params),
        )

    def moved(memory_NW: Array, before_N: Array, signals: Array) -> Array:
        key_W, (strength, gate), shifts_S, (exponent,) = jnp.split(
            signals, [slot_width, slot_width + 2, slot_width + 2 + _SHIFTS]
        )
        weights_N = by_content(memory_NW, key_W, jax.nn.softplus(strength))
        weights_N = interpolated(weights_N, before_N, jax.nn.sigmoid(gate))
        weights_N = shifted(weights_N, jax.nn.softmax(shifts_S))
        return sharpened(weights_N, 1 + jax.nn.softplus(exponent))

    def step(
        params: dict[str, Any], state: NTMState, inputs_D: Array
    ) -> tuple[NTMState, Array, dict[str, Array]]:
        own, hidden, signals = control.forward(params, state.controller, inputs_D, state.reads_RW)
        of_heads, of_writes = jnp.split(signals, [heads * of_head])
        of_heads = of_heads.reshape(heads, of_head)
        move = jax.vmap(moved, in_axes=(None, 0, 0))
        weights_HN = move(state.memory_NW, state.weights_HN, of_heads)
        reading_RN, writing_HN = weights_HN[:read_heads], weights_HN[read_heads:]
        erase_HW, add_HW = jnp.moveaxis(of_writes.reshape(write_heads, 2, -1), 1, 0)
        memory_NW = written(state.memory_NW, writing_HN, jax.nn.sigmoid(erase_HW), add_HW)
        reads_RW = reading_RN @ memory_NW
        outputs = control.read_out(params, hidden, reads_RW)
        after = NTMState(memory_NW, weights_HN, reads_RW, own)
        return after, outputs, {"read": reading_RN, "write": writing_HN}

    return Machine(init, start, step)
