"""Batch normalisation with the statistics of a whole set, folded into scale and shift."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Model, PyTree
from jaxmeta.models.layers import Normalisation


def folded(model: Model, params: PyTree, batches: Array, *, epsilon: float = 1e-5) -> PyTree:
    """Parameters with which the same network needs no statistics: they stand in scale and shift.

        γ' = γ / √(σ² + ε),  β' = β − μ γ'

    μ and σ² are a layer's, over all the batches; the layers before it normalise by each batch, as
    they did in training. Use the result with the network built with `normalisation="none"`.

    Args:
      model: of a Linen module, with `Normalisation` layers of the kind `batch`.
      params: its parameters, a head included or not.
      batches: images float `[batches, examples, H, W, C]`.
      epsilon: ε, as in the normalisation.

    Raises:
      ValueError: the model has no such layer, or computes one within a fused block (the first of
        `conv4` with pooling).

    >>> from jaxmeta.models import resnet12
    >>> network, key = resnet12(width=2), jax.random.key(0)
    >>> images = jax.random.normal(key, (3, 4, 16, 16, 3))
    >>> frozen = folded(network, network.init(key, images[0]), images)
    >>> resnet12(width=2, normalisation="none").apply(frozen, images[0]).shape
    (4, 16)
    """

    def sums(batch: Array) -> dict[tuple[str, ...], tuple[Array, Array]]:
        found: dict[tuple[str, ...], tuple[Array, Array]] = {}

        def record(run: Callable, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, Normalisation) and context.method_name == "__call__":
                values = args[0]
                axes = tuple(range(values.ndim - 1))
                found[context.module.path] = values.mean(axes), jnp.square(values).mean(axes)
            return run(*args, **kwargs)

        with nn.intercept_methods(record):
            model.apply(params, batch)
        return found

    means = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.lax.map(sums, batches))
    result = jax.tree.map(lambda leaf: leaf, params)  # a copy of the tree, not of its leaves
    layers = _layers(result)
    if not layers or set(layers) != set(means):
        raise ValueError(
            "folded: the model's normalisation layers are not all seen by themselves "
            f"({len(means)} of {len(layers)}); take a network without fused blocks, resnet12."
        )
    for path, (mean, square) in means.items():
        layer = layers[path]
        scale = layer["scale"] * jax.lax.rsqrt(square - jnp.square(mean) + epsilon)
        layer.update(scale=scale, bias=layer["bias"] - mean * scale)
    return result


def _layers(tree: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, Any]]:
    """The parameters of normalisation layers, a scale and a bias, by their path."""
    if not isinstance(tree, dict):
        return {}
    if set(tree) == {"scale", "bias"}:
        return {path: tree}
    return {
        place: layer
        for name, branch in tree.items()
        for place, layer in _layers(branch, (*path, name)).items()
    }
