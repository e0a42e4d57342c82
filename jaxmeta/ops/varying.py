"""Over which mesh axes a value varies, under `shard_map`."""

from typing import Any

import jax

from jaxmeta.core import PyTree


def varying_with(tree: PyTree, data: PyTree) -> PyTree:
    """The tree, varying over the mesh axes that the data varies over; itself outside `shard_map`.

    A start that all devices share, zeros for instance, would else get the inner gradient of all
    their tasks, summed, without a word. The transpose is the sum over those axes.

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
