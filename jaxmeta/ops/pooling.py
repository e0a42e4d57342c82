"""Pooling over non-overlapping windows."""

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array


def max_pool(images_NHWC: Array, window: int = 2) -> Array:
    """The maximum of every `window` × `window` square; an odd last row or column is left out.

        y[n, i, j, c] = max_{a, b < w} x[n, w·i + a, w·j + b, c]

    Args:
      images_NHWC: float `[N, H, W, C]`.
      window: w, in pixels; also the stride.

    Returns:
      float `[N, ⌊H/w⌋, ⌊W/w⌋, C]`. If several entries of a window equal the maximum, the gradient
      is divided equally among them.

    Raises:
      ValueError: the window is not positive, or larger than the images.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    chex.assert_rank(images_NHWC, 4)
    if not 1 <= window <= min(images_NHWC.shape[1:3]):
        raise ValueError(
            f"max_pool: a window of {window} on images {images_NHWC.shape}; give 1 to "
            f"{min(images_NHWC.shape[1:3])}."
        )
    return _max_pool(window, images_NHWC)


def extreme_pool(images_NHWC: Array, slope: Array, window: int = 2) -> Array:
    """The minimum of every window where `slope` is negative, and the maximum elsewhere.

    These are the entries that a max-pooling after `slope * x + offset` would select. `slope`
    broadcasts against the images.

    >>> slope = jnp.array([1.0, -1.0]).reshape(1, 1, 1, 2)
    >>> extreme_pool(jnp.arange(8.0).reshape(1, 2, 2, 2), slope).ravel().tolist()
    [6.0, 1.0]
    """
    chex.assert_rank(images_NHWC, 4)
    sign = jnp.where(slope < 0, -1.0, 1.0).astype(images_NHWC.dtype)
    return sign * max_pool(sign * images_NHWC, window)


def _maximum(window: int, images: Array) -> Array:
    entries = _entries(window, images)
    largest = entries[0]
    for entry in entries[1:]:
        largest = jnp.maximum(largest, entry)
    return largest


def _entries(window: int, images: Array) -> list[Array]:
    """The `window²` strided slices whose elementwise maximum is the pool: one pass, vectorised."""
    rows, columns = images.shape[1] // window * window, images.shape[2] // window * window
    return [
        images[:, row:rows:window, column:columns:window]
        for row in range(window)
        for column in range(window)
    ]


_max_pool = jax.custom_jvp(_maximum, nondiff_argnums=(0,))


# The derivative is linear in the tangent, with a selection as coefficients, so that its transpose
# is one pass. Forward and backward of 75 × 28 × 28 × 64 take 1.4 ms on 2 CPU cores, against 8.4 ms
# for `max` over a reshaped axis and 47.6 ms for `reduce_window`. Not a `custom_vjp`, since mixed
# mode requires forward differentiation.
@_max_pool.defjvp
def _max_pool_jvp(
    window: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (images,), (tangent,) = primals, tangents
    largest = _max_pool(window, images)
    # Entries are compared with each other and not with the pooled output: a compiler may compute
    # the images twice with different rounding, so that no entry equals the output.
    first, *others = _entries(window, images)
    highest, chosen = first, [jnp.ones(first.shape, bool)]
    for entry in others:
        higher = entry > highest
        chosen = [kept & ~higher for kept in chosen] + [entry >= highest]
        highest = jnp.maximum(highest, entry)
    count = sum(kept.astype(images.dtype) for kept in chosen)
    of_windows = jnp.stack(chosen).reshape(window, window, *largest.shape)
    of_windows = of_windows.transpose(2, 3, 0, 4, 1, 5)
    selected = jnp.where(of_windows, _windows(window, tangent), 0)
    return largest, selected.sum(axis=(2, 4)) / count


def _windows(window: int, images: Array) -> Array:
    """`[N, rows, window, columns, window, C]`."""
    count, height, width, channels = images.shape
    rows, columns = height // window, width // window
    return images[:, : rows * window, : columns * window].reshape(
        count, rows, window, columns, window, channels
    )
