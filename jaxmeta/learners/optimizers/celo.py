"""Celo: an MLP as the rule of each entry, and an LSTM that schedules the size of all steps."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.inner.optimizers import check_params
from jaxmeta.learners.optimizers.learner import LearnedOptimizer, wide

DECAYS = (0.9, 0.99, 0.999)  # of the momenta and of the factored second moments
_SQUARES = 0.999  # decay of the second moments
_WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)  # of the features, in the order of `_moved`
_FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
_AVERAGES = 10  # of the loss, with half-lives from 10 steps to the whole run
_HIDDEN, _MEMORY = 4, 64


class LossAverages(NamedTuple):
    """Averages of the loss over several half-lives.

    Attributes:
      means_A: float `[10]`, not corrected for their start at 0.
      lowest_A: float `[10]`, the lowest corrected mean so far.
    """

    means_A: Array
    lowest_A: Array


class State(NamedTuple):
    """State of the optimizer.

    Attributes:
      momenta: `[..., 3]` for each parameter, for the decays.
      squares: `[..., 1]` for each parameter, the second moment.
      rows, columns: `[..., 3]` for each parameter, the factored second moments: means of the
        squares over the largest axis, and over the second largest. For a parameter with fewer than
        two axes, `rows` has all entries, and `columns` is None.
      losses: averages of the loss.
      memory: cell and hidden state of the LSTM, `[64]` each.
      step: int32 scalar, the number of steps so far.
    """

    momenta: PyTree
    squares: PyTree
    rows: PyTree
    columns: PyTree
    losses: LossAverages
    memory: tuple[Array, Array]
    step: Array


def celo_optimizer(steps: int) -> LearnedOptimizer:
    """Celo: the direction of each entry by an MLP, the size of all steps by an LSTM.

        (d, s, –) = MLP(features of ∇, θ, momenta and second moments; φ)          of each entry
        h_k = LSTM(progress k/K, averages of the loss; φ),  η_k = exp(w·h_k + b) / 10
        θ ← θ − η_k · 0.001 · rms(θ) · d · exp(0.001 s)                           rms of the tensor

    The features are ∇, ∇ clipped to ± 0.1, θ, three momenta, the second moment v, the momenta
    divided by √v, 1/√v, ∇ preconditioned by three factored second moments as in Adafactor, ∇/√v,
    the factors' rows and columns, the inverse of their roots, and the momenta preconditioned by
    them; each is divided by its root mean square over the tensor. Gradients are clipped to ± 1000.

    `update` takes the loss of the step as optax's extra argument `value`. The state is float32 or
    wider; updates have the parameters' dtypes. In the paper each tensor has an LSTM with shared
    weights; since the published one reads nothing of the tensor, all have the same state, and one
    is enough.

    Args:
      steps: K, the length of the run, which the schedule depends on.

    Raises:
      ValueError: fewer than 1 step; in `update`, no `value`.

    Source: Moudgil, Knyazev, Lajoie, Belilovsky 2025, "Celo: training versatile learned optimizers
    on a compute diet", section 3; features of Metz et al. 2022, "VeLO", appendix.

    >>> rule = celo_optimizer(steps=100)
    >>> transformation = rule.transformation(rule.init(jax.random.key(0)))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> state = transformation.init(params)
    >>> updates, state = transformation.update(params, state, params, value=jnp.ones(()))
    >>> updates["w"].shape
    (3, 2)
    """
    if steps < 1:
        raise ValueError(f"celo_optimizer: steps {steps}; give at least 1.")
    half_lives = np.logspace(1, math.log10(steps), _AVERAGES)
    decays = np.exp(-1.0 / half_lives)

    def transformation(meta_params: PyTree) -> optax.GradientTransformationExtraArgs:
        def start(params: PyTree) -> State:
            params = jax.tree.map(wide, params)
            dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(meta_params))
            rows, columns = (
                jax.tree.map(lambda p, part=part: _no_factors(p)[part], params) for part in (0, 1)
            )
            return State(
                jax.tree.map(lambda p: jnp.zeros((*p.shape, len(DECAYS)), p.dtype), params),
                jax.tree.map(lambda p: jnp.zeros((*p.shape, 1), p.dtype), params),
                rows,
                columns,
                LossAverages(
                    jnp.zeros(_AVERAGES, dtype), jnp.full(_AVERAGES, 999999999999.0, dtype)
                ),
                (meta_params["start"]["cell"], meta_params["start"]["hidden"]),
                jnp.zeros((), jnp.int32),
            )

        def update(
            updates: PyTree,
            state: Any,
            params: PyTree = None,
            *,
            value: Array | None = None,
            **extra: Any,
        ) -> tuple[PyTree, Any]:
            check_params("celo_optimizer", params)
            if value is None:
                raise ValueError(
                    "celo_optimizer requires the loss: give update(grads, state, params, "
                    "value=loss)."
                )
            losses, seen = _averaged(state.losses, wide(jnp.asarray(value)), state.step, decays)
            progress = state.step.astype(seen.dtype) / steps
            read = jnp.concatenate(
                [jnp.tanh(10 * (progress - jnp.asarray(_FRACTIONS, seen.dtype))), seen]
            )
            size, memory = _scheduled(meta_params["scheduler"], read, state.memory)

            def of_tensor(p: Array, g: Array, *own: Any) -> tuple[Array, tuple[Any, ...]]:
                clipped = jnp.clip(wide(g), -1000.0, 1000.0)
                move, own = _moved(meta_params["rule"], wide(p), clipped, own)
                return (-size * move).astype(p.dtype), own

            leaves, structure = jax.tree.flatten(params)
            parts = [structure.flatten_up_to(part) for part in (updates, *state[:4])]
            found = [of_tensor(*given) for given in zip(leaves, *parts)]
            moves = structure.unflatten([move for move, _ in found])
            momenta, squares, rows, columns = (
                structure.unflatten(own) for own in zip(*(own for _, own in found))
            )
            return moves, State(momenta, squares, rows, columns, losses, memory, state.step + 1)

        return optax.GradientTransformationExtraArgs(start, update)

    return LearnedOptimizer(_init, transformation, value=True)


def _init(key: Key) -> PyTree:
    """Random parameters in the shapes of the published ones."""
    keys = iter(jax.random.split(key, 7))

    def dense(inputs: int, outputs: int) -> dict[str, Array]:
        kernel = jax.random.normal(next(keys), (inputs, outputs)) / inputs**0.5
        return {"kernel": kernel, "bias": jnp.zeros(outputs)}

    read = len(_FRACTIONS) + _AVERAGES - 1
    return {
        "rule": [dense(sum(_WIDTHS), _HIDDEN), dense(_HIDDEN, _HIDDEN), dense(_HIDDEN, 3)],
        "scheduler": {
            "mixed": dense(read, _MEMORY),
            "own": dense(read, _MEMORY),
            "gates": dense(2 * _MEMORY, 4 * _MEMORY),
            "size": dense(_MEMORY, 1),
        },
        "start": {"cell": jnp.zeros(_MEMORY), "hidden": jnp.zeros(_MEMORY)},
    }


def from_published(theta: Mapping[str, Any]) -> PyTree:
    """The parameters of the rule from the tree of the authors' file.

    A layer whose result the authors' code overwrites, and the weights of a choice between rules of
    which there is one, are left out.

    Raises:
      KeyError, ValueError: another structure, or other shapes.
    """
    scheduler, rule = theta["rnn_params"], theta["ff_mod_stack"]["~"]

    def array(leaf: Any, *shape: int) -> Array:
        return jnp.asarray(np.asarray(leaf, np.float32).reshape(shape))

    def dense(own: Mapping[str, Any]) -> dict[str, Array]:
        return {"kernel": array(own["w"], *own["w"].shape), "bias": array(own["b"], -1)}

    first = [array(rule[f"w0__{i}"], width, _HIDDEN) for i, width in enumerate(_WIDTHS)]
    return {
        "rule": [
            {"kernel": jnp.concatenate(first), "bias": array(rule["b0"], _HIDDEN)},
            {"kernel": array(rule["w1"], _HIDDEN, _HIDDEN), "bias": array(rule["b1"], _HIDDEN)},
            {"kernel": array(rule["w2"], _HIDDEN, 3), "bias": array(rule["b2"], 3)},
        ],
        "scheduler": {
            "mixed": dense(scheduler["linear_1"]),
            "own": dense(scheduler["linear_2"]),
            "gates": dense(scheduler["rnn/linear"]),
            "size": dense(scheduler["step_size"]),
        },
        "start": {
            name: array(theta["lstm_init_state"][name], _MEMORY) for name in ("cell", "hidden")
        },
    }


def _dense(layer: Mapping[str, Array], inputs: Array) -> Array:
    return inputs @ layer["kernel"] + _last(layer["bias"], inputs.ndim)


def _last(values: Array, rank: int) -> Array:
    """The values along the last of `rank` axes."""
    return values.reshape((1,) * (rank - 1) + (-1,))


# --- the scheduler ------------------------------------------------------------------------


def _averaged(
    losses: LossAverages, loss: Array, step: Array, decays: np.ndarray
) -> tuple[LossAverages, Array]:
    """The averages with a new loss, and the nine features of them: where the loss is in its range.

    A loss is at most twice the largest average, so that one outlier does not spoil them.
    """
    decays_A = jnp.asarray(decays, losses.means_A.dtype)
    number = step.astype(decays_A.dtype)
    before_A = losses.means_A / (1 - decays_A ** (number + 1))
    bound = jnp.where(step == 0, loss, before_A.max())
    loss = jnp.minimum(2 * jnp.abs(bound), loss)
    means_A = decays_A * losses.means_A + (1 - decays_A) * loss
    corrected_A = means_A / (1 - decays_A ** (number + 1))
    lowest_A = jnp.minimum(losses.lowest_A, corrected_A)
    slower, faster, lowest = corrected_A[1:], corrected_A[:-1], lowest_A[:-1]
    place = (faster - lowest) / jnp.maximum(slower - lowest, 1e-8) - 1
    features = jnp.where(step + 1 <= 2, 0, jnp.clip(place, -1, 1))
    return LossAverages(means_A, lowest_A), features


def _scheduled(
    scheduler: Mapping[str, Any], read: Array, memory: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """η, and the memory of the LSTM after this step."""
    cell, hidden = memory
    inputs = _dense(scheduler["own"], read) + jax.nn.relu(_dense(scheduler["mixed"], read))
    gates = _dense(scheduler["gates"], jnp.concatenate([inputs, hidden]))
    write, new, forget, show = jnp.split(gates, 4)
    cell = jax.nn.sigmoid(forget + 1) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
    return 0.1 * jnp.exp(_dense(scheduler["size"], hidden)[0]), (cell, hidden)


# --- the rule of each entry ---------------------------------------------------------------


def _factored(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The second largest and the largest axis; None for fewer than two axes."""
    if len(shape) < 2:
        return None
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def _no_factors(p: Array) -> tuple[Array, Array | None]:
    axes, decays = _factored(p.shape), (len(DECAYS),)
    if axes is None:
        return jnp.zeros(p.shape + decays, p.dtype), None
    second, largest = (tuple(np.delete(p.shape, axis)) + decays for axis in axes)
    return jnp.zeros(largest, p.dtype), jnp.zeros(second, p.dtype)


def _root(values: Array, least: float = 1e-9) -> Array:
    return jax.lax.rsqrt(jnp.maximum(values, least))


def _moved(
    rule: list[Mapping[str, Array]], p: Array, g: Array, own: tuple[Any, ...]
) -> tuple[Array, tuple[Any, ...]]:
    """0.001 · rms(θ) · d · exp(0.001 s) of each entry of a tensor, and its new statistics."""
    momenta, squares, rows, columns = own
    decays = _last(jnp.asarray(DECAYS, g.dtype), g.ndim + 1)
    momenta = decays * momenta + (1 - decays) * g[..., None]
    squares = _SQUARES * squares + (1 - _SQUARES) * jnp.square(g)[..., None]
    large = (jnp.square(g) + 1e-30)[..., None]
    axes = _factored(g.shape)
    if axes is None:
        rows = decays * rows + (1 - decays) * large
        of_rows = of_columns = rows
        preconditioned = g[..., None] * _root(rows + 1e-9), momenta * rows**-0.5
    else:
        second, largest = axes
        decays = _last(decays, g.ndim)
        rows = decays * rows + (1 - decays) * large.mean(axis=largest)
        columns = decays * columns + (1 - decays) * large.mean(axis=second)
        over = second - 1 if second > largest else second  # the axis without the largest one
        relative = rows / (rows.mean(axis=over, keepdims=True) + 1e-9)
        factor = jnp.expand_dims(_root(relative), largest)
        factor = factor * jnp.expand_dims(_root(columns), second)
        preconditioned = g[..., None] * factor, momenta * factor
        of_rows = jnp.broadcast_to(jnp.expand_dims(rows, largest), momenta.shape)
        of_columns = jnp.broadcast_to(jnp.expand_dims(columns, second), momenta.shape)
    inverse = jax.lax.rsqrt(squares + 1e-6)
    features = [
        g[..., None],
        jnp.clip(g, -0.1, 0.1)[..., None],
        p[..., None],
        momenta,
        squares,
        momenta * inverse,
        inverse,
        preconditioned[0],
        g[..., None] * inverse,
        of_rows,
        of_columns,
        jax.lax.rsqrt(of_rows + 1e-8),
        jax.lax.rsqrt(of_columns + 1e-8),
        preconditioned[1],
    ]
    read = jnp.concatenate(features, axis=-1)
    over_tensor = tuple(range(g.ndim))
    read = read * jax.lax.rsqrt(1e-5 + jnp.square(read).mean(axis=over_tensor, keepdims=True))
    for layer in rule[:-1]:
        read = jax.nn.relu(_dense(layer, read))
    outputs = _dense(rule[-1], read)
    scale = jnp.sqrt(jnp.square(p).mean() + 1e-9)
    move = outputs[..., 0] * jnp.exp(0.001 * outputs[..., 1]) * 0.001 * scale
    return move, (momenta, squares, rows, columns)
