"""A multi-layer perceptron."""

from collections.abc import Callable, Sequence

from flax import linen as nn

from jaxmeta.core import Array, Model
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import Normalisation, NormalisationKind, with_reference


class _MLP(nn.Module):
    hidden: tuple[int, ...]
    outputs: int
    normalisation: NormalisationKind
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, inputs: Array, reference: Array | None = None) -> Array:
        if 0 in inputs.shape[1:]:
            raise ValueError(
                f"mlp: inputs of the shape {inputs.shape}; give inputs without an axis of size 0."
            )
        values, references = with_reference(self.normalisation, inputs, reference)
        values = values.reshape(values.shape[0], -1)
        for index, width in enumerate(self.hidden):
            name = f"hidden_{index}"
            if self.normalisation == "none":
                values = nn.Dense(width, name=name)(values)
            else:  # no bias before a normalisation: its gradient would be rounding noise
                values = nn.Dense(width, use_bias=False, name=name)(values)
                values = Normalisation(self.normalisation, name=f"norm_{index}")(values, references)
            values = self.activation(values)
        return nn.Dense(self.outputs, name="head")(values)[references:]


def mlp(
    hidden: Sequence[int],
    outputs: int,
    *,
    query_statistics: NormalisationKind = "none",
    activation: Callable[[Array], Array] = nn.relu,
) -> Model:
    """Dense layers with an activation between them; inputs of any shape are flattened.

        h_{l+1} = activation(norm(W_l h_l + b_l)),  y = W h_L + b

    The networks of MAML are `mlp((40, 40), 1)` for sinusoids and
    `mlp((256, 128, 64, 64), ways, query_statistics="batch")` for Omniglot (Finn et al. 2017,
    sections 5.1, 5.2).

    Args:
      hidden: widths of the hidden layers.
      outputs: width of the last layer, whose parameters are named `head`.
      query_statistics: see `Normalisation`.
      activation: of the hidden layers. Defaults to ReLU.

    Raises:
      TypeError: `hidden` is a number.
      ValueError: inputs have an axis of size 0.

    >>> import jax, jax.numpy as jnp
    >>> model = mlp((40, 40), 1)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 1)))
    >>> model.apply(params, jnp.ones((10, 1))).shape
    (10, 1)
    """
    if isinstance(hidden, int):
        raise TypeError(f"mlp: hidden is {hidden}; give the width of each layer, such as (40, 40).")
    return from_linen(_MLP(tuple(hidden), outputs, query_statistics, activation))
