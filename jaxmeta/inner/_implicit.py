"""Implicit differentiation of an inner loop at its optimum, without backpropagation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.inner._partition import Selection, combine, partition
from jaxmeta.inner._unroll import InnerLoop, Unrolled, unroll
from jaxmeta.inner.differentiation import InnerLoss, first_order
from jaxmeta.ops import varying_with
from jaxmeta.ops.derivatives import own_derivatives

Solver = Callable[[Callable[[PyTree], PyTree], PyTree], PyTree]
"""`solver(A·, b) -> x` with A x = b."""


def conjugate_gradients(steps: int = 5, *, tolerance: float | None = None) -> Solver:
    """Solve A x = b for symmetric positive definite A by at most `steps` conjugate-gradient steps.

    It stops earlier if ‖A x − b‖ ≤ tolerance · ‖b‖; `tolerance` defaults to machine epsilon. Raises
    `ValueError` for fewer than 1 step.

    >>> solve = conjugate_gradients(2)
    >>> solve(lambda x: jnp.array([2.0, 4.0]) * x, jnp.array([2.0, 2.0])).round(3).tolist()
    [1.0, 0.5]
    """

    if steps < 1:
        raise ValueError(f"conjugate_gradients: {steps} steps; give at least 1.")

    def solve(matrix: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        rounding = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(b))
        least = rounding if tolerance is None else tolerance
        return jax.scipy.sparse.linalg.cg(matrix, b, tol=least, maxiter=steps)[0]

    return solve


def neumann_series(terms: int, scale: float) -> Solver:
    """Solve A x = b by the first terms of the Neumann series.

        x = α Σ_{j < terms} (I − α A)ʲ b

    which converges if A's eigenvalues are between 0 and 2/α, with α = `scale`. For A = H + λI,
    `scale=1 / λ` gives the series of (−H/λ)ʲ (Lorraine et al. 2020, section 4). Raises `ValueError`
    for fewer than 1 term or a scale that isn't positive.

    >>> round(float(neumann_series(20, 0.2)(lambda x: 4.0 * x, jnp.array(2.0))), 3)
    0.5
    """

    if terms < 1 or not scale > 0:
        raise ValueError(
            f"neumann_series: {terms} terms, scale {scale}; give at least 1 term and "
            "a positive scale."
        )

    def solve(matrix: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
        def add_term(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
            total, term = carry
            total = jax.tree.map(jnp.add, total, term)
            term = jax.tree.map(lambda t, moved: t - scale * moved, term, matrix(term))
            return (total, term), None

        first = jax.tree.map(lambda leaf: scale * leaf, b)
        zeros = jax.tree.map(jnp.zeros_like, b)
        return jax.lax.scan(add_term, (zeros, first), length=terms)[0][0]

    return solve


def implicit(
    loss: InnerLoss,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    strength: float,
    damping: float = 0.0,
    solver: Solver | None = None,
    adapts: Selection | None = None,
) -> InnerLoop:
    """A proximal inner loop, differentiated at its optimum by the implicit function theorem.

        θ* = argmin_θ loss(θ; support) + λ/2 ‖θ − φ‖²
        dθ*/dφ = λ (H + λI)⁻¹,  dθ*/dη = −(H + λI)⁻¹ ∂²loss/∂θ∂η

    H is the Hessian of the loss in θ at θ*; η is everything else that the loss depends on:
    parameters that don't adapt, the support set. Any `optimizer` can be used; its steps are not
    stored, so that memory doesn't grow with their number. The derivative is exact if the inner loop
    has reached θ*.

    Args:
      loss, optimizer, steps, adapts: as in `unroll`.
      strength: λ > 0, large enough that H + λI is positive definite.
      damping: added to λ in the derivatives only.
      solver: solver of the symmetric system. Defaults to `conjugate_gradients(5)`.

    Returns:
      an inner loop as in `unroll`. Its observations have no derivative.

    Raises:
      ValueError: negative `steps`, λ not positive, negative damping; at a call, an
        `optimizer`, an `optimizer_state` or `batches`, which the derivative would not see; a loss
        with custom derivatives (`jax.custom_vjp` and the like), whose Hessian need not be
        symmetric.

    Source: Rajeswaran, Finn, Kakade, Levine 2019, "Meta-learning with implicit gradients", Lemma 1.

    >>> inner = implicit(lambda key, w, target: (w - target) ** 2, optax.sgd(0.2), 50, strength=2.0)
    >>> end = lambda start: inner(jax.random.key(0), start, jnp.asarray(3.0)).params
    >>> round(float(end(1.0)), 3), round(float(jax.grad(end)(1.0)), 3)  # (2·3 + 2·1) / 4, 2 / 4
    (2.0, 0.5)
    """
    if not strength > 0 or damping < 0:
        raise ValueError(
            f"implicit: strength {strength}, damping {damping}; give a positive strength and a "
            "damping of 0 or more."
        )

    def proximal(key: Key, params: PyTree, given: tuple[PyTree, PyTree]) -> Array:
        support, start = given
        squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), params, start)
        return loss(key, params, support) + strength / 2 * sum(jax.tree.leaves(squares))

    descend = unroll(proximal, optimizer, steps, differentiation=first_order, adapts=adapts)
    solve = conjugate_gradients() if solver is None else solver

    def inner(
        key: Key,
        params: PyTree,
        support: PyTree,
        /,
        *,
        optimizer: optax.GradientTransformation | None = None,
        optimizer_state: PyTree = None,
        observe: Callable[[PyTree], Any] | None = None,
        batches: Array | None = None,
    ) -> Unrolled:
        if optimizer is not None or optimizer_state is not None or batches is not None:
            raise ValueError(
                "implicit: the derivative depends on the optimum only, not on the steps; it cannot "
                "see an optimizer or a state given at the call (learned rates), nor batches. Use "
                "`unroll` for these."
            )

        rules = own_derivatives(jax.make_jaxpr(lambda *given: loss(*given))(key, params, support))
        if rules:
            raise ValueError(
                f"implicit: the loss has custom derivatives ({', '.join(rules)}), so that its "
                "Hessian need not be symmetric, as the implicit derivative requires. Use "
                "`unroll`, which differentiates through the steps."
            )
        end = _without_derivative(partial(descend, observe=observe), key, params, (support, params))
        start, frozen = partition(params, adapts)
        start = varying_with(start, support)

        def slope(theta: PyTree) -> PyTree:
            grads = jax.grad(lambda theta: loss(key, combine(theta, frozen), support))(theta)
            pull = strength + damping
            return jax.tree.map(lambda g, a, b: g + pull * (a - b), grads, theta, start)

        def solve_linear(matrix: Callable[[PyTree], PyTree], b: PyTree) -> PyTree:
            return jax.lax.custom_linear_solve(matrix, b, solve, symmetric=True)

        theta = jax.lax.custom_root(
            slope, partition(end.params, adapts)[0], lambda _, theta: theta, solve_linear
        )
        return end._replace(params=combine(theta, frozen))

    return inner


def _without_derivative(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """`stop_gradient(function(*arguments))`, also for values that the function closes over.

    Raises:
      ValueError: a value that it closes over is differentiated.
    """
    arguments = jax.lax.stop_gradient(arguments)
    structure = jax.tree.structure(jax.eval_shape(function, *arguments))

    def leaves_of(*arguments: PyTree) -> tuple:
        return tuple(jax.tree.leaves(function(*arguments)))

    # The values that it closes over become arguments.
    converted, hidden = jax.closure_convert(leaves_of, *arguments)

    @jax.custom_jvp
    def run(arguments: Any, hidden: Any) -> tuple:
        return converted(*arguments, *hidden)

    @partial(run.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> Any:
        zero = jax.custom_derivatives.SymbolicZero
        if not all(isinstance(tangent, zero) for tangent in jax.tree.leaves(tangents[1])):
            raise ValueError(
                "implicit: a value that the optimizer or the loss closes over is differentiated (a "
                "learned rate); the implicit derivative cannot see it. Use `unroll`, or pass the "
                "value in the parameters or the support set."
            )
        outputs = run(*primals)
        return outputs, jax.tree.map(jnp.zeros_like, outputs)

    return jax.tree.unflatten(structure, run(arguments, hidden))
