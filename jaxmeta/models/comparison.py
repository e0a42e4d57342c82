"""The networks of learned comparison: feature maps of images, and comparators of pairs."""

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import (
    Convolution,
    Normalisation,
    NormalisationKind,
    check_image_size,
    with_reference,
)
from jaxmeta.ops import convolve


class _ConvMaps(nn.Module):
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        check_image_size("conv_maps", inputs, 4)
        values, references = with_reference(self.normalisation, inputs, reference)
        for index in range(4):
            values = _block(self, values, index, 2 if index < 2 else 1, references)
        return values[references:]


class _Comparator(nn.Module):
    width: int
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, maps: tuple[Array, Array]) -> Array:
        maps_W, maps_Q = maps
        for each in maps:
            remedy = ", such as conv_maps of images of 16×16 or more"
            check_image_size("comparator", each, 4, remedy)
        channels = maps_W.shape[-1]
        shape = (3, 3, 2 * channels, self.width)
        kernel = self.param("conv_0", nn.initializers.glorot_uniform(), shape)
        # The convolution of concatenated maps is the sum of one for each map: Q + W convolutions
        # instead of Q W.
        of_classes = convolve(maps_W, kernel[:, :, :channels])
        of_queries = convolve(maps_Q, kernel[:, :, channels:])
        pairs_QW = of_queries[:, None] + of_classes[None]
        values = _normalised(self, pairs_QW.reshape(-1, *pairs_QW.shape[2:]), 0, 2, 0)
        values = _block(self, values, 1, 2, 0)
        values = nn.relu(nn.Dense(8, name="hidden")(values.reshape(values.shape[0], -1)))
        return nn.Dense(1, name="head")(values).reshape(pairs_QW.shape[:2])


def _block(
    module: _ConvMaps | _Comparator, values: Array, index: int, pool: int, references: int
) -> Array:
    values = Convolution(module.width, name=f"conv_{index}")(values)
    return _normalised(module, values, index, pool, references)


def _normalised(
    module: _ConvMaps | _Comparator, values: Array, index: int, pool: int, references: int
) -> Array:
    normalisation = Normalisation(module.normalisation, name=f"norm_{index}")
    return nn.relu(normalisation(values, references, pool=pool))


def conv_maps(*, width: int = 64, query_statistics: NormalisationKind = "batch") -> Model:
    """Four 3×3 convolutions with max-pooling after the first two, and no head.

    Shapes: images float `[N, H, W, C]`, H and W at least 4, to `[N, H/4, W/4, width]`; a
    `comparator` requires images of at least 16×16.

    Raises:
      ValueError: images are smaller than 4×4.

    Source: Sung et al. 2018, "Learning to compare", section 3.4.

    >>> import jax, jax.numpy as jnp
    >>> model = conv_maps(width=8)
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.jit(model.apply)(params, jnp.ones((3, 28, 28, 1))).shape
    (3, 7, 7, 8)
    """
    return from_linen(_ConvMaps(width, query_statistics))


def comparator(*, width: int = 64, query_statistics: NormalisationKind = "batch") -> Model:
    """Two 3×3 convolutions with max-pooling and two dense layers: a score for each pair of maps.

        g([C_w, f(x)]) for every class w and query x

    The statistics are taken over all pairs (`batch`) or over each pair (`layer`, `group`); `none`
    is possible, `support` is not.

    Shapes: a pair of arrays, classes float `[ways, H, W, C]` and queries `[Q, H, W, C]`, H and W at
    least 4, to `[Q, ways]`.

    Raises:
      ValueError: `query_statistics` is `support`; maps are smaller than 4×4.

    Source: Sung et al. 2018, "Learning to compare", section 3.4.

    >>> import jax, jax.numpy as jnp
    >>> model = comparator(width=8)
    >>> maps = (jnp.ones((5, 7, 7, 16)), jnp.ones((3, 7, 7, 16)))
    >>> params = jax.jit(model.init)(jax.random.key(0), maps)
    >>> jax.jit(model.apply)(params, maps).shape
    (3, 5)
    """
    if query_statistics == "support":
        raise ValueError(
            "comparator: query_statistics support is not available, since a pair of maps has no "
            "support set; give batch, layer, group or none."
        )
    return from_linen(_Comparator(width, query_statistics))


def pairwise(model: Model) -> Model:
    """A network of concatenated pairs as one that compares every class with every query.

        (a, b) ↦ model([a_w, b_q]) for every w and q

    Shapes: float `[ways, ..., C]` and `[Q, ..., C]`, a pair of arrays, to `[Q, ways]`; the model's
    inputs are `[Q ways, ..., 2 C]`, its outputs `[Q ways, 1]`.

    Raises:
      ValueError: the two sets of features differ in shape.

    >>> import jax, jax.numpy as jnp
    >>> from jaxmeta.models import mlp
    >>> model, features = pairwise(mlp((8,), 1)), (jnp.ones((5, 4)), jnp.ones((3, 4)))
    >>> model.apply(model.init(jax.random.key(0), features), features).shape
    (3, 5)
    """

    def side_by_side(features: tuple[Array, Array]) -> Array:
        features_W, features_Q = features
        if features_W.shape[1:] != features_Q.shape[1:]:
            raise ValueError(
                f"pairwise: features of shapes {features_W.shape[1:]} and {features_Q.shape[1:]}; "
                "give two sets of features of the same shape."
            )
        both = jnp.broadcast_arrays(features_W[None], features_Q[:, None])
        pairs_QW = jnp.concatenate(both, axis=-1)
        return pairs_QW.reshape(-1, *pairs_QW.shape[2:])

    def init(key: Key, features: tuple[Array, Array], /) -> PyTree:
        return model.init(key, side_by_side(features))

    def apply(
        params: PyTree,
        features: tuple[Array, Array],
        /,
        *,
        reference: PyTree = None,
        key: Key | None = None,
    ) -> Array:
        outputs = model.apply(params, side_by_side(features), reference=reference, key=key)
        return outputs.reshape(features[1].shape[0], features[0].shape[0])

    return Model(init, apply)
