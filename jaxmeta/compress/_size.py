"""The stored size of parameters."""

import jax
import numpy as np

from jaxmeta.compress._quantisation import Quantised
from jaxmeta.compress._weights import is_weight
from jaxmeta.core import PyTree


def stored_bytes(params: PyTree) -> int:
    """The number of bytes that parameters take, compressed or not.

        dense: N b;  sparse: n b + ⌈N / 8⌉

    for an array of N numbers of b bytes, n of them nonzero. An array is stored dense, but a weight
    array (float or int8, with two axes or more) sparse if that is smaller: its nonzero values, and
    one bit per number that marks them. `Quantised` weights take one byte per number, and those of
    their scales. Names and shapes are not counted, nor is further compression of the file, such as
    that of `.npz`.

    >>> import jax.numpy as jnp
    >>> from jaxmeta.compress import pruned, quantised
    >>> params = {"bias": jnp.ones(4), "kernel": jnp.arange(1.0, 41.0).reshape(10, 4)}
    >>> stored_bytes(params), stored_bytes(quantised(params))
    (176, 72)
    >>> stored_bytes(pruned(params, 0.9))  # 4 values of 4 bytes, 40 bits, and the bias
    37
    """
    total = 0
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, Quantised)):
        array = np.asarray(leaf.values if isinstance(leaf, Quantised) else leaf)
        size = array.nbytes
        if isinstance(leaf, Quantised) or is_weight(leaf):
            nonzero = int(np.count_nonzero(array))
            size = min(size, nonzero * array.itemsize + -(-array.size // 8))
        if isinstance(leaf, Quantised):
            size += np.asarray(leaf.scale).nbytes
        total += size
    return total
