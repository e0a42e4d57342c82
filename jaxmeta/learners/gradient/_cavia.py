"""CAVIA: a context vector adapts to the task; the network that it conditions is shared."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import (
    Differentiation,
    combine,
    partition,
    second_order,
    support_loss,
    unroll,
)
from jaxmeta.inner._partition import Selection
from jaxmeta.learners.gradient._maml import gradient_learner


class CAVIAParams(NamedTuple):
    """Meta-parameters of CAVIA.

    Attributes:
      network: θ, parameters of the model, shared by all tasks.
      conditioning: C, like the selected parameters, each leaf `[context, *parameter]`.
    """

    network: PyTree
    conditioning: PyTree


def cavia(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    context: int,
    conditions: Selection,
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """CAVIA: only a context vector z adapts, starting from 0; it shifts selected parameters.

        z_0 = 0,  z_{k+1} = z_k − α ∇_z L(θ + z·C; support)
        meta-gradient: with respect to θ and C

    If z conditions the bias of the first layer, this is the paper's network with z concatenated to
    its inputs. If it conditions the scale and shift of a normalisation, it is FiLM.

    Args:
      model, objective, inner_optimizer, inner_steps, differentiation, inner_batch: as in `maml`.
      context: size of z.
      conditions: which parameters z shifts, by path: `only("norm_2")`, in the third block of
        `conv4`, or `lambda path: path == "hidden_0/bias"`.

    Raises:
      ValueError: a context of less than 1; `conditions` selects no parameter; otherwise as `maml`.

    Source: Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, "Fast context adaptation via
    meta-learning", sections 3.1 and 3.3.

    >>> import jaxmeta
    >>> from jaxmeta.inner import only
    >>> from jaxmeta.models import conv4
    >>> learner = cavia(conv4(5), jaxmeta.cross_entropy, optax.sgd(1.0), inner_steps=2, context=100,
    ...                 conditions=only("norm_2"))
    """
    if context < 1:
        raise ValueError(f"cavia: a context of {context} components; give at least 1.")

    def init(key: Key, task: Task) -> CAVIAParams:
        model_key, conditioning_key = jax.random.split(key)
        network = model.init(model_key, task.support.inputs)
        leaves, treedef = jax.tree.flatten(partition(network, conditions)[0])
        # Not zero: with z = 0 and C = 0, neither would have a gradient.
        conditioning = [
            jax.random.normal(key, (context, *leaf.shape), leaf.dtype) / jnp.sqrt(context)
            for key, leaf in zip(jax.random.split(conditioning_key, len(leaves)), leaves)
        ]
        return CAVIAParams(network, treedef.unflatten(conditioning))

    def apply(
        params: dict[str, PyTree],
        inputs: PyTree,
        *,
        reference: PyTree = None,
        key: Key | None = None,
    ) -> PyTree:
        moved, rest = partition(params["network"], conditions)
        moved = jax.tree.map(
            lambda leaf, directions: leaf + jnp.tensordot(params["context"], directions, axes=1),
            moved,
            params["conditioning"],
        )
        return model.apply(combine(moved, rest), inputs, reference=reference, key=key)

    conditioned = Model(model.init, apply)
    inner = unroll(
        support_loss(conditioned, objective),
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        adapts=lambda path: path == "context",
        batch_size=inner_batch,
    )

    def unpack(meta_params: CAVIAParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        like: Array = jax.tree.leaves(meta_params.conditioning)[0]
        start = jnp.zeros((context,), like.dtype)
        return {"context": start, **meta_params._asdict()}, {}

    return gradient_learner(conditioned, objective, inner, init=init, unpack=unpack)
