"""The networks of learned comparison: maps of images, and what compares two of them."""

from flax import linen as nn

from jaxmeta.core import Array, Model
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import Convolution, Normalisation, NormalisationKind, with_reference


class _ConvMaps(nn.Module):
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        values, references = with_reference(self.normalisation, inputs, reference)
        for index in range(4):
            values = _block(self, values, index, 2 if index < 2 else 1, references)
        return values[references:]


class _Comparator(nn.Module):
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, pairs: Array) -> Array:
        values = pairs
        for index in range(2):
            values = _block(self, values, index, 2, 0)
        values = nn.relu(nn.Dense(8, name="hidden")(values.reshape(values.shape[0], -1)))
        return nn.Dense(1, name="head")(values)


def _block(
    module: _ConvMaps | _Comparator, values: Array, index: int, pool: int, references: int
) -> Array:
    values = Convolution(module.width, name=f"conv_{index}")(values)
    normalisation = Normalisation(module.normalisation, name=f"norm_{index}")
    return nn.relu(normalisation(values, references, pool=pool))


def conv_maps(*, width: int = 64, normalisation: NormalisationKind = "batch") -> Model:
    """Four 3×3 convolutions, max-pooling after the first two, and no head: maps, not features.

    Shapes: images float `[N, H, W, C]` to `[N, H/4, W/4, width]`.

    Source: Sung et al. 2018, "Learning to compare", section 3.4.

    >>> import jax, jax.numpy as jnp
    >>> model = conv_maps(width=8)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.jit(model.apply)(params, jnp.ones((3, 28, 28, 1))).shape
    (3, 7, 7, 8)
    """
    return from_linen(_ConvMaps(width, normalisation))


def comparator(*, width: int = 64, normalisation: NormalisationKind = "batch") -> Model:
    """Two 3×3 convolutions with max-pooling and two dense layers: a number for each pair of maps.

    Statistics are those of all pairs given (`batch`), of each pair by itself (`layer`, `group`), or
    none; a pair has no support set.

    Shapes: pairs float `[N, H, W, C]`, H and W at least 4, to `[N, 1]`.

    Raises:
      ValueError: the normalisation `support`.

    Source: Sung et al. 2018, "Learning to compare", section 3.4.

    >>> import jax, jax.numpy as jnp
    >>> model = comparator(width=8)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 7, 7, 16)))
    >>> jax.jit(model.apply)(params, jnp.ones((3, 7, 7, 16))).shape
    (3, 1)
    """
    if normalisation == "support":
        raise ValueError(
            "comparator: a pair of maps has no support set to take statistics from; normalise with "
            "batch, layer, group or none."
        )
    return from_linen(_Comparator(width, normalisation))
