"""Selections of the parameters that adapt, and trees split in two by them."""

from collections.abc import Callable

import jax

from jaxmeta.core import PyTree

Selection = Callable[[str], bool]
"""`selects("hidden_0/kernel") -> bool`: whether the parameter at that path adapts."""


def only(*names: str) -> Selection:
    """Select the parameters under any of these names: `only("head")` is ANIL's selection.

    A name may have several path components: `only("hidden_0/bias")`.

    >>> only("head")("head/kernel"), only("head")("conv_0/kernel")
    (True, False)
    """
    return lambda path: any(f"/{name}/" in f"/{path}/" for name in names)


def excluding(*names: str) -> Selection:
    """Select the parameters not under these names: `excluding("head")` is BOIL's selection.

    >>> excluding("head")("head/kernel"), excluding("head")("conv_0/kernel")
    (False, True)
    """
    chosen = only(*names)
    return lambda path: not chosen(path)


def partition(tree: PyTree, selects: Selection | None) -> tuple[PyTree, PyTree]:
    """Split a tree into the selected leaves and the others, with None in place of missing leaves.

    Without a selection (None), all leaves are selected. `combine` is the inverse.

    Raises:
      ValueError: the selection matches no leaf.

    >>> partition({"body": 1.0, "head": 2.0}, only("head"))
    ({'body': None, 'head': 2.0}, {'body': 1.0, 'head': None})
    """
    if selects is None:
        return tree, jax.tree.map(lambda leaf: None, tree)
    paths = paths_of(tree)
    leaves, treedef = jax.tree.flatten(tree)
    chosen = [selects(path) for path in paths]
    if not any(chosen):
        raise ValueError(f"no parameter is selected to adapt; choose from {', '.join(paths)}.")
    return (
        treedef.unflatten([leaf if pick else None for leaf, pick in zip(leaves, chosen)]),
        treedef.unflatten([None if pick else leaf for leaf, pick in zip(leaves, chosen)]),
    )


def paths_of(tree: PyTree) -> list[str]:
    """The paths of the leaves, as passed to selections.

    >>> paths_of({"head": {"bias": 1.0, "kernel": 2.0}})
    ['head/bias', 'head/kernel']
    """
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def combine(first: PyTree, second: PyTree) -> PyTree:
    """Merge two trees made by `partition`.

    >>> combine({"body": None, "head": 2.0}, {"body": 1.0, "head": None})
    {'body': 1.0, 'head': 2.0}
    """
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )
