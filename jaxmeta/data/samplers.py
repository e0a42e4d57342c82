"""Samplers of tasks on the device: what they are, and how one is made of a function."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax

from jaxmeta.core import Key, Task

# Partials compare by identity: the same settings give the same object, so that samplers alike
# in settings and shapes share one compiled program.
_bind = functools.cache(functools.partial)


class Sampler(Protocol):
    """`sampler(key) -> task`: draws a task on the device; pure, for `jit` and `vmap`.

    The same key gives the same task, in every process and on any number of devices. Those of
    `jaxmeta.data` are `jax.tree_util.Partial`s whose leaves are the arrays they draw from: pass
    them to a compiled function as arguments. Tasks that are made on the host come as a
    `TaskStream`.
    """

    def __call__(self, key: Key, /) -> Task: ...


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
