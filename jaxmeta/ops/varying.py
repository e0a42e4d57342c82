"""The mesh axes that a value varies over, under `shard_map`."""

from typing import Any

import jax

from jaxmeta.core import PyTree


def varying_with(tree: PyTree, data: PyTree) -> PyTree:
    """Makes a tree vary over the mesh axes that the data varies over; no-op outside `shard_map`.

    Required for an initial value that all devices share, such as zeros: its inner gradient would
    otherwise be silently summed over the tasks of all devices. The transpose is the sum over these
    axes.

    >>> varying_with({"w": 0.0}, jax.numpy.ones(3))
    {'w': 0.0}
    """
    axes = frozenset().union(*map(_varying_axes, jax.tree.leaves(data)))

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(axes - _varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def _varying_axes(leaf: Any) -> frozenset:
    return jax.typeof(leaf).manual_axis_type.varying
