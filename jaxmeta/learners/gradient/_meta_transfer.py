"""Meta-transfer learning: a frozen pre-trained network, scaled and shifted filter by filter."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.inner import Differentiation, combine, partition, second_order, unroll
from jaxmeta.inner._partition import paths_of
from jaxmeta.learners.gradient._maml_plus_plus import in_normalisation
from jaxmeta.learners.linear_head import head_logits, head_loss
from jaxmeta.learners.metric._prototypical import known_classes
from jaxmeta.learners.ways import among_known, check_ways
from jaxmeta.models import check_alike


class MetaTransferParams(NamedTuple):
    """Meta-parameters of meta-transfer learning.

    Attributes:
      frozen: parameters of the pre-trained encoder, with zero gradient.
      scales, shifts: one for every filter, in place of the scales and biases of the encoder's
        normalisation layers.
      head: `{"kernel": [features, ways], "bias": [ways]}`, the initial head of every task.
    """

    frozen: PyTree
    scales: PyTree
    shifts: PyTree
    head: PyTree


class TransferredHead(NamedTuple):
    """The adapted state: the meta-parameters, the task's head and its known classes."""

    meta_params: MetaTransferParams
    head: PyTree
    known_W: Array


def meta_transfer(
    encoder: Model,
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    pretrained: PyTree = None,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """Meta-transfer learning: the head adapts; every filter has a meta-learned scale and shift.

        f(x) = encoder with γ ∘ s in place of γ, β + t in place of β, for every filter
        head_0 = φ_head,  head_{k+1} = head_k − α ∇_head L(head_k; f(support))
        meta-gradient: with respect to s, t and φ_head; initially s = 1 and t = 0

    The support's features are computed once, before the inner loop. A class without a (valid)
    support example is never predicted.

    Args:
      encoder: an encoder without a head, with `query_statistics="none"`.
      objective: an objective of logits, such as cross-entropy.
      ways: classes of a task.
      inner_optimizer, inner_steps, differentiation: as in `maml`, for the head.
      pretrained: the encoder's parameters, see `jaxmeta.models.folded`. Defaults to random
        parameters.

    Raises:
      ValueError: fewer than two ways; the encoder has no normalisation layers; `pretrained` belongs
        to another network; otherwise as `maml`.

    Source: Sun, Liu, Chua, Schiele 2019, "Meta-transfer learning for few-shot learning",
    section 4.2.

    >>> import jaxmeta
    >>> from jaxmeta.models import resnet12
    >>> encoder = resnet12(width=8, query_statistics="none")
    >>> learner = meta_transfer(encoder, jaxmeta.cross_entropy, 5, optax.sgd(0.01), inner_steps=100)
    """
    check_ways("meta_transfer", ways)

    inner = unroll(
        head_loss(objective), inner_optimizer, inner_steps, differentiation=differentiation
    )

    def init(key: Key, task: Task) -> MetaTransferParams:
        encoder_key, key = jax.random.split(key)
        random = partial(encoder.init, encoder_key, task.support.inputs)
        frozen = pretrained
        if frozen is None:
            frozen = random()
        else:
            check_alike(frozen, jax.eval_shape(random))
        frozen = jax.tree.map(jnp.array, frozen)  # copied: a training state is donated
        size = jax.eval_shape(encoder.apply, frozen, task.support.inputs).shape[-1]
        kernel = jax.random.normal(key, (size, ways)) / jnp.sqrt(size)
        return MetaTransferParams(
            frozen,
            jax.tree.map(jnp.ones_like, _split(frozen, "scale")[0]),
            jax.tree.map(jnp.zeros_like, _split(frozen, "bias")[0]),
            {"kernel": kernel, "bias": jnp.zeros((ways,))},
        )

    def features_of(
        meta_params: MetaTransferParams, inputs: Array, key: Key | None = None
    ) -> Array:
        frozen = jax.lax.stop_gradient(meta_params.frozen)
        scales, rest = _split(frozen, "scale")
        shifts, rest = _split(rest, "bias")
        params = combine(
            jax.tree.map(jnp.multiply, scales, meta_params.scales),
            combine(jax.tree.map(jnp.add, shifts, meta_params.shifts), rest),
        )
        return encoder.apply(params, inputs, key=key)

    def run(key: Key, meta_params: MetaTransferParams, support: Batch, **options: Any) -> Any:
        features = support._replace(inputs=features_of(meta_params, support.inputs))
        return inner(key, meta_params.head, features, **options)

    def adapt(key: Key, meta_params: MetaTransferParams, support: Batch) -> TransferredHead:
        head = run(key, meta_params, support).params
        return TransferredHead(meta_params, head, known_classes(support, ways))

    def predict(adapted: TransferredHead, inputs: Array, *, key: Key | None = None) -> Array:
        logits = head_logits(adapted.head, features_of(adapted.meta_params, inputs, key))
        return among_known(logits, adapted.known_W)

    def trajectory(
        key: Key, meta_params: MetaTransferParams, support: Batch, inputs: Array
    ) -> Array:
        features, known_W = features_of(meta_params, inputs), known_classes(support, ways)
        observe = lambda head: among_known(head_logits(head, features), known_W)  # noqa: E731
        return run(key, meta_params, support, observe=observe).observations

    return plain_learner(init, adapt, predict, objective, trajectory=trajectory)


def _split(tree: PyTree, name: str) -> tuple[PyTree, PyTree]:
    """The normalisation parameters of that name, and all others."""
    if not any(in_normalisation(path) for path in paths_of(tree)):
        raise ValueError(
            "meta_transfer: the encoder has no normalisation layers to scale and shift; use conv4 "
            'or resnet12 with query_statistics="none".'
        )
    return partition(tree, lambda path: in_normalisation(path) and path.endswith(f"/{name}"))
