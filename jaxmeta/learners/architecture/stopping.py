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
      init: `init() -> state`, with float leaves.
      check: `check(state, step, logits, loss) -> (state, met)` after every step; `met` is a bool
        scalar. `loss` is the loss of held-out examples as a function of the logits.
    """

    init: Callable[[], PyTree]
    check: Callable[[PyTree, Array, Array, HeldOutLoss], tuple[PyTree, Array]]


never = Stop(lambda: (), lambda state, step, logits, loss: (state, jnp.zeros((), bool)))
"""The rule that never stops."""


def skip_limit(operation: int, largest: int = 2) -> Stop:
    """Stops when more than `largest` edges have this operation, the skip connection.

        Σ_edges 1[argmax_o α_o = skip] > largest

    Args:
      operation: the index of the skip connection.
      largest: the number of skip connections that a cell may have.

    Raises:
      ValueError: a negative number.

    Source: Liang et al. 2019, "DARTS+: improved differentiable architecture search with early
    stopping", section 3.2.

    >>> rule = skip_limit(1, largest=1)
    >>> bool(rule.check((), jnp.array(0), jnp.eye(3)[jnp.array([1, 0, 1])], jnp.sum)[1])
    True
    """
    if min(operation, largest) < 0:
        raise ValueError(f"skip_limit: operation {operation}, largest {largest}; give 0 or more.")

    def check(state: PyTree, step: Array, logits: Array, loss: HeldOutLoss) -> tuple[PyTree, Array]:
        return state, (logits.argmax(axis=-1) == operation).sum() > largest

    return Stop(lambda: (), check)


class Eigenvalues(NamedTuple):
    """The state of `eigenvalue_growth`.

    Attributes:
      recent: the last dominant eigenvalues, the newest last; 0 where there is none yet.
      smoothed: the mean of the last five, as often as there are several; likewise.
    """

    recent: Array
    smoothed: Array


def eigenvalue_growth(
    every: int, *, ratio: float = 0.75, window: int = 5, lag: int = 4, iterations: int = 10
) -> Stop:
    """Stops when the curvature of the held-out loss in the architecture grows fast.

        λ(t): the dominant eigenvalue of ∇²_α L(w, α; query), λ̄(t) its mean over `window` epochs
        stop if λ̄(t − lag) / λ̄(t) < ratio

    The eigenvalue is computed by power iteration with products of the Hessian and a vector.

    Args:
      every: steps of an epoch; eigenvalues are computed at the end of each.
      ratio: the smallest ratio at which the search goes on.
      window, lag: in epochs.
      iterations: products of the power iteration.

    Raises:
      ValueError: a number that is not positive.

    Source: Zela, Elsken, Saikia, Marrakchi, Brox, Hutter 2020, "Understanding and robustifying
    differentiable architecture search", section 4.3.

    >>> rule = eigenvalue_growth(2, window=1, lag=1)
    >>> state, met = rule.check(
    ...     rule.init(), jnp.array(1), jnp.ones((1, 2)), lambda a: 3 * jnp.square(a).sum())
    >>> float(state.recent[-1]), bool(met)
    (6.0, False)
    """
    if min(every, ratio, window, lag, iterations) <= 0:
        raise ValueError(
            f"eigenvalue_growth: every {every}, ratio {ratio}, window {window}, lag {lag}, "
            f"{iterations} iterations; give positive numbers."
        )

    def init() -> Eigenvalues:
        return Eigenvalues(jnp.zeros((window,)), jnp.zeros((lag + 1,)))

    def check(
        state: Eigenvalues, step: Array, logits: Array, loss: HeldOutLoss
    ) -> tuple[Eigenvalues, Array]:
        def measure() -> tuple[Eigenvalues, Array]:
            value = dominant_eigenvalue(loss, logits, iterations).astype(state.recent.dtype)
            recent = jnp.append(state.recent[1:], value)
            known = recent != 0
            mean = recent.sum() / jnp.maximum(known.sum(), 1)
            smoothed = jnp.append(state.smoothed[1:], mean)
            before = smoothed[0]
            return Eigenvalues(recent, smoothed), (before > 0) & (before < ratio * mean)

        def keep() -> tuple[Eigenvalues, Array]:
            return state, jnp.zeros((), bool)

        return jax.lax.cond((step + 1) % every == 0, measure, keep)

    return Stop(init, check)


def dominant_eigenvalue(loss: HeldOutLoss, logits: Array, iterations: int = 10) -> Array:
    """The eigenvalue of the Hessian of `loss` with the largest magnitude, by power iteration.

        v ← H v / ‖H v‖,  λ = vᵀ H v

    The start is a fixed random vector.

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
