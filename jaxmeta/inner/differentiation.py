"""Ways to differentiate through the inner loop, as values.

All run the same forward inner loop; they differ in what the backward pass stores:

| way | meta-gradient | stored |
|---|---|---|
| `reverse_mode` | exact | every activation of every step |
| `rematerialised` | exact | the parameters of every step |
| `mixed_mode` | exact, without reverse over reverse | the parameters of every step |
| `truncated(k)` | through the last k steps, straight-through before | as for k steps |
| `first_order` | inner gradients taken as constants | one step |

If the loss has custom derivatives (`jax.custom_vjp`, `jax.custom_jvp`: a reversed or clipped
gradient, a straight-through estimator), `mixed_mode` differentiates it in reverse mode and
recomputes each step, because its second derivatives need not commute. The rules of JAX itself, such
as `jax.nn.relu`, are true derivatives, and `stop_gradient` makes a constant in every mode.

`second_order` is the recommended exact way.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.ops.derivatives import own_derivatives

InnerLoss = Callable[[Key, PyTree, PyTree], Array]
"""`loss(key, params, batch) -> scalar`, the loss that an inner loop minimises."""


class Differentiation(NamedTuple):
    """A way to differentiate through the inner loop.

    Attributes:
      constant_gradients: take the inner gradients as constants (first order).
      mixed: compute the backward pass of the inner gradient by forward over reverse.
      rematerialise: recompute each step in the backward pass instead of storing it.
      last: differentiate through only this many last steps. Defaults to all.
    """

    constant_gradients: bool = False
    mixed: bool = False
    rematerialise: bool = False
    last: int | None = None


reverse_mode: Differentiation = Differentiation()
"""Exact; stores every activation of every step."""
rematerialised: Differentiation = Differentiation(rematerialise=True)
"""Exact; stores the parameters of every step and recomputes each step in the backward pass."""
mixed_mode: Differentiation = Differentiation(mixed=True)
"""Exact; stores the parameters of every step and differentiates no backward pass, unless the loss
has custom derivatives (see above)."""
first_order: Differentiation = Differentiation(constant_gradients=True)
"""Takes the inner gradients as constants; stores one step."""
# Measured on 2 CPU cores, MAML on the stride-2 conv4, 32 tasks, ms a meta-update with 1 / 5 inner
# steps: mixed mode 114 / 538, rematerialised 140 / 620, reverse mode 185 / 625. It stores as much
# as rematerialisation (see the table above), so that it is the best choice.
second_order: Differentiation = mixed_mode
"""The recommended exact way: `mixed_mode`."""


def truncated(last: int, way: Differentiation = second_order) -> Differentiation:
    """Differentiate through the last `last` inner steps, straight-through for those before.

        θ̃_{K−k} = φ + stop_gradient(θ_{K−k} − φ),  then k differentiated steps

    with k = `last`. The meta-gradient with respect to the initialisation φ is that of k steps
    started at θ_{K−k}, and does not vanish. k = 0 is first order for the initialisation; learned
    rates then have no gradient.

    Raises:
      ValueError: `last` is negative.

    Source: Shaban et al. 2019, section 2, here with the start of the window taken as the
    initialisation.

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
"""Ways to differentiate, by their names on the command line."""


def gradient_of(
    loss: InnerLoss, way: Differentiation, *, value: bool = False
) -> Callable[..., PyTree]:
    """The inner gradient `g(theta, key, rest) = ∇_theta loss(key, theta, rest)`, for this way.

    Everything that may be differentiated is an explicit argument: `rest` holds the frozen
    parameters and the data. With `value`, g returns the pair of loss and gradient.
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
    """The inner gradient, with a backward pass that does not differentiate a backward pass.

    A cotangent v of g = ∇_θ L pulls back to vᵀ∂g/∂θ and vᵀ∂g/∂η for every other argument η.
    Second derivatives commute, so both are the derivative of ∇_(θ,η) L along (v, 0): one
    `jvp` of `grad` (Kemaev et al. 2025, arXiv 2505.00793, section 3). A cotangent u of the value
    adds u ∇_(θ,η) L, which the same `jvp` computes.

    Second derivatives of a loss with custom derivatives need not commute: it is differentiated by
    `otherwise`, checkpointed, which stores as much.
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
        # The loss may close over traced values, such as labels or the scale of an objective. JAX
        # caches traces by function: a new lambda each time reads the current values.
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
