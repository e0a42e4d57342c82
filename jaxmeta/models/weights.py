"""Parameters as one small file, which NumPy reads too."""

import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmeta.core import PyTree


def pack(params: PyTree) -> bytes:
    """The bytes of an `.npz` file with every leaf under its name, such as `block_0/conv_0/kernel`.

    >>> data = pack({"head": {"bias": np.zeros(3)}})
    >>> np.load(io.BytesIO(data))["head/bias"].shape
    (3,)
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **_named(params, np.asarray))
    return buffer.getvalue()


def unpack(data: bytes, like: PyTree) -> PyTree:
    """The parameters from what `pack` gave; `like` has their structure, shapes and dtypes.

    Raises:
      ValueError: no such file; names or shapes of another model, with the first that differs.

    >>> params = {"head": {"bias": np.ones(3)}}
    >>> unpack(pack(params), params)["head"]["bias"].tolist()
    [1.0, 1.0, 1.0]
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as entries:
            found = dict(entries)
    except Exception as error:  # a damaged zip raises many kinds
        raise ValueError(f"not a file of parameters, or a damaged one ({error})") from error
    wanted = _named(like, lambda leaf: leaf)
    for name in sorted(found.keys() | wanted.keys()):
        here = str(found[name].shape) if name in found else "missing"
        there = str(wanted[name].shape) if name in wanted else "missing"
        if here != there:
            raise ValueError(
                f"parameters of another model: {name} is {here} in the file, {there} in the model"
            )
    leaves = [found[name].astype(leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: PyTree, read: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(place, simple=True, separator="/"): read(leaf)
        for place, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
