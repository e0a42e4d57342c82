"""Transformer neural processes: a transformer over context and target points, without order."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Batch, Key, MetaLearner, Objective, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood, gaussian_of


class Context(NamedTuple):
    """The adapted state of a transformer neural process: the context.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      context: the support set.
    """

    meta_params: PyTree
    context: Batch


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    """A layer norm of one precision with the transformers here."""
    # Flax's default variance, E[x²] − E[x]², loses precision by cancellation.
    return nn.LayerNorm(name=name, use_fast_variance=False)


class _Block(nn.Module):
    """Attention to the context and the token itself, then an MLP, both with a residual branch."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, tokens_ND: Array, known_NN: Array) -> Array:
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        normed = layer_norm("norm_0")(tokens_ND)
        tokens_ND = tokens_ND + attention(normed, mask=known_NN[None])
        normed = layer_norm("norm_1")(tokens_ND)
        hidden = nn.relu(nn.Dense(2 * self.width, name="hidden")(normed))
        return tokens_ND + nn.Dense(self.width, name="output")(hidden)


class Transformer(nn.Module):
    """Tokens `[N, E]` to `[N, outputs]`; token i attends to j where `known_NN[i, j]`."""

    outputs: int
    width: int
    layers: int
    heads: int

    @nn.compact
    def __call__(self, tokens_NE: Array, known_NN: Array) -> Array:
        values = nn.relu(nn.Dense(self.width, name="embedding_0")(tokens_NE))
        values = nn.Dense(self.width, name="embedding_1")(values)
        for index in range(self.layers):
            values = _Block(self.width, self.heads, name=f"block_{index}")(values, known_NN)
        values = layer_norm("norm")(values)
        hidden = nn.relu(nn.Dense(self.width, name="hidden")(values))
        return nn.Dense(self.outputs, name="head")(hidden)


def transformer_neural_process(
    *,
    width: int = 64,
    layers: int = 4,
    heads: int = 4,
    objective: Objective = gaussian_likelihood,
) -> MetaLearner:
    """A transformer neural process with a diagonal prediction (TNP-D).

        tokens:  [x_s, y_s, 1] of the context, [x, 0, 0] of the targets
        each token attends to those of the context, and to itself
        μ(x), σ(x): an MLP of the target's last token

    Targets don't attend to each other, so that each is predicted independently. The order of the
    context does not matter. Unlike the published code, it marks tokens by the last number, a target
    attends to itself, and norms come first in each layer.

    Args:
      width, layers, heads: sizes of the transformer; the width must be a multiple of the heads.
      objective: an objective of a `Gaussian`.

    Raises:
      ValueError: a size below 1, a width that is not a multiple of the heads.

    Source: Nguyen, Grover 2022, "Transformer neural processes: uncertainty-aware meta learning via
    sequence modeling", section 4.2.

    >>> import jax
    >>> learner = transformer_neural_process(width=8, layers=1, heads=2)
    >>> context = Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), Task(context, context))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, context)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((3, 1))).mean.shape
    (3, 1)
    """
    if min(width, layers, heads) < 1 or width % heads:
        raise ValueError(
            f"transformer_neural_process: width {width}, {layers} layers, {heads} heads; give at "
            "least 1 each, and a width that is a multiple of the heads."
        )

    def tokens_of(inputs: Array, targets: Array, shown: bool) -> Array:
        flag = jnp.full((inputs.shape[0], 1), float(shown), inputs.dtype)
        return jnp.concatenate([inputs, targets, flag], axis=1)

    def network_for(targets: int) -> Transformer:
        return Transformer(2 * targets, width, layers, heads)

    def init(key: Key, task: Task) -> PyTree:
        context = task.support
        tokens = tokens_of(context.inputs, context.targets, True)
        known = jnp.ones((tokens.shape[0],) * 2, bool)
        return network_for(context.targets.shape[-1]).init(key, tokens, known)["params"]

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Context:
        return Context(meta_params, support)

    def predict(adapted: Context, inputs: Array, *, key: Key | None = None) -> Gaussian:
        meta_params, context = adapted
        unknown = jnp.zeros((inputs.shape[0], context.targets.shape[-1]), inputs.dtype)
        tokens = jnp.concatenate(
            [tokens_of(context.inputs, context.targets, True), tokens_of(inputs, unknown, False)]
        )
        count = context.inputs.shape[0]
        real_S = valid_mask(context.mask, count)
        of_context_N = jnp.concatenate([real_S, jnp.zeros((inputs.shape[0],), bool)])
        known_NN = of_context_N[None] | jnp.eye(tokens.shape[0], dtype=bool)
        network = network_for(context.targets.shape[-1])
        outputs: Any = network.apply({"params": meta_params}, tokens, known_NN)
        return gaussian_of(outputs[count:])

    return plain_learner(init, adapt, predict, objective)
