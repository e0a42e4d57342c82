"""Packed learners: run folders with compressed weights in place of checkpoints.

    config.json    of the run, unchanged: its settings and data, and so its identity
    results.json   of the run, unchanged: results with protocol and interval, command, versions
    weights.npz    the trained parameters, as float16 or float32
    packed.json    step, type and digest of the weights, the command that packed them, and whether
                   `Recipe.finish` has changed them

`jaxmeta.restore` reads such a folder as it reads a run. It has no list of the classes that the run
has seen: an evaluation on other data reads them from the data of the run.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import files
from jaxmeta.core import PyTree
from jaxmeta.recipes.folders import IDENTITY
from jaxmeta.training.checkpoints import Restored
from jaxmeta.training.leaves import as_leaf, bits_of, named, no_bits

WEIGHTS, PACKED = "weights.npz", "packed.json"
_MOST = 2**28  # bytes of weights, unpacked


def compress(tree: PyTree, dtype: str) -> bytes:
    """The leaves of a tree as the bytes of an `.npz` file, with all floats as `dtype`."""
    arrays = {name: bits_of(leaf) for name, leaf in named(tree).items()}
    with np.errstate(over="ignore"):  # infinite in float16: the command refuses it
        arrays = {
            name: array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array
            for name, array in arrays.items()
        }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def expand(weights: bytes, like: PyTree) -> PyTree:
    """The inverse of `compress`: the leaves in the shapes and types of `like`.

    Raises:
      ValueError: the arrays are those of another tree.
      Exception: of many types, if the bytes are damaged.
    """
    arrays, examples = files.read_arrays(weights, _MOST), named(like)
    expected = {name: no_bits(example) for name, example in examples.items()}
    if different := arrays.keys() ^ expected.keys():
        raise ValueError(f"{min(different)} is an array of one of the two learners only")
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise ValueError(f"{name} is {array.shape}, the learner has {expected[name].shape}")
    leaves = [
        as_leaf(example, arrays[name].astype(expected[name].dtype))
        for name, example in examples.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def write_packed(folder: Path, weights: bytes, about: Mapping[str, Any]) -> None:
    """Write the weights and what is known `about` them, with `identity` and `step`."""
    files.write_bytes(folder / WEIGHTS, weights)
    digest = hashlib.sha256(weights).hexdigest()
    files.write_json(folder / PACKED, {**about, "weights_sha256": digest})


def read_packed(folder: Path, like: PyTree, identity: str, *, finished: bool) -> Restored | None:
    """The weights in a packed folder, in the shapes and types of `like`; None if it has none.

    Raises:
      ValueError: they are damaged, or belong to another run or learner; they are `finished` and
        should not be, or the reverse.
      OSError: they can't be read.
    """
    if not (folder / PACKED).is_file():
        return None
    try:
        about = files.read_json(folder / PACKED)
        weights = (folder / WEIGHTS).read_bytes()
        if about["weights_sha256"] != hashlib.sha256(weights).hexdigest():
            raise ValueError("it has changed since it was written")
        if about[IDENTITY] != identity:
            raise ValueError("it belongs to another run")
        found = Restored(int(about["step"]), expand(weights, like), {})
    except OSError:
        raise
    except Exception as error:  # a damaged file raises exceptions of many types
        raise ValueError(
            f"{folder / WEIGHTS} can't be used ({error}); pack the run again, or install jaxmeta "
            "again."
        ) from error
    if about["finished"] is not finished:
        raise ValueError(
            f"{folder} was packed without the weights that this change requires, such as those "
            "for other --query-statistics; leave the change out, or use the run itself."
        )
    return found
