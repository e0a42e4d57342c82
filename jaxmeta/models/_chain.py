"""Chains of layers that are chosen by integers, so that all of them share one compiled program."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.ops import convolve, max_pool, varying_with


class ChainLayer(NamedTuple):
    """A layer that may be chosen.

    Attributes:
      name: its name, for people.
      kind: `convolution`; `pool`, which halves the image; or `identity`, which leaves it.
      window: side of the convolution's window in pixels, odd.
      filters: channels of the convolution.
    """

    name: str
    kind: Literal["convolution", "pool", "identity"]
    window: int = 0
    filters: int = 0


class Chain(NamedTuple):
    """A network whose layers are chosen when it is applied.

    Attributes:
      init: `init(key) -> params`, with kernels for every choice.
      apply: `apply(params, images, architecture) -> outputs`.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array, Array], Array]


class _State(NamedTuple):
    """Images within a buffer of constant size: `size` pixels per side are valid, the others 0."""

    images: Array
    size: Array


def chain_network(layers: Sequence[ChainLayer], decisions: int, outputs: int) -> Chain:
    """A chain of layers, one of the same choices in each place, then a linear head.

        convolution: x ← relu(normalised(conv(x)));  pool: 2×2 max-pooling;  end: x
        outputs = W mean over space(x) + b

    A network is normalised over space and channels of each example. All choices have one compiled
    program, in which a smaller image or fewer channels are the first part of a buffer, so that a
    search does not compile every network. A step costs that of its widest layers at the first size.

    Args:
      layers: the choices.
      decisions: number of places.
      outputs: width of the head.

    An image of one pixel is not pooled any more.

    Shapes: images float `[N, H, W, C]` with square images and C at most the largest number of
    filters, to `[N, outputs]`; the architecture is int32 `[decisions]`.

    Raises:
      ValueError: no convolution among the layers, or one with an even window or without filters;
        fewer than one decision or output; when applied, images of another shape.

    >>> layers = (
    ...     ChainLayer("end", "identity"), ChainLayer("conv", "convolution", 3, 4),
    ...     ChainLayer("pool", "pool"))
    >>> chain = chain_network(layers, decisions=3, outputs=5)
    >>> params = chain.init(jax.random.key(0))
    >>> chain.apply(params, jnp.ones((2, 8, 8, 1)), jnp.array([1, 2, 0])).shape
    (2, 5)
    """
    convolutions = [layer for layer in layers if layer.kind == "convolution"]
    windows = sorted({layer.window for layer in convolutions})
    channels = max((layer.filters for layer in convolutions), default=0)
    for layer in convolutions:
        if layer.window < 1 or layer.window % 2 == 0 or layer.filters < 1:
            raise ValueError(
                f"chain_network: {layer.name} has a window of {layer.window} and {layer.filters} "
                "filters; give an odd window and at least 1 filter."
            )
    if not windows or decisions < 1 or outputs < 1:
        raise ValueError(
            f"chain_network: {len(windows)} sizes of convolutions, {decisions} decisions, "
            f"{outputs} outputs; give at least 1 of each."
        )

    def init(key: Key) -> PyTree:
        head_key, *keys = jax.random.split(key, 1 + len(windows))
        start = jax.nn.initializers.he_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        kernels = {
            str(window): start(own, (decisions, window, window, channels, channels))
            for window, own in zip(windows, keys)
        }
        head = jax.nn.initializers.glorot_uniform()(head_key, (channels, outputs))
        return {"kernels": kernels, "head": {"kernel": head, "bias": jnp.zeros((outputs,))}}

    # Only the convolutions are alternatives of a conditional: its gradient stores every value of
    # every alternative, so that with whole layers most of a step is storing zeros.
    places = jnp.array([windows.index(own.window) if own.window else 0 for own in layers])
    filters = jnp.array([own.filters for own in layers])
    is_convolution = jnp.array([own.kind == "convolution" for own in layers])
    is_pool = jnp.array([own.kind == "pool" for own in layers])

    def convolved_by(window: int) -> Callable[[Array, PyTree], Array]:
        return lambda images, kernels: convolve(images, kernels[str(window)])

    branches = [lambda images, kernels: images, *map(convolved_by, windows)]

    def step(state: _State, kernels: PyTree, chosen: Array) -> _State:
        convolves = is_convolution[chosen]
        branch = jnp.where(convolves, 1 + places[chosen], 0)
        values = jax.lax.switch(branch, branches, state.images, kernels)
        activated = _activated(values, _valid(state, filters[chosen]))
        pooled = _pooled(state)
        images = jnp.where(is_pool[chosen], pooled.images, state.images)
        size = jnp.where(is_pool[chosen], pooled.size, state.size)
        return _State(jnp.where(convolves, activated, images), size)

    def apply(params: PyTree, images: Array, architecture: Array) -> Array:
        missing = channels - images.shape[-1]
        if images.ndim != 4 or images.shape[1] != images.shape[2] or missing < 0:
            raise ValueError(
                f"chain_network: images {images.shape}; give square ones [N, H, H, C] with at most "
                f"{channels} channels."
            )
        images = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, missing)))

        def place(state: _State, row: tuple[PyTree, Array]) -> tuple[_State, None]:
            return step(state, *row), None

        # Whether an image is pooled depends on the architecture, and so does where both vary.
        state = _State(images, jnp.array(images.shape[1], jnp.int32))
        state = varying_with(state, (images, architecture))
        state, _ = jax.lax.scan(place, state, (params["kernels"], architecture))
        area = (state.size**2).astype(images.dtype)
        features = state.images.sum(axis=(1, 2)) / area
        return features @ params["head"]["kernel"] + params["head"]["bias"][None]

    return Chain(init, apply)


def _valid(state: _State, filters: int | Array) -> Array:
    """1 for the valid pixels and channels, 0 elsewhere, `[1, H, W, C]`."""
    _, height, width, channels = state.images.shape
    rows = (jnp.arange(height) < state.size)[:, None, None]
    columns = (jnp.arange(width) < state.size)[None, :, None]
    chosen = (jnp.arange(channels) < filters)[None, None, :]
    return (rows & columns & chosen)[None].astype(state.images.dtype)


def _activated(values: Array, valid: Array) -> Array:
    """Standardised over the valid entries of each example, then ReLU; 0 elsewhere."""
    axes = (1, 2, 3)
    count = jnp.maximum(valid.sum(), 1)
    mean = (values * valid).sum(axis=axes, keepdims=True) / count
    centred = (values - mean) * valid
    variance = jnp.square(centred).sum(axis=axes, keepdims=True) / count
    return jax.nn.relu(centred * jax.lax.rsqrt(variance + 1e-5))


def _pooled(state: _State) -> _State:
    size = jnp.maximum(state.size // 2, 1)
    pooled = max_pool(state.images)
    missing = [before - after for before, after in zip(state.images.shape, pooled.shape)]
    images = jnp.pad(pooled, [(0, own) for own in missing])
    after = _State(images, size)  # an odd last row is left out
    images = images * _valid(after, images.shape[-1])
    return _State(jnp.where(state.size > 1, images, state.images), size)
