"""An MLP as a learned optimizer, which reads the statistics of hand-designed optimizers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.inner.optimizers import check_params
from jaxmeta.learners.optimizers.learner import LearnedOptimizer, wide

DECAYS = (0.5, 0.9, 0.99, 0.999)
TIMESCALES = (1, 3, 10, 30, 100, 300, 1000, 3000)


class _State(NamedTuple):
    """State of the optimizer: momenta for each decay `[4, ...]`, mean squares, step count."""

    momenta: PyTree
    squares: PyTree
    step: Array


class _Rule(nn.Module):
    """From the features of each entry, `[n, F]`, to a direction and a log size, `[n, 2]`."""

    hidden: int

    @nn.compact
    def __call__(self, features: Array) -> Array:
        for index in range(2):
            features = nn.relu(nn.Dense(self.hidden, name=f"hidden_{index}")(features))
        return nn.Dense(2, name="output")(features)


def mlp_optimizer(*, hidden: int = 16, scale: float = 0.01, reach: float = 3.0) -> LearnedOptimizer:
    """An MLP, shared by all parameters, that reads momenta, gradient sizes and the step number.

        (d, s) = MLP(θ̄, ∇̄, four m̄_β, ∇/√v̂, four m̂_β/√v̂, log(√v̂)/10, eight times; φ)
        θ ← θ + scale · d · exp(reach · tanh(s / reach))

    m̂_β are moving averages of the gradient with decays β = 0.5, 0.9, 0.99 and 0.999, and v̂ of
    its square with 0.999, each divided by 1 − βᵗ as in Adam. θ̄, ∇̄ and m̄_β are θ, ∇ and m̂_β
    divided by their root mean square over the tensor, so that only log √v̂ depends on the scale of
    the loss. All of these are clipped to ± 5. Times are tanh(t / τ − 1) of the step t, for
    τ = 1, 3, 10, …, 3000.

    An entry does not change before its first nonzero gradient. The state is float32 or wider;
    updates have the parameters' dtypes.

    Args:
      hidden: width of both hidden layers.
      scale: factor of every step.
      reach: bound of s, the logarithm of a step's size. Like the clipping of the features, it
        limits the steps of a rule outside the problems of its training.

    Source: Metz et al. 2019, "Understanding and correcting pathologies in the training of learned
    optimizers", section 5.1; Metz et al. 2020, "Tasks, stability, architecture, and compute",
    appendix.

    >>> optimizer = mlp_optimizer()
    >>> transformation = optimizer.transformation(optimizer.init(jax.random.key(0)))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> updates, _ = transformation.update(params, transformation.init(params), params)
    >>> updates["w"].shape
    (3, 2)
    """
    rule = _Rule(hidden)
    count = 4 + 2 * len(DECAYS) + len(TIMESCALES)

    def init(key: Key) -> PyTree:
        return rule.init(key, jnp.zeros((1, count)))["params"]

    def transformation(meta_params: PyTree) -> optax.GradientTransformation:
        def start(params: PyTree) -> _State:
            params = jax.tree.map(wide, params)
            momenta = jax.tree.map(lambda p: jnp.zeros((len(DECAYS), *p.shape), p.dtype), params)
            return _State(momenta, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

        def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
            check_params("mlp_optimizer", params)
            step = state.step + 1
            updates = jax.tree.map(wide, updates)

            def remember(momenta: Array, g: Array) -> Array:
                decays = jnp.asarray(DECAYS, g.dtype).reshape(-1, *(1,) * g.ndim)
                return decays * momenta + (1 - decays) * g[None]

            momenta = jax.tree.map(remember, state.momenta, updates)
            squares = jax.tree.map(
                lambda v, g: 0.999 * v + 0.001 * jnp.square(g), state.squares, updates
            )

            def move(p: Array, g: Array, momenta: Array, v: Array) -> Array:
                features = _features(wide(p), g, momenta, v, step)
                outputs: Any = rule.apply({"params": meta_params}, features)
                sizes = jnp.exp(reach * jnp.tanh(outputs[:, 1] / reach))
                moves = (scale * outputs[:, 0] * sizes).reshape(p.shape)
                # The square of a tiny gradient underflows to 0; its momenta do not.
                has_moved = (v > 0) | (momenta != 0).any(axis=0)
                return jnp.where(has_moved, moves, 0).astype(p.dtype)

            moves = jax.tree.map(move, params, updates, momenta, squares)
            return moves, _State(momenta, squares, step)

        return optax.GradientTransformation(start, update)

    return LearnedOptimizer(init, transformation)


def _features(p: Array, g: Array, momenta: Array, v: Array, step: Array) -> Array:
    """The features of each entry of a parameter, float `[n, F]`."""
    p, g, v = (leaf.reshape(-1) for leaf in (p, g, v))
    momenta = momenta.reshape(len(DECAYS), -1)
    time = step.astype(g.dtype)
    unbiased = v / (1 - 0.999**time)
    size = jnp.sqrt(unbiased + 1e-16)
    corrected = momenta / (1 - jnp.asarray(DECAYS, g.dtype)[:, None] ** time)

    def unit(row: Array) -> Array:
        return row * jax.lax.rsqrt(jnp.square(row).mean(axis=-1, keepdims=True) + 1e-12)

    rows = jnp.stack(
        [unit(p), unit(g), *unit(corrected), g / size, *corrected / size[None], jnp.log(size) / 10]
    )
    rows = jnp.clip(rows, -5, 5)
    times = jnp.tanh(time / jnp.asarray(TIMESCALES, g.dtype) - 1)
    return jnp.concatenate([rows, jnp.broadcast_to(times[:, None], (times.size, g.size))]).T
