"""What makes a sampler of a function: its settings bound, its arrays as leaves."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Partials compare by identity: the same settings give the same object, so that samplers alike
# in settings and shapes share one compiled program.
_bind = functools.cache(functools.partial)


def sampler(draw: Callable[..., Any], *leaves: Any, **settings: Any) -> Any:
    """`sample(key)`, which is `draw(*leaves, key, **settings)`, as a `jax.tree_util.Partial`.

    The leaves are arrays or samplers, and travel into a compiled function as its arguments; the
    settings are hashable, and part of the program.

    >>> def draw(scale, key, *, shape):
    ...     return scale * jax.random.normal(key, shape)
    >>> sample = sampler(draw, 2.0, shape=(3,))
    >>> sample(jax.random.key(0)).shape
    (3,)
    """
    return jax.tree_util.Partial(_bind(draw, **settings), *leaves)
