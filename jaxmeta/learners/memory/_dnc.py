"""The differentiable neural computer: a memory with allocation and temporal links."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, PyTree
from jaxmeta.learners.memory.addressing import allocation, by_content, linked, usage, written
from jaxmeta.learners.memory.controller import controller
from jaxmeta.learners.memory.machine import Machine

_MODES = 3  # backward, by content, forward


class DNCState(NamedTuple):
    """State of a differentiable neural computer.

    Attributes:
      memory_NW: the memory.
      usage_N: degree of use of each row.
      links_NN: L_ij, degree to which row i was written directly after row j.
      precedence_N: degree to which each row was the last one written.
      write_N, read_RN: the weightings of the previous step.
      reads_RW: the last reads.
      controller: the LSTM's cell state and output.
    """

    memory_NW: Array
    usage_N: Array
    links_NN: Array
    precedence_N: Array
    write_N: Array
    read_RN: Array
    reads_RW: Array
    controller: PyTree


class _Interface(NamedTuple):
    """The controller's signals to the memory, scaled to their ranges."""

    read_keys_RW: Array
    read_strengths_R: Array
    write_key_W: Array
    write_strength: Array
    erase_W: Array
    add_W: Array
    free_R: Array
    allocation_gate: Array
    write_gate: Array
    modes_R3: Array


def dnc(
    outputs: int,
    *,
    slots: int = 16,
    slot_width: int = 16,
    controller_width: int = 64,
    read_heads: int = 4,
) -> Machine:
    """The differentiable neural computer, with one write head.

        h_t = LSTM([x_t, r_{t−1}])
        u_t = usage(u_{t−1}, w_{t−1}, r_{t−1}, f),   a = allocation(u_t)
        w_t = g_w (g_a a + (1 − g_a) content(M, k_w, β_w)),   M ← M ∘ (1 − w eᵀ) + w vᵀ
        L, p ← linked(L, p, w_t)
        r_h = π_h1 Lᵀ r_h + π_h2 content(M, k_h, β_h) + π_h3 L r_h,   read_h = Mᵀ r_h
        y_t = W_h h_t + W_r [read]

    with f, g, e = σ, β = 1 + softplus and π = softmax of linear functions of h_t; see
    `jaxmeta.learners.memory.addressing` for usage, allocation and links.

    Args:
      outputs: size of each output.
      slots: N, rows of the memory.
      slot_width: W, size of a row.
      controller_width: width of the LSTM.
      read_heads: R.

    Raises:
      ValueError: a size below 1.

    Source: Graves, Wayne et al. 2016, "Hybrid computing using a neural network with dynamic
    external memory", Methods.

    >>> from jaxmeta.learners.memory import run
    >>> machine = dnc(2, slots=8, slot_width=4, controller_width=16, read_heads=2)
    >>> inputs = jnp.ones((5, 3))
    >>> params = jax.jit(machine.init)(jax.random.key(0), inputs[0])
    >>> _, outputs, seen = run(machine, params, inputs)
    >>> outputs.shape, seen["read"].shape
    ((5, 2), (5, 2, 8))
    """
    given = (outputs, slots, slot_width, controller_width, read_heads)
    if min(given) < 1:
        raise ValueError(f"dnc: sizes {given}; give at least 1 each.")
    sizes = {
        "read_keys": read_heads * slot_width,
        "read_strengths": read_heads,
        "write_key": slot_width,
        "write_strength": 1,
        "erase": slot_width,
        "add": slot_width,
        "free": read_heads,
        "allocation_gate": 1,
        "write_gate": 1,
        "modes": read_heads * _MODES,
    }
    control = controller(outputs, sum(sizes.values()), read_heads * slot_width, controller_width)

    def start(params: dict[str, Any]) -> DNCState:
        def zeros(*shape: int) -> Array:
            return jnp.zeros(shape, params["output"]["bias"].dtype)

        return DNCState(
            memory_NW=zeros(slots, slot_width),
            usage_N=zeros(slots),
            links_NN=zeros(slots, slots),
            precedence_N=zeros(slots),
            write_N=zeros(slots),
            read_RN=zeros(read_heads, slots),
            reads_RW=zeros(read_heads, slot_width),
            controller=control.start(params),
        )

    def signals_of(vector: Array) -> _Interface:
        ends = list(itertools.accumulate(sizes.values()))[:-1]
        part = dict(zip(sizes, jnp.split(vector, ends)))
        return _Interface(
            part["read_keys"].reshape(read_heads, slot_width),
            1 + jax.nn.softplus(part["read_strengths"]),
            part["write_key"],
            1 + jax.nn.softplus(part["write_strength"][0]),
            jax.nn.sigmoid(part["erase"]),
            part["add"],
            jax.nn.sigmoid(part["free"]),
            jax.nn.sigmoid(part["allocation_gate"][0]),
            jax.nn.sigmoid(part["write_gate"][0]),
            jax.nn.softmax(part["modes"].reshape(read_heads, _MODES)),
        )

    def step(
        params: dict[str, Any], state: DNCState, inputs_D: Array
    ) -> tuple[DNCState, Array, dict[str, Array]]:
        own, hidden, vector = control.forward(params, state.controller, inputs_D, state.reads_RW)
        signals = signals_of(vector)

        usage_N = usage(state.usage_N, state.write_N, state.read_RN, signals.free_R)
        found_N = by_content(state.memory_NW, signals.write_key_W, signals.write_strength)
        gate = signals.allocation_gate
        write_N = signals.write_gate * (gate * allocation(usage_N) + (1 - gate) * found_N)
        by_one_head = (write_N[None], signals.erase_W[None], signals.add_W[None])
        memory_NW = written(state.memory_NW, *by_one_head)
        links_NN, precedence_N = linked(state.links_NN, state.precedence_N, write_N)

        content_RN = jax.vmap(by_content, in_axes=(None, 0, 0))(
            memory_NW, signals.read_keys_RW, signals.read_strengths_R
        )
        backward_RN, forward_RN = state.read_RN @ links_NN, state.read_RN @ links_NN.T
        ways_R3N = jnp.stack([backward_RN, content_RN, forward_RN], axis=1)
        read_RN = jnp.einsum("rm,rmn->rn", signals.modes_R3, ways_R3N)
        reads_RW = read_RN @ memory_NW
        outputs = control.read_out(params, hidden, reads_RW)
        after = DNCState(
            memory_NW, usage_N, links_NN, precedence_N, write_N, read_RN, reads_RW, own
        )
        return after, outputs, {"read": read_RN, "write": write_N[None], "usage": usage_N}

    return Machine(control.init, start, step)
