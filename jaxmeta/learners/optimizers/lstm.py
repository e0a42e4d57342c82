"""An LSTM as a learned optimizer, applied to each coordinate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.inner import log_and_sign
from jaxmeta.learners.optimizers.learner import LearnedOptimizer, ravelled


class _State(NamedTuple):
    """State of the optimizer: LSTM states, and which coordinates have had a nonzero gradient."""

    memories: Any
    moved_N: Array


class _Cells(nn.Module):
    """Two LSTM layers and a linear output, applied to each coordinate: `[N, 2]` to `[N]`."""

    hidden: int

    @nn.compact
    def __call__(self, memories: Any, values: Array) -> tuple[Any, Array]:
        after = []
        for index, memory in enumerate(memories):
            memory, values = nn.OptimizedLSTMCell(self.hidden, name=f"layer_{index}")(
                memory, values
            )
            after.append(memory)
        return tuple(after), nn.Dense(1, name="output")(values)[:, 0]


def lstm_optimizer(*, hidden: int = 20, scale: float = 0.01) -> LearnedOptimizer:
    """A coordinate-wise LSTM with two layers.

        u_k, h_{k+1} = LSTM(log-and-sign of ∇_k, h_k; φ),  θ_{k+1} = θ_k + scale · u_k

    A coordinate does not change before its first nonzero gradient. The state is float32 or wider;
    updates have the parameters' dtypes.

    Args:
      hidden: width of each layer.
      scale: factor of the output.

    Source: Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    sections 2.1 and 3, appendix A.

    >>> import jax
    >>> optimizer = lstm_optimizer()
    >>> transformation = optimizer.transformation(optimizer.init(jax.random.key(0)))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> updates, _ = jax.jit(transformation.update)(params, transformation.init(params), params)
    >>> updates["w"].shape
    (3, 2)
    """
    cells = _Cells(hidden)

    def memories(count: int, dtype: Any) -> Any:
        zeros = jnp.zeros((count, hidden), dtype)
        return ((zeros, zeros), (zeros, zeros))

    def init(key: Key) -> PyTree:
        return cells.init(key, memories(1, jnp.float32), jnp.zeros((1, 2)))["params"]

    def transformation(meta_params: PyTree) -> optax.GradientTransformation:
        def start(params_N: Array) -> _State:
            widest = jnp.result_type(params_N, *jax.tree.leaves(meta_params))
            never = jnp.zeros(params_N.shape, bool)
            return _State(memories(params_N.size, widest), never)

        def step(grads_N: Array, state: _State, params_N: Array) -> tuple[Array, _State]:
            read = log_and_sign(grads_N)
            outputs: Any = cells.apply({"params": meta_params}, state.memories, read)
            moved_N = state.moved_N | (grads_N != 0)
            return jnp.where(moved_N, scale * outputs[1], 0), _State(outputs[0], moved_N)

        return ravelled("lstm_optimizer", start, step)

    return LearnedOptimizer(init, transformation)
