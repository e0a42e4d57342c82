"""Networks averaged over several views of an image."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, Model, PyTree

_MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


def averaged_over_shifts(model: Model, pixels: int = 1) -> Model:
    """`model` averaged over an image and its shifts up, down, left and right.

        apply(θ, x) = 1/5 Σ_d model.apply(θ, shift_d(x)),  d in {0, up, down, left, right}

    For an encoder that is trained already: the mean embedding varies less with the position of the
    image, at five times the cost. Pixels at the border are repeated.

    Args:
      model: a network of images `[examples, H, W, C]`. Every view is normalised as the images
        would be; `reference` is shifted with them.
      pixels: the length of a shift.

    Raises:
      ValueError: fewer than one pixel.

    >>> from jaxmeta.models import conv4
    >>> network, images = conv4(width=2), jnp.ones((3, 28, 28, 1))
    >>> params = jax.jit(network.init)(jax.random.key(0), images)
    >>> jax.jit(averaged_over_shifts(network).apply)(params, images).shape
    (3, 2)
    """
    if pixels < 1:
        raise ValueError(f"averaged_over_shifts: {pixels} pixels; give at least 1.")

    def shifted(images_NHWC: Array, move: Array) -> Array:
        border = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
        padded = jnp.pad(images_NHWC, border, mode="edge")
        start = (0, pixels * (1 + move[0]), pixels * (1 + move[1]), 0)
        return jax.lax.dynamic_slice(padded, start, images_NHWC.shape)

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        def of_view(move: Array) -> PyTree:
            seen = None if reference is None else shifted(reference, move)
            return model.apply(params, shifted(inputs, move), reference=seen, key=key)

        # One view at a time: fast on a CPU, and no more memory than a single one.
        outputs = jax.lax.map(of_view, jnp.array(_MOVES))
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), outputs)

    return Model(model.init, apply)
