"""Random affine and elastic distortions of single images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key
from jaxmeta.data.transformed import distorted_affinely


def distortions(
    *,
    rotation: float = 10.0,
    shear: float = 0.3,
    scale: tuple[float, float] = (0.8, 1.2),
    shift: float = 2 / 105,
    strength: float = 1.0,
    smoothness: float = 4.0,
) -> Callable[[Key, Array], Array]:
    """`generate(key, image) -> image`, an affine and an elastic distortion, for `augmented`.

        image'(p) = image(A⁻¹ p + u(p)),  u = α · G_σ * ε / rms,  ε ~ N(0, I) at every pixel

    A is random as in `distorted`, with each of its parts always used. The displacement u is white
    noise that is smoothed by a Gaussian and scaled to a root mean square of α pixels. Images are
    interpolated bilinearly, and are 0 outside their borders.

    Args:
      rotation, shear, scale, shift: as in `distorted`.
      strength: α, in pixels; 0 for affine distortions only.
      smoothness: σ, the standard deviation of the Gaussian in pixels.

    Returns:
      a function of a key and an image float `[H, W, C]`.

    Raises:
      ValueError: the strength is negative, or the smoothness not positive.

    Source: Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks
    applied to visual document analysis", section 2.

    >>> generate = distortions()
    >>> generate(jax.random.key(0), jnp.ones((28, 28, 1))).shape
    (28, 28, 1)
    """
    if strength < 0 or smoothness <= 0:
        raise ValueError(
            f"distortions: strength {strength}, smoothness {smoothness}; give a "
            "strength of 0 or more, and a positive smoothness."
        )

    def generate(key: Key, image_HWC: Array) -> Array:
        affine_key, elastic_key = jax.random.split(key)
        image_HWC = distorted_affinely(
            affine_key,
            image_HWC,
            rotation=rotation,
            shear=shear,
            scale=scale,
            shift=shift,
            probability=1.0,
        )
        return elastic(elastic_key, image_HWC, strength, smoothness) if strength else image_HWC

    return generate


def elastic(key: Key, image_HWC: Array, strength: float, smoothness: float) -> Array:
    """The image read at displaced positions, see `distortions`."""
    height, width, _ = image_HWC.shape

    def blur(size: int) -> Array:  # a matrix, whose rows sum to 1
        offsets = jnp.arange(size)[:, None] - jnp.arange(size)[None]
        weights = jnp.exp(-jnp.square(offsets / smoothness) / 2)
        return weights / weights.sum(axis=1, keepdims=True)

    noise_2HW = jax.random.normal(key, (2, height, width))
    moved_2HW = jnp.einsum("hi,cij,wj->chw", blur(height), noise_2HW, blur(width))
    moved_2HW *= strength / jnp.sqrt(jnp.square(moved_2HW).mean() + 1e-12)
    places_2HW = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    source = list(places_2HW + moved_2HW)
    read = lambda image_HW: jax.scipy.ndimage.map_coordinates(image_HW, source, order=1)  # noqa: E731
    return jax.vmap(read, in_axes=2, out_axes=2)(image_HWC)
