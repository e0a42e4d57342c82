"""Finite derivatives at zero, so that any inner optimizer is differentiable."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import PyTree
from jaxmeta.ops.derivatives import equations

# The slope is infinite at zero, while the value may be finite.
_STEEP = ("sqrt", "cbrt", "pow")
# The value is not finite everywhere; a `where` often discards the result there.
_UNBOUNDED = (*_STEEP, "rsqrt", "log", "div", "integer_pow")


def with_finite_derivatives(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function, with a derivative of zero where a root has an infinite one.

    At a gradient of exactly zero (a dead ReLU, masked examples), optimizers take the root of a zero
    second moment or norm, often behind a `where`. Its infinite derivative times zero is NaN. Here
    the derivative of the root at zero is zero, like that of the absolute value in JAX. Then Adam's
    step has its true slope −rate / eps, and a clipped gradient the slope of an unclipped one.
    A product or quotient that is not finite is also treated as constant; if it is used, the loss
    shows it. Values are bit-identical to those of `function`.

    >>> norm = lambda x: jnp.sqrt(jnp.square(x).sum())
    >>> jax.grad(with_finite_derivatives(norm))(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """

    def run(*arguments: PyTree) -> PyTree:
        # A new lambda each time: JAX caches traces by function, and `function` may close over
        # traced values.
        traced, shapes = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)(
            *arguments
        )
        if not any(map(_is_singular, equations(traced))):
            return function(*arguments)
        leaves = _evaluate(traced.jaxpr, traced.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return run


def _is_singular(equation: Any) -> bool:
    if equation.primitive.name == "integer_pow" and equation.params["y"] > 0:
        return False
    return equation.primitive.name in _UNBOUNDED and _is_real(equation.outvars[0].aval)


def _is_real(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _evaluate(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """A traced program's outputs, with each singular function made finite."""
    values = dict(zip((*program.constvars, *program.invars), (*constants, *arguments)))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in program.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs))
    return [read(atom) for atom in program.outvars]


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if _is_singular(equation) or (name == "mul" and _is_real(equation.outvars[0].aval)):
        return [_finite(equation, inputs)]
    if name == "jit":
        return _call(params["jaxpr"])(*inputs)
    if name == "cond":
        return jax.lax.switch(inputs[0], list(map(_call, params["branches"])), *inputs[1:])
    if name == "scan":
        return _scan(equation, inputs)
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _call(closed: Any) -> Callable[..., list[Any]]:
    program = getattr(closed, "jaxpr", closed)
    return lambda *inputs: _evaluate(program, getattr(closed, "consts", ()), inputs)


def _scan(equation: Any, inputs: list[Any]) -> list[Any]:
    params = equation.params
    program = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])

    def passed_whole(outer: Sequence[Any], inner: Sequence[Any]) -> int:
        # JAX releases store these counts differently. Rows have one axis more outside of the scan.
        return sum(o.aval.ndim == i.aval.ndim for o, i in zip(outer, inner, strict=True))

    carried = passed_whole(equation.outvars, program.outvars)
    fixed = passed_whole(equation.invars, program.invars) - carried
    step = _call(params["jaxpr"])

    def body(carry: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = step(*inputs[:fixed], *carry, *rows)
        return outputs[:carried], outputs[carried:]

    carry, rows = inputs[fixed : fixed + carried], inputs[fixed + carried :]
    carry, rows = jax.lax.scan(
        body, carry, rows, length=params["length"], reverse=params["reverse"]
    )
    return [*carry, *rows]


def _finite(equation: Any, inputs: list[Any]) -> Any:
    primitive, params = equation.primitive, equation.params

    def plain(*inputs: Any) -> Any:
        return primitive.bind(*inputs, **params)

    finite = jax.custom_jvp(plain)

    @finite.defjvp
    def _(inputs: Any, tangents: Any) -> tuple[Any, Any]:
        output = finite(*inputs)
        constant = ~jnp.isfinite(output)
        if primitive.name in _STEEP:
            constant |= (inputs[0] == 0) & (inputs[1] < 1 if primitive.name == "pow" else True)

        # Evaluated at 1 where the output is constant, as zero times an infinite slope is NaN.
        def slope_at(*inputs: Any) -> Any:
            away = [jnp.where(constant, jnp.ones_like(x), x) for x in inputs]
            return plain(*away)

        tangent = jax.jvp(slope_at, inputs, tangents)[1]
        return output, tangent

    return finite(*inputs)
