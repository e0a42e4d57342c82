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

    return _changed(model, params, batches, lambda layer, own: _normalised(layer, own, epsilon))


def unfolded(model: Model, params: PyTree, batches: Array, *, epsilon: float = 1e-5) -> PyTree:
    """The opposite of `folded`: the parameters of a network that normalises by batch statistics.

        γ = γ' √(σ² + ε),  β = β' + μ γ'

    Train or prune the result, then fold it again. μ and σ² are the statistics of the folded
    network, so that unfolding and folding returns the same network, but for the spread of a batch's
    statistics around those of all batches.

    Args:
      model: as for `folded`, but built with `query_statistics="training"`.
      params: the result of `folded`.
      batches, epsilon: as for `folded`.

    Raises:
      ValueError: as for `folded`.

    >>> from jaxmeta.models import resnet12
    >>> network, key = resnet12(width=2), jax.random.key(0)
    >>> images = jax.random.normal(key, (1, 4, 16, 16, 3))
    >>> params = jax.jit(network.init)(key, images[0])
    >>> fixed = resnet12(width=2, query_statistics="training")
    >>> again = unfolded(fixed, folded(network, params, images), images)
    >>> bool(jnp.allclose(network.apply(again, images[0]), network.apply(params, images[0]), 1e-3))
    True
    """
    return _changed(model, params, batches, lambda layer, own: _scaled(layer, own, epsilon))


def _normalised(layer: dict[str, Array], own: Moments, epsilon: float) -> dict[str, Array]:
    scale = layer["scale"] * jax.lax.rsqrt(own.variance + epsilon)
    return {"scale": scale, "bias": layer["bias"] - own.mean * scale}


def _scaled(layer: dict[str, Array], own: Moments, epsilon: float) -> dict[str, Array]:
    scale = layer["scale"]
    return {
        "scale": scale * jnp.sqrt(own.variance + epsilon),
        "bias": layer["bias"] + own.mean * scale,
    }


def _changed(
    model: Model,
    params: PyTree,
    batches: Array,
    change: Callable[[dict[str, Array], Moments], dict[str, Array]],
) -> PyTree:
    """The parameters with every normalisation layer changed by its statistics of all batches."""

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
        own = Moments(means.mean(axis=0), variances.mean(axis=0) + means.var(axis=0))
        layers[path].update(change(layers[path], own))
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
