"""The leaves of a tree as stored in a checkpoint: names, types, bits and checksums."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import PyTree


def named(tree: PyTree) -> dict[str, Any]:
    """Every leaf by its path, such as `params['Dense_0']['kernel']`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def type_of(leaf: Any) -> str:
    """The type of a leaf, such as `float32[5, 5]`; Python numbers have their NumPy type."""
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"


def bits_of(leaf: Any) -> np.ndarray:
    """A leaf as a host array; for a key its data."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def no_bits(example: Any) -> np.ndarray:
    """The result of `bits_of` for a leaf without elements."""
    if _is_key(example):
        example = jax.eval_shape(jax.random.key_data, example)
    return np.zeros(example.shape, example.dtype)


def sha256_of(leaf: Any, bits: np.ndarray) -> str:
    """The SHA-256 of a leaf's type and bits."""
    return hashlib.sha256(type_of(leaf).encode() + bits.tobytes()).hexdigest()


def as_leaf(example: Any, bits: np.ndarray) -> Any:
    """The bits as a leaf of the type of `example`."""
    if isinstance(example, np.ndarray | np.generic):
        return bits
    if isinstance(example, int | float | complex):
        return bits.item()
    # A copy: JAX may otherwise share NumPy's memory, and training donates its state.
    array = jnp.array(bits)
    return jax.random.wrap_key_data(array, dtype=example.dtype) if _is_key(example) else array


def all_numbers(test: Callable[[np.ndarray], Any], tree: PyTree) -> bool:
    """Whether all numbers of a tree, real or complex, pass a test such as `np.isfinite`."""
    leaves = (leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact))
    return all(np.all(test(leaf)) for leaf in jax.device_get(list(leaves)))
