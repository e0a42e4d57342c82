"""Checks of arguments, and scores of classes without support examples."""

from typing import Any, get_args

import jax
import jax.numpy as jnp

from jaxmeta.core import Array


def check_ways(name: str, ways: int) -> None:
    """Raise `ValueError` for fewer than two ways.

    >>> check_ways("prototypical", 1)
    Traceback (most recent call last):
    ...
    ValueError: prototypical: 1 ways; classification requires at least 2.
    """
    if ways < 2:
        raise ValueError(f"{name}: {ways} ways; classification requires at least 2.")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise `ValueError` for a value that is none of a `Literal`.

    >>> from typing import Literal
    >>> check_choice("multi_task", "heads", Literal["head", "all"])
    Traceback (most recent call last):
    ...
    ValueError: multi_task: unknown 'heads'; give head or all.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}: unknown {value!r}; give {' or '.join(get_args(choices))}.")


def among_known(scores_QW: Array, known_W: Array) -> Array:
    """The scores `[Q, ways]`, with classes without a support example below all other classes.

    So a class without a support example is never predicted. After a softmax its probability is less
    than 1e-12 times that of the least probable known class. If no class is known, the scores are
    unchanged.

    >>> scores = among_known(jnp.array([[-50.0, 0.0, 1.0]]), jnp.array([True, False, True]))
    >>> scores.argsort()[0].tolist()
    [1, 0, 2]
    """
    lowest_Q1 = scores_QW.min(axis=1, keepdims=True, where=known_W[None], initial=jnp.inf)
    # The relative part is for short dtypes, which would round a small difference away.
    below_Q1 = jax.lax.stop_gradient(lowest_Q1 - 27.7 - 0.01 * jnp.abs(lowest_Q1))
    return jnp.where(known_W[None] | ~known_W.any(), scores_QW, below_Q1)
