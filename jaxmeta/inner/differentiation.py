"""How the meta-gradient goes back through the inner loop, as a value.

Every way runs the same forward inner loop. They differ in what the backward pass keeps:

| way | meta-gradient | memory, in inner steps K |
|---|---|---|
| `reverse_mode` | exact | every activation of every step |
| `rematerialised` | exact | the parameters of every step |
| `mixed_mode` | exact | the parameters of every step, no reverse over reverse |
| `truncated(k)` | through the last k steps, straight through before | as k steps |
| `first_order` | inner gradients taken as constants | one step |

A loss whose derivatives are rules of its own (`jax.custom_vjp`, `jax.custom_jvp`: a reversed or
clipped gradient, a straight-through estimator) is differentiated in reverse mode within
`mixed_mode` too, each step recomputed: the derivatives of such rules don't commute. Those of JAX
itself, `jax.nn.relu` for one, are true, and `stop_gradient` makes a constant in every mode.

`second_order` names the recommended exact one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.ops.derivatives import own_derivatives

InnerLoss = Callable[[Key, PyTree, PyTree], Array]
"""`loss(key, params, batch) -> scalar`, what an inner loop descends."""


class Differentiation(NamedTuple):
    """A way to differentiate through the inner loop.

    Attributes:
      constant_gradients: take the inner gradients as constants (first order).
      mixed: give the inner gradient a backward pass by forward over reverse.
      rematerialise: recompute each step in the backward pass instead of storing it.
      last: differentiate through this many last steps only. Defaults to all.
    """

    constant_gradients: bool = False
    mixed: bool = False
    rematerialise: bool = False
    last: int | None = None


reverse_mode: Differentiation = Differentiation()
"""Exact; keeps every activation of every step."""
rematerialised: Differentiation = Differentiation(rematerialise=True)
"""Exact; keeps the parameters of every step, and computes each step anew on the way back."""
mixed_mode: Differentiation = Differentiation(mixed=True)
"""Exact; keeps the parameters of every step, and never differentiates a backward pass, unless the
loss has derivatives of its own (see above)."""
first_order: Differentiation = Differentiation(constant_gradients=True)
"""Takes the inner gradients as constants; keeps one step."""
# Measured on 2 CPU cores, MAML on the stride-2 conv4, 32 tasks, ms a meta-update with 1 / 5 inner
# steps: mixed mode 114 / 538, rematerialised 140 / 620, reverse mode 185 / 625. Its memory is
# that of rematerialisation (see the table above), so there is nothing to weigh.
second_order: Differentiation = mixed_mode
"""The recommended exact one, `mixed_mode`."""


def truncated(last: int, way: Differentiation = second_order) -> Differentiation:
    """Differentiate through the last `last` inner steps, straight through those before.

        θ̃_{K−k} = φ + stop_gradient(θ_{K−k} − φ),  then k differentiated steps

    so that the meta-gradient with respect to the initialisation φ is that of the last k
    steps started at θ_{K−k}, and never vanishes; k = 0 is first order for the initialisation
    and gives learned rates no gradient (Shaban et al. 2019, section 2, with the start of the
    window taken as the initialisation).

    Raises:
      ValueError: `last` is negative.

    >>> truncated(3).last
    3
    """
    if last < 0:
        raise ValueError(f"truncated: {last} steps; give 0 or more.")
    return way._replace(last=last)


DIFFERENTIATIONS: dict[str, Differentiation] = {
    "second-order": second_order,
    "first-order": first_order,
    "mixed-mode": mixed_mode,
    "rematerialised": rematerialised,
    "reverse-mode": reverse_mode,
}
"""By the names of the command line."""


def gradient_of(
    loss: InnerLoss, way: Differentiation, *, value: bool = False
) -> Callable[..., PyTree]:
    """The inner gradient `g(theta, key, rest) = ∇_theta loss(key, theta, rest)`, in that way.

    All that may carry a derivative is an explicit argument: `rest` holds the frozen
    parameters and the data. With `value`, g gives the pair of loss and gradient.
    """

    def gradient(theta: PyTree, key: Key, rest: PyTree) -> PyTree:
        derivative = jax.value_and_grad if value else jax.grad
        return derivative(loss, argnums=1)(key, theta, rest)

    if way.constant_gradients:
        return lambda theta, key, rest: jax.lax.stop_gradient(gradient(theta, key, rest))
    return _forward_over_reverse(loss, value, gradient) if way.mixed else gradient


def _forward_over_reverse(
    loss: InnerLoss, value: bool, otherwise: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """The inner gradient with a backward pass that never differentiates a backward pass.

    A cotangent v of g = ∇_θ L pulls back to vᵀ∂g/∂θ and vᵀ∂g/∂η for every other argument η.
    Second derivatives commute, so both are the derivative of ∇_(θ,η) L along (v, 0): one
    `jvp` of `grad` (Kemaev et al. 2025, arXiv 2505.00793, section 3). A cotangent u of the value
    adds u ∇_(θ,η) L, which that `jvp` has at hand.

    Where the loss has derivatives of its own they need not commute: then it is `otherwise`, kept
    in the same memory.
    """

    def split(tree: PyTree) -> tuple[list, list, Callable[[list, list], PyTree]]:
        leaves, treedef = jax.tree.flatten(tree)
        real = [bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating)) for leaf in leaves]

        def join(floats: list, others: list) -> PyTree:
            parts = {True: iter(floats), False: iter(others)}
            return treedef.unflatten([next(parts[is_real]) for is_real in real])

        return (
            [leaf for leaf, is_real in zip(leaves, real) if is_real],
            [leaf for leaf, is_real in zip(leaves, real) if not is_real],
            join,
        )

    def gradient(theta: PyTree, key: Key, rest: PyTree) -> PyTree:
        # What the loss closes over, labels or the scale of an objective, may be traced too. Traces
        # are cached by function: a new one each time reads anew what is closed over.
        traced = jax.make_jaxpr(lambda *given: loss(*given))(key, theta, rest)
        if own_derivatives(traced):
            return jax.checkpoint(lambda *given: otherwise(*given))(theta, key, rest)
        floats, others, join = split((key, rest, traced.consts))

        def loss_of(theta: PyTree, floats: list, others: list) -> Array:
            key, rest, captured = join(floats, others)
            given = jax.tree.leaves((key, theta, rest))
            return eval_jaxpr(traced.jaxpr, captured, *given)[0]

        derivative = jax.value_and_grad if value else jax.grad

        @jax.custom_vjp
        def differentiable(theta: PyTree, floats: list, others: list) -> PyTree:
            return derivative(loss_of)(theta, floats, others)

        def forward(theta: PyTree, floats: list, others: list):
            return differentiable(theta, floats, others), (theta, floats, others)

        def backward(residuals, cotangent: PyTree):
            theta, floats, others = residuals
            of_value, of_gradient = cotangent if value else (None, cotangent)
            gradients, pulled_back = jax.jvp(
                lambda theta: jax.grad(loss_of, argnums=(0, 1))(theta, floats, others),
                (theta,),
                (of_gradient,),
            )
            if value:
                pulled_back = jax.tree.map(
                    lambda a, b: a + (of_value * b).astype(a.dtype), pulled_back, gradients
                )
            return *pulled_back, None

        differentiable.defvjp(forward, backward)
        return differentiable(theta, floats, others)

    return gradient
