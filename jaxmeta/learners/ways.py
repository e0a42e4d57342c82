"""What every classifier asks of its classes: enough of them, and examples of those it names."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array


def check_ways(name: str, ways: int) -> None:
    """Raises `ValueError` where there are fewer than two ways.

    >>> check_ways("prototypical", 1)
    Traceback (most recent call last):
    ...
    ValueError: prototypical: 1 ways; a classification needs at least 2.
    """
    if ways < 2:
        raise ValueError(f"{name}: {ways} ways; a classification needs at least 2.")


def among_known(scores_QW: Array, known_W: Array) -> Array:
    """The scores `[Q, ways]`, those of classes without an example below those of all others.

    So a class that the support does not show is never predicted. After a softmax it has less than
    1e-12 of the least probable known class. Where no class is known the scores stay as they are.

    >>> scores = among_known(jnp.array([[-50.0, 0.0, 1.0]]), jnp.array([True, False, True]))
    >>> scores.argsort()[0].tolist()
    [1, 0, 2]
    """
    lowest_Q1 = scores_QW.min(axis=1, keepdims=True, where=known_W[None], initial=jnp.inf)
    # The second part is there for short types, which would round a small distance away.
    below_Q1 = jax.lax.stop_gradient(lowest_Q1 - 27.7 - 0.01 * jnp.abs(lowest_Q1))
    return jnp.where(known_W[None] | ~known_W.any(), scores_QW, below_Q1)
