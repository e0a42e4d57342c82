"""Scaling of images, the same for all sources and pipelines."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def scaled(images: Any) -> Any:
    """Scales uint8 to float32 in [0, 1], and leaves floats unchanged; for NumPy and JAX arrays.

    Raises:
      ValueError: the images have another type, whose scale is unknown.

    >>> scaled(np.array([0, 51, 255], np.uint8)).tolist() == [0.0, np.float32(0.2), 1.0]
    True
    >>> scaled(jnp.array([3.0, -1.0])).tolist()
    [3.0, -1.0]
    """
    check_scale(images.dtype)
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def check_scale(dtype: Any) -> None:
    """Raises `ValueError` if images are neither uint8 nor floats.

    >>> check_scale(np.dtype("int64"))
    Traceback (most recent call last):
    ...
    ValueError: images are int64; give uint8, scaled to [0, 1], or floats, taken as they are
    """
    if dtype != np.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"images are {dtype}; give uint8, scaled to [0, 1], or floats, taken as they are"
        )
