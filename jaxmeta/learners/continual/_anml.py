"""ANML: a second network gates the features on which a head learns online."""

from typing import Any

import chex
import jax

from jaxmeta.core import Array, Key, MetaLearner, Model, Objective, PyTree
from jaxmeta.learners.continual._oml import oml


def anml(
    encoder: Model,
    gate: Model,
    objective: Objective,
    classes: int,
    rate: float = 0.1,
    **options: Any,
) -> MetaLearner:
    """ANML: OML on features that a neuromodulatory network gates.

        f(x) = h_θ(x) ∘ σ(g_ψ(x)),  W_t = W_{t−1} − α ∇_W L(W_{t−1} f(x_t), y_t)

    The gate acts twice: on what is predicted, and on which weights a step changes. θ, ψ and W_0 are
    meta-learned as in `oml`. Both networks are constant in the inner loop: only the output weights
    learn online, in training as at test. In the authors' training the whole prediction network
    learns online, and only at test the output weights alone.

    Args:
      encoder: h, an encoder without a head, which normalises each example by itself.
      gate: g, a network with as many outputs as the encoder has features.
      objective, classes, rate, options: as in `oml`.

    Raises:
      ValueError: as `oml`.
      AssertionError: at `init`, the gate has another number of outputs.

    Source: Beaulieu et al. 2020, "Learning to continually learn", section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import strided_convolutions
    >>> encoder, gate = strided_convolutions(width=8), strided_convolutions(128, width=4)
    >>> learner = anml(encoder, gate, jaxmeta.cross_entropy, classes=964)
    """
    return oml(gated(encoder, gate), objective, classes, rate, **options)


def gated(encoder: Model, gate: Model) -> Model:
    """The features of one network, times the sigmoid of the outputs of another.

    >>> import jax.numpy as jnp
    >>> from jaxmeta.models import mlp
    >>> model = gated(mlp((4,), 3), mlp((4,), 3))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> model.apply(params, jnp.ones((5, 2))).shape
    (5, 3)
    """

    def init(key: Key, inputs: PyTree) -> PyTree:
        keys = jax.random.split(key)
        return {"features": encoder.init(keys[0], inputs), "gate": gate.init(keys[1], inputs)}

    def apply(
        params: PyTree, inputs: PyTree, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        features = encoder.apply(params["features"], inputs, reference=reference, key=key)
        openings = gate.apply(params["gate"], inputs, reference=reference, key=key)
        chex.assert_equal_shape([features, openings])
        return features * jax.nn.sigmoid(openings)

    return Model(init, apply)
