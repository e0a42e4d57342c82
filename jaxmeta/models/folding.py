"""Batch normalisation with the statistics of a whole set, folded into scale and shift."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Model, PyTree
from jaxmeta.models.layers import Normalisation
from jaxmeta.ops.normalisation import Moments


def folded(model: Model, params: PyTree, batches: Array, *, epsilon: float = 1e-5) -> PyTree:
    """The parameters of the same network with its statistics folded into scale and shift.

        γ' = γ / √(σ² + ε),  β' = β − μ γ'

    μ and σ² are the statistics of a layer over all batches; the layers before it normalise each
    batch by its own statistics, as in training. Use the result with the same network built with
    `query_statistics="training"`.

    Args:
      model: made from a Linen module, with `Normalisation` layers of the kind `batch`.
      params: its parameters, with or without a head.
      batches: images float `[batches, examples, H, W, C]`.
      epsilon: ε, as in the normalisation.

    Raises:
      ValueError: the model has no such layer.

    >>> from jaxmeta.models import resnet12
    >>> network, key = resnet12(width=2), jax.random.key(0)
    >>> images = jax.random.normal(key, (3, 4, 16, 16, 3))
    >>> frozen = folded(network, jax.jit(network.init)(key, images[0]), images)
    >>> jax.jit(resnet12(width=2, query_statistics="training").apply)(frozen, images[0]).shape
    (4, 16)
    """

    def moments_of(batch: Array) -> dict[tuple[str, ...], Moments]:
        found: dict[tuple[str, ...], Moments] = {}

        def record(run: Callable, args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name == "is_fused":  # a block computed as one hides its statistics
                return False
            if isinstance(context.module, Normalisation) and context.method_name == "__call__":
                # As in `standardise`: widened, and centred before squaring.
                values = args[0].astype(jnp.promote_types(args[0].dtype, jnp.float32))
                axes = tuple(range(values.ndim - 1))
                found[context.module.path] = Moments(values.mean(axes), values.var(axes))
            return run(*args, **kwargs)

        with nn.intercept_methods(record):
            model.apply(params, batch)
        return found

    moments = jax.lax.map(moments_of, batches)
    result = jax.tree.map(lambda leaf: leaf, params)  # a copy of the tree, not of its leaves
    layers = _layers(result)
    if not layers or set(layers) != set(moments):
        raise ValueError(
            f"folded: found {len(moments)} of {len(layers)} normalisation layers of the model; use "
            "a network with normalisation, such as conv4 or resnet12."
        )
    for path, (means, variances) in moments.items():
        layer = layers[path]
        variance = variances.mean(axis=0) + means.var(axis=0)
        scale = layer["scale"] * jax.lax.rsqrt(variance + epsilon)
        layer.update(scale=scale, bias=layer["bias"] - means.mean(axis=0) * scale)
    return result


def _layers(tree: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, Any]]:
    """The parameters of normalisation layers, those with a scale and a bias, by path."""
    if not isinstance(tree, dict):
        return {}
    if set(tree) == {"scale", "bias"}:
        return {path: tree}
    return {
        place: layer
        for name, branch in tree.items()
        for place, layer in _layers(branch, (*path, name)).items()
    }


def frozen_encoder(
    model: Model, params: PyTree, batches: Array, *, epsilon: float = 1e-5
) -> PyTree:
    """The parameters of `folded` without the head: an encoder that computes no statistics.

    Arguments and errors are as for `folded`. Use the result with the same network built without a
    head and with `query_statistics="training"`.

    >>> from jaxmeta.models import resnet12
    >>> network, key = resnet12(5, width=2), jax.random.key(0)
    >>> images = jax.random.normal(key, (1, 4, 16, 16, 3))
    >>> "head" in frozen_encoder(network, jax.jit(network.init)(key, images[0]), images)
    False
    """
    layers = folded(model, params, batches, epsilon=epsilon)
    return {name: layer for name, layer in layers.items() if name != "head"}
