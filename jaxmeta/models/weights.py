"""Parameters as a small file that NumPy can read."""

import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmeta.core import PyTree
from jaxmeta.files import read_arrays

IDENTITY = "@identity"  # an entry that is not a leaf


def pack(params: PyTree, identity: str | None = None) -> bytes:
    """The bytes of an `.npz` file with every leaf under its name, such as `block_0/conv_0/kernel`.

    `identity` identifies the run that trained the parameters, and is stored with them.

    >>> data = pack({"head": {"bias": np.zeros(3)}})
    >>> np.load(io.BytesIO(data))["head/bias"].shape
    (3,)
    """
    buffer = io.BytesIO()
    owner = {} if identity is None else {IDENTITY: np.asarray(identity)}
    np.savez(buffer, allow_pickle=False, **_named(params, np.asarray), **owner)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """The parameters in the bytes of `pack`, as nested dictionaries of arrays.

    Raises:
      ValueError: the bytes are not a file of parameters, or are damaged.

    >>> unpack(pack({"head": {"bias": np.ones(3)}}))["head"]["bias"].tolist()
    [1.0, 1.0, 1.0]
    """
    try:
        found = read_arrays(data)
    except Exception as error:  # a damaged zip raises exceptions of many types
        raise ValueError(f"not a file of parameters, or a damaged one ({error})") from error
    params: dict[str, Any] = {}
    for name, values in found.items():
        if name == IDENTITY:
            continue
        *branches, leaf = name.split("/")
        branch = params
        for step in branches:
            branch = branch.setdefault(step, {})
            if not isinstance(branch, dict):
                break
        if not isinstance(branch, dict) or leaf in branch:
            raise ValueError(f"not a file of parameters: {name!r} is both values and a group")
        branch[leaf] = values
    return params


def check_alike(params: PyTree, like: PyTree) -> None:
    """Raises `ValueError`, naming the first difference, unless names and shapes are the same.

    >>> check_alike({"bias": np.ones(3)}, {"bias": np.ones(4)})
    Traceback (most recent call last):
    ...
    ValueError: parameters of another network: bias is (3,), expected (4,)
    """
    found, wanted = _named(params, np.shape), _named(like, np.shape)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"parameters of another network: {name} is {found.get(name, 'missing')}, expected "
                f"{wanted.get(name, 'no array')}"
            )


def _named(tree: PyTree, read: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(place, simple=True, separator="/"): read(leaf)
        for place, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
