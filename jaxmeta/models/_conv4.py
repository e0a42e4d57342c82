"""The four-block convolutional network of the few-shot literature."""

from typing import Literal

from flax import linen as nn

from jaxmeta.core import Array, Model
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import (
    OF_SEVERAL_EXAMPLES,
    Convolution,
    Normalisation,
    NormalisationKind,
    check_image_size,
    with_reference,
)
from jaxmeta.ops import pooled_block


class _Conv4(nn.Module):
    outputs: int | None
    width: int
    downsampling: Literal["stride", "pool"]
    normalisation: NormalisationKind

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        strided = self.downsampling == "stride"
        if strided:
            check_image_size("conv4 with strides", inputs)
        else:
            check_image_size("conv4 with pooling", inputs, 16, ", or downsample by strides")
        values, references = with_reference(self.normalisation, inputs, reference)
        for index in range(4):
            if index == 0 and self.is_fused():
                values = self._first_block(values, references)
                continue
            stride = 2 if strided else 1
            values = Convolution(self.width, stride=stride, name=f"conv_{index}")(values)
            normalisation = Normalisation(self.normalisation, name=f"norm_{index}")
            values = nn.relu(normalisation(values, references, pool=1 if strided else 2))
        if strided:
            features = values.mean(axis=(1, 2))
        else:
            features = values.reshape(values.shape[0], -1)
        if self.outputs is not None:
            features = nn.Dense(self.outputs, name="head")(features)
        return features[references:]

    def is_fused(self) -> bool:
        """Whether the first block is computed as one; at `init`, the layers make its parameters."""
        return (
            not self.is_initializing()
            and self.downsampling == "pool"
            and self.normalisation in OF_SEVERAL_EXAMPLES
        )

    def _first_block(self, images: Array, references: int) -> Array:
        params = self.variables["params"]
        normalisation = params["norm_0"]
        return pooled_block(
            images,
            params["conv_0"]["kernel"],
            normalisation["scale"],
            normalisation["bias"],
            references=references or None,
        )


def conv4(
    outputs: int | None = None,
    *,
    width: int = 64,
    downsampling: Literal["stride", "pool"] = "pool",
    query_statistics: NormalisationKind = "batch",
) -> Model:
    """Four blocks of 3×3 convolution, normalisation, ReLU and downsampling, then a linear head.

    `downsampling="stride"`: convolutions of stride 2 and the mean over space, as MAML's
    network for Omniglot (Finn et al. 2017, section 5.2). `downsampling="pool"`: 2×2 max-pooling
    and flattening, as Vinyals et al. 2016 (section 4.1) and Snell et al. 2017 (section 3.1).

    Args:
      outputs: width of the head, whose parameters are named `head`; with None the model has no
        head and embeds images, 28×28 images as `width` features.
      width: channels of every convolution.
      downsampling: `stride` or `pool`, see above.
      query_statistics: see `Normalisation`.

    Shapes: images float `[N, H, W, C]` to `[N, outputs]`; with pooling H and W are at least 16.

    Raises:
      ValueError: the downsampling is unknown, or images are too small for four poolings.

    >>> import jax, jax.numpy as jnp
    >>> model = conv4(5, width=8, downsampling="stride")
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.jit(model.apply)(params, jnp.ones((3, 28, 28, 1))).shape
    (3, 5)
    """
    if downsampling not in ("stride", "pool"):
        raise ValueError(f"conv4: downsampling is {downsampling!r}; give stride or pool.")
    return from_linen(_Conv4(outputs, width, downsampling, query_statistics))
