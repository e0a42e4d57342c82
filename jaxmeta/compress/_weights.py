"""Which leaves of the parameters are compressed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, PyTree


def is_weight(leaf: Any) -> bool:
    """Whether a leaf is a weight: a float array with two axes or more.

    >>> is_weight(jnp.ones((3, 2))), is_weight(jnp.ones(3)), is_weight(jnp.ones((3, 2), int))
    (True, False, False)
    """
    return jnp.ndim(leaf) >= 2 and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def weights_of(name: str, params: PyTree) -> list[Array]:
    """The weights of the parameters, in the order of their leaves.

    Raises:
      ValueError: there are none, or they are quantised; `name` is the caller's.
    """
    leaves = jax.tree.leaves(params)
    if any(jnp.result_type(leaf) == jnp.int8 for leaf in leaves):
        raise ValueError(
            f"{name}: the parameters are quantised; apply it before `quantised`, or to "
            "`dequantised` parameters."
        )
    found = [leaf for leaf in leaves if is_weight(leaf)]
    if not found:
        raise ValueError(
            f"{name}: the parameters have no float array with two axes or more; give the "
            "parameters of a network."
        )
    return found


def map_weights(change: Callable[..., Any], params: PyTree, *rest: list[Any]) -> PyTree:
    """The parameters with `change(weight, ...)` for each weight; `rest` has one entry per weight.

    >>> map_weights(jnp.negative, {"bias": 1.0, "kernel": jnp.ones((1, 2))})["kernel"].tolist()
    [[-1.0, -1.0]]
    """
    entries = iter(zip(*rest)) if rest else None

    def changed(leaf: Any) -> Any:
        if not is_weight(leaf):
            return leaf
        return change(leaf) if entries is None else change(leaf, *next(entries))

    return jax.tree.map(changed, params)
