"""Rules that stop an architecture search before its cell collapses to skip connections."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, PyTree

HeldOutLoss = Callable[[Array], Array]
"""`loss(logits) -> scalar`, the loss of the query at the current weights."""


class Stop(NamedTuple):
    """A rule that stops a search.

    Attributes:
      init: `init(logits) -> state`, with float leaves; logits are `[edges, operations]`.
      check: `check(state, step, logits, loss) -> (state, met, derived)` after every step; `met` is
        a bool scalar, `derived` the logits of the architecture to keep if it is met. `loss` is the
        loss of held-out examples as a function of the logits.
    """

    init: Callable[[Array], PyTree]
    check: Callable[[PyTree, Array, Array, HeldOutLoss], tuple[PyTree, Array, Array]]


never = Stop(
    lambda logits: (), lambda state, step, logits, loss: (state, jnp.zeros((), bool), logits)
)
"""The rule that never stops."""


def skip_limit(operation: int, largest: int = 1) -> Stop:
    """Stops when more than `largest` edges have this operation, the skip connection.

        Σ_edges 1[argmax_o α_o = skip] > largest

    The last architecture within the limit is kept; if there was none, the first one.

    Args:
      operation: the index of the skip connection.
      largest: the number of skip connections that a cell may have. The paper stops at two.

    Raises:
      ValueError: a negative number.

    Source: Liang et al. 2019, "DARTS+: improved differentiable architecture search with early
    stopping", section 3.2.

    >>> rule = skip_limit(1, largest=1)
    >>> logits = jnp.eye(3)[jnp.array([1, 0, 1])]
    >>> bool(rule.check(rule.init(logits), jnp.array(0), logits, jnp.sum)[1])
    True
    """
    if min(operation, largest) < 0:
        raise ValueError(f"skip_limit: operation {operation}, largest {largest}; give 0 or more.")

    def check(
        state: Array, step: Array, logits: Array, loss: HeldOutLoss
    ) -> tuple[Array, Array, Array]:
        met = (logits.argmax(axis=-1) == operation).sum() > largest
        kept = jnp.where(met, state, logits)
        return kept, met, kept

    return Stop(lambda logits: logits, check)


class Eigenvalues(NamedTuple):
    """The state of `eigenvalue_growth`.

    Attributes:
      recent: the last dominant eigenvalues, `[window]`, the newest last; 0 until known.
      smoothed: the means of `recent` at the last measurements, `[lag + 1]`, likewise.
      logits: the logits at those measurements, `[lag + 1, edges, operations]`.
      measured: float scalar, the number of measurements.
    """

    recent: Array
    smoothed: Array
    logits: Array
    measured: Array


def eigenvalue_growth(
    every: int,
    *,
    ratio: float = 0.75,
    window: int = 5,
    lag: int = 4,
    first: int = 10,
    iterations: int = 10,
) -> Stop:
    """Stops when the curvature of the held-out loss in the architecture grows fast.

        λ(t): the dominant eigenvalue of ∇²_α L(w, α; query), λ̄(t) its mean over `window` epochs
        stop if λ̄(t − lag) / λ̄(t) < ratio; keep the architecture of epoch t − lag

    The eigenvalue is computed by power iteration with products of the Hessian and a vector. While
    it is negative, the search goes on.

    Args:
      every: steps of an epoch; eigenvalues are computed at the end of each.
      ratio: the smallest ratio at which the search goes on.
      window, lag: in epochs.
      first: the first epoch at which the search may stop.
      iterations: products of the power iteration.

    Raises:
      ValueError: a number that is not positive.

    Source: Zela, Elsken, Saikia, Marrakchi, Brox, Hutter 2020, "Understanding and robustifying
    differentiable architecture search", section 4.3, and `first` as in its published code.

    >>> rule = eigenvalue_growth(2, window=1, lag=1)
    >>> logits = jnp.ones((1, 2))
    >>> state, met, _ = rule.check(
    ...     rule.init(logits), jnp.array(1), logits, lambda a: 3 * jnp.square(a).sum())
    >>> float(state.recent[-1]), bool(met)
    (6.0, False)
    """
    if min(every, ratio, window, lag, first, iterations) <= 0:
        raise ValueError(
            f"eigenvalue_growth: every {every}, ratio {ratio}, window {window}, lag {lag}, first "
            f"{first}, {iterations} iterations; give positive numbers."
        )

    def init(logits: Array) -> Eigenvalues:
        zeros = jnp.zeros((window,), logits.dtype), jnp.zeros((lag + 1,), logits.dtype)
        history = jnp.broadcast_to(logits, (lag + 1, *logits.shape))
        return Eigenvalues(*zeros, history, jnp.zeros((), logits.dtype))

    def check(
        state: Eigenvalues, step: Array, logits: Array, loss: HeldOutLoss
    ) -> tuple[Eigenvalues, Array, Array]:
        def measure() -> tuple[Eigenvalues, Array]:
            value = dominant_eigenvalue(loss, logits, iterations).astype(state.recent.dtype)
            recent = jnp.append(state.recent[1:], value)
            mean = recent.sum() / jnp.minimum(state.measured + 1, window)
            smoothed = jnp.append(state.smoothed[1:], mean)
            history = jnp.concatenate([state.logits[1:], logits[None]])
            after = Eigenvalues(recent, smoothed, history, state.measured + 1)
            before = smoothed[0]
            grows = (before > 0) & (before < ratio * mean)
            return after, grows & (after.measured >= first)

        def keep() -> tuple[Eigenvalues, Array]:
            return state, jnp.zeros((), bool)

        state, met = jax.lax.cond((step + 1) % every == 0, measure, keep)
        return state, met, state.logits[0]

    return Stop(init, check)


def dominant_eigenvalue(loss: HeldOutLoss, logits: Array, iterations: int = 10) -> Array:
    """The eigenvalue of the Hessian of `loss` with the largest magnitude, by power iteration.

        v ← H v / ‖H v‖,  λ = vᵀ H v

    The start is a fixed random vector. The eigenvalue may be negative.

    Args:
      loss: a function of the logits.
      logits: float, of any shape.
      iterations: products of the Hessian and a vector.

    >>> loss = lambda x: x[0] ** 2 + 3 * x[1] ** 2
    >>> round(float(dominant_eigenvalue(loss, jnp.zeros(2), 20)), 4)
    6.0
    """

    def product(vector: Array) -> Array:
        return jax.jvp(jax.grad(loss), (logits,), (vector,))[1]

    def turn(vector: Array, _: Any) -> tuple[Array, None]:
        image = product(vector)
        return image / (jnp.linalg.norm(image) + 1e-30), None

    start = jax.random.normal(jax.random.key(0), logits.shape, logits.dtype)
    vector, _ = jax.lax.scan(turn, start / jnp.linalg.norm(start), length=iterations)
    return (vector * product(vector)).sum()
