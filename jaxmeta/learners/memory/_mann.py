"""Memory-augmented neural networks: an LSTM that writes to the least recently used memory."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, PyTree
from jaxmeta.learners.memory.addressing import by_content, least_used
from jaxmeta.learners.memory.controller import controller
from jaxmeta.learners.memory.machine import Machine


class MANNState(NamedTuple):
    """State of a memory-augmented neural network.

    Attributes:
      memory_NW: the memory.
      usage_N: how recently and how often each row was read or written.
      read_RN: the read weightings of the previous step.
      least_N: 1 for the least used rows, as many as read heads, 0 for the others.
      reads_RW: the last reads.
      controller: the LSTM's cell state and output.
    """

    memory_NW: Array
    usage_N: Array
    read_RN: Array
    least_N: Array
    reads_RW: Array
    controller: PyTree


def mann(
    outputs: int,
    *,
    slots: int = 128,
    slot_width: int = 40,
    controller_width: int = 200,
    read_heads: int = 4,
    decay: float = 0.95,
    strength: float | None = None,
) -> Machine:
    """A memory-augmented neural network with least-recently-used access.

        h_t = LSTM([x_t, r_{t−1}])
        each head r:  w^w_r = σ(α_r) w^r_r + (1 − σ(α_r)) w^lu           (of the previous step)
        M: the least used row is set to 0;  M ← M + Σ_r w^w_r k_rᵀ
        w^r_r = softmax_i β_r cos(k_r, M_i),   r_t = Mᵀ w^r
        u ← γ u + Σ_r w^r_r + Σ_r w^w_r,   w^lu: 1 for the rows of the R smallest u
        y_t = W [h_t, r_t]

    with k_r = tanh of a linear function of h_t, α_r linear in h_t, and β_r = 1. As a cosine is at
    most 1, one row of 128 then has a read weight of at most 6 %. With `strength`, β_r is learned as
    softplus of a linear function of h_t. Every step fills R rows, so that the first inputs are
    overwritten after N / R steps.

    Args:
      outputs: size of each output.
      slots: N, rows of the memory.
      slot_width: W, size of a row.
      controller_width: width of the LSTM.
      read_heads: R, also the number of write heads.
      decay: γ.
      strength: approximate initial value of the learned β_r. By default β_r is 1 and not learned,
        as in the paper.

    Raises:
      ValueError: a size below 1, a decay not in [0, 1], a strength that is not positive, more
        heads than rows.

    Source: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks", section 3.

    >>> from jaxmeta.learners.memory import run
    >>> machine = mann(2, slots=8, slot_width=4, controller_width=16, read_heads=2)
    >>> inputs = jnp.ones((5, 3))
    >>> _, outputs, seen = run(machine, machine.init(jax.random.key(0), inputs[0]), inputs)
    >>> outputs.shape, seen["read"].shape
    ((5, 2), (5, 2, 8))
    """
    sizes = (outputs, slots, slot_width, controller_width, read_heads)
    if min(sizes) < 1 or not 0 <= decay <= 1:
        raise ValueError(
            f"mann: sizes {sizes}, decay {decay}; give at least 1 each, and a decay from 0 to 1."
        )
    if strength is not None and not strength > 0:
        raise ValueError(f"mann: strength {strength}; give a positive number or None.")
    if read_heads > slots:
        raise ValueError(f"mann: {read_heads} heads write to only {slots} rows; give more rows.")
    of_head = slot_width + 1 + (strength is not None)
    signals = read_heads * of_head
    control = controller(outputs, signals, read_heads * slot_width, controller_width)

    def start(params: dict[str, Any]) -> MANNState:
        def zeros(*shape: int) -> Array:
            return jnp.zeros(shape, params["output"]["bias"].dtype)

        first_N = jnp.zeros_like(zeros(slots)).at[0].set(1.0)
        return MANNState(
            memory_NW=zeros(slots, slot_width) + 1e-6,
            usage_N=zeros(slots),
            read_RN=jnp.broadcast_to(first_N, (read_heads, slots)),
            least_N=least_used(zeros(slots), read_heads),
            reads_RW=zeros(read_heads, slot_width),
            controller=control.start(params),
        )

    def step(
        params: dict[str, Any], state: MANNState, inputs_D: Array
    ) -> tuple[MANNState, Array, dict[str, Array]]:
        own, hidden, signals = control.forward(params, state.controller, inputs_D, state.reads_RW)
        signals = signals.reshape(read_heads, of_head)
        keys_RW, gates_R = jnp.tanh(signals[:, :slot_width]), jax.nn.sigmoid(signals[:, slot_width])
        strengths_R = jnp.ones_like(gates_R)
        if strength is not None:
            strengths_R = strength * jax.nn.softplus(signals[:, -1]) / math.log(2)

        gates_R1 = gates_R[:, None]
        write_RN = gates_R1 * state.read_RN + (1 - gates_R1) * state.least_N[None]
        emptied_N = least_used(state.usage_N, 1)
        memory_NW = state.memory_NW * (1 - emptied_N[:, None]) + write_RN.T @ keys_RW

        read_RN = jax.vmap(by_content, in_axes=(None, 0, 0))(memory_NW, keys_RW, strengths_R)
        reads_RW = read_RN @ memory_NW
        usage_N = decay * state.usage_N + read_RN.sum(axis=0) + write_RN.sum(axis=0)
        outputs = control.read_out(params, hidden, reads_RW)
        after = MANNState(
            memory_NW, usage_N, read_RN, least_used(usage_N, read_heads), reads_RW, own
        )
        return after, outputs, {"read": read_RN, "write": write_RN}

    return Machine(control.init, start, step)
