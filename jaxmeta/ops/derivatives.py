"""Custom derivative rules in a traced program, which may differ from the true derivatives."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.interpreters import ad

_JAX, _OPS = Path(jax.__file__).parent, Path(__file__).parent


def equations(program: Any) -> Iterator[Any]:
    """The equations of a traced program (a jaxpr), including those of nested programs."""
    for equation in _open(program).eqns:
        yield equation
        for inner in _programs_of(equation):
            yield from equations(inner)


def own_derivatives(program: Any) -> list[str]:
    """The functions of a traced program with a custom derivative rule of the user.

    Such a rule may differ from the true derivative, as with reversed or clipped gradients and
    straight-through estimators. Then second derivatives don't commute, and forward mode may not
    be available. The rules of JAX itself and of `jaxmeta.ops` are true derivatives, including
    `stop_gradient`, whose result is a constant.

    >>> @jax.custom_vjp
    ... def reverse(x):
    ...     return x
    >>> reverse.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))
    >>> own_derivatives(jax.make_jaxpr(lambda x: jax.nn.relu(reverse(x)))(1.0))
    ['reverse']
    """
    found: dict[str, None] = {}
    for equation in _open(program).eqns:
        name = equation.primitive.name
        inner = _programs_of(equation)
        if name.startswith(("custom_jvp_call", "custom_vjp_call")):
            about = _open(inner[0]).debug_info
            if not _is_true(name, about.func_name, Path(about.func_filename or "")):
                found[about.func_name] = None
            continue
        if name.startswith(("linear_call", "custom_transpose", "call_hi_primitive")):
            found[name] = None  # with a custom transpose, or custom derivatives
        elif name == "custom_linear_solve" and any(
            equation.primitive.name == "while" for part in inner for equation in equations(part)
        ):  # solved to some tolerance, so that the derivative is only approximate
            found["an iterative linear solver"] = None
        elif not _is_known(equation.primitive):
            found[name] = None
        for part in inner:
            found |= dict.fromkeys(own_derivatives(part))
    return list(found)


def _is_true(kind: str, function: str, file: Path) -> bool:
    if _OPS in file.parents:
        return True
    # A `custom_vjp` has no forward mode. `custom_root` has a solver of the user.
    return kind.startswith("custom_jvp") and _JAX in file.parents and function != "_custom_root"


def _is_known(primitive: Any) -> bool:
    rules = (ad.primitive_jvps.get(primitive), ad.primitive_transposes.get(primitive))
    return all(map(_is_written_here, rules))


def _is_written_here(rule: Any) -> bool:
    """Whether a primitive's rule, with all its parts, is defined in JAX or in `jaxmeta.ops`."""
    if isinstance(rule, partial):
        parts = (rule.func, *rule.args, *rule.keywords.values())
        return all(map(_is_written_here, parts))
    if isinstance(rule, tuple | list):
        return all(map(_is_written_here, rule))
    module = getattr(rule, "__module__", None) or "jax"
    return f"{module}.".startswith(("jax.", "functools.", "jaxmeta.ops."))


def _programs_of(equation: Any) -> list[Any]:
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)
    return [value for value in values if _is_program(value)]


def _is_program(value: Any) -> bool:
    return hasattr(_open(value), "eqns")


def _open(program: Any) -> Any:
    """The jaxpr of a closed jaxpr; others unchanged."""
    return program if hasattr(program, "eqns") else getattr(program, "jaxpr", program)
