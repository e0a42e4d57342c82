"""Optional PRNG keys: without a key, predictions are deterministic."""

import jax

from jaxmeta.core import Key


def split_key(key: Key | None, count: int = 2) -> list[Key | None]:
    """Split a key into `count` keys; None is split into Nones.

    >>> split_key(None)
    [None, None]
    """
    return [None] * count if key is None else list(jax.random.split(key, count))
