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
    `TaskStream`. A plain function is a sampler too: the functions of this library take it as it is;
    as an argument of your own `jax.jit` write `jax.tree_util.Partial(function)`.
    """

    def __call__(self, key: Key, /) -> Task: ...


def sampler(draw: Callable[..., Any], *leaves: Any, **settings: Any) -> Any:
    """`sample(key)`, which is `draw(*leaves, key, **settings)`, as a `jax.tree_util.Partial`.

    The leaves are arrays or samplers, plain functions among them, and travel into a compiled
    function as its arguments; the settings are hashable, and part of the program.

    >>> def draw(scale, key, *, shape):
    ...     return scale * jax.random.normal(key, shape)
    >>> sample = sampler(draw, 2.0, shape=(3,))
    >>> sample(jax.random.key(0)).shape
    (3,)
    """
    return jax.tree_util.Partial(_bind(draw, **settings), *map(as_argument, leaves))


def as_argument(sample: Any) -> Any:
    """A sampler as compiled functions take it: a plain function in a `jax.tree_util.Partial`.

    >>> as_argument(len)("abc")
    3
    """
    plain = callable(sample) and jax.tree_util.all_leaves([sample])
    return jax.tree_util.Partial(sample) if plain else sample
