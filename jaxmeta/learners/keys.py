"""Keys that may be missing: predictions are deterministic without one."""

import jax

from jaxmeta.core import Key


def split_key(key: Key | None, count: int = 2) -> list[Key | None]:
    """Split a key; of no key the parts are None.

    >>> split_key(None)
    [None, None]
    """
    return [None] * count if key is None else list(jax.random.split(key, count))
