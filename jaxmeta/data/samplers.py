"""Samplers of tasks on the device, and how to make one from a function."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax

from jaxmeta.core import Key, Task

# Partials compare by identity. The cache returns the same object for the same settings, so that
# samplers of equal settings and shapes share one compiled program.
_bind = functools.cache(functools.partial)


class Sampler(Protocol):
    """`sampler(key) -> task`: draws a task on the device; pure, for `jit` and `vmap`.

    The same key gives the same task, in every process and on any number of devices. The samplers
    of `jaxmeta.data` are `jax.tree_util.Partial`s whose leaves are the arrays they draw from: pass
    them to compiled functions as arguments. A plain function is a sampler too; wrap it as
    `jax.tree_util.Partial(function)` to pass it to your own `jax.jit`. For tasks that are made on
    the host, see `TaskStream`.
    """

    def __call__(self, key: Key, /) -> Task: ...


def sampler(draw: Callable[..., Any], *leaves: Any, **settings: Any) -> Any:
    """A sampler `sample(key) = draw(*leaves, key, **settings)`, as a `jax.tree_util.Partial`.

    The leaves are arrays or samplers (plain functions too), which are arguments of a compiled
    function; the settings must be hashable and are static.

    >>> def draw(scale, key, *, shape):
    ...     return scale * jax.random.normal(key, shape)
    >>> sample = sampler(draw, 2.0, shape=(3,))
    >>> sample(jax.random.key(0)).shape
    (3,)
    """
    return jax.tree_util.Partial(_bind(draw, **settings), *map(as_argument, leaves))


def as_argument(sample: Any) -> Any:
    """A sampler as an argument of compiled functions: wraps a plain function in a `Partial`.

    >>> as_argument(len)("abc")
    3
    """
    plain = callable(sample) and jax.tree_util.all_leaves([sample])
    return jax.tree_util.Partial(sample) if plain else sample
