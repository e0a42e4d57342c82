"""Networks computed in another floating-point type than that of their parameters."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Key, Model, PyTree


def computed_in(model: Model, dtype: jnp.dtype | type) -> Model:
    """`model` computed in `dtype`; parameters, gradients and outputs keep their type.

        apply(θ, x) = float(model.apply(dtype(θ), dtype(x)))

    Losses and the statistics of normalisations are computed in float32 or wider. With `bfloat16`,
    activations take half the memory, and accelerators multiply matrices faster.

    >>> from jaxmeta.models import mlp
    >>> model = computed_in(mlp((8,), 3), jnp.bfloat16)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> {leaf.dtype.name for leaf in jax.tree.leaves(params)}
    {'float32'}
    >>> model.apply(params, jnp.ones((5, 2))).dtype.name
    'float32'
    """

    def cast(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_real(leaf) else leaf, tree)

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        kept = jnp.result_type(*(leaf for leaf in jax.tree.leaves(params) if _is_real(leaf)))
        outputs = model.apply(cast(params), cast(inputs), reference=cast(reference), key=key)
        return jax.tree.map(lambda leaf: leaf.astype(kept) if _is_real(leaf) else leaf, outputs)

    return Model(model.init, apply)


def _is_real(leaf: PyTree) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))
