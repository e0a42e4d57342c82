"""Siamese networks: trained for verification, used for classification."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Info, Key, MetaLearner, Model, PyTree, Task, cross_entropy
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.metric._prototypical import class_members
from jaxmeta.learners.ways import among_known, check_ways


class SiameseParams(NamedTuple):
    """Meta-parameters of a siamese network.

    Attributes:
      encoder: parameters of the twin networks.
      weights_D: float `[features]`, α, the weights of the components of the distance.
      bias: scalar, β, the logit of two equal examples.
    """

    encoder: PyTree
    weights_D: Array
    bias: Array


class Twins(NamedTuple):
    """The adapted state of a siamese network: the embedded support set.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      features_SD: float `[support, features]`, h.
      members_SW: float `[support, ways]`, one-hot, 0 for examples that are padding or unlabelled.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: SiameseParams
    features_SD: Array
    members_SW: Array
    reference: PyTree


def siamese(encoder: Model, ways: int) -> MetaLearner:
    """Siamese networks: learn whether two examples share a class, and classify by similarity.

        p(x, x') = σ(β − Σ_j α_j |h_j(x) − h_j(x')|),  h = σ(encoder)
        training:  binary cross-entropy of p on pairs of query and support examples, with a total
                   weight of one half each for pairs of the same and of different classes
        outputs:   logit p(x, x_s), averaged over the support examples s of each class

    The loss is for verification; the accuracy is for classification. Initially β is 1 and α about
    10 / D, so that p is one half for a mean |h − h'| of 0.1.

    Args:
      encoder: maps inputs to features `[examples, D]`.
      ways: classes of a task; the meta-parameters do not depend on it.

    Raises:
      ValueError: fewer than two ways.

    Source: Koch, Zemel, Salakhutdinov 2015, "Siamese neural networks for one-shot image
    recognition", section 3. There α has either sign and there is no β: two equal examples have
    p = σ(0) = ½. For the paper's affine distortions see `jaxmeta.data.distorted`.

    >>> import numpy as np
    >>> identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = siamese(identity, ways=2)
    >>> params = SiameseParams({}, jnp.array([4.0]), jnp.asarray(1.0))
    >>> support = Batch(jnp.array([[-9.0], [9.0]]), jnp.array([0, 1]))
    >>> adapted = learner.adapt(jax.random.key(0), params, support)
    >>> np.round(learner.predict(adapted, jnp.array([[-9.0]])), 2).tolist()
    [[1.0, -3.0]]
    """
    check_ways("siamese", ways)

    def init(key: Key, task: Task) -> SiameseParams:
        encoder_key, key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        size = jax.eval_shape(encoder.apply, params, task.support.inputs).shape[-1]
        weights_D = (1 + 0.1 * jax.random.normal(key, (size,))) * 10 / size
        return SiameseParams(params, weights_D, jnp.ones(()))

    def embed(meta_params: SiameseParams, inputs: PyTree, **options: PyTree) -> Array:
        return jax.nn.sigmoid(encoder.apply(meta_params.encoder, inputs, **options))

    def adapt(key: Key, meta_params: SiameseParams, support: Batch) -> Twins:
        features_SD = embed(meta_params, support.inputs, key=key)
        members_SW = class_members(support, ways, features_SD.dtype)
        return Twins(meta_params, features_SD, members_SW, support.inputs)

    def logits_of_pairs(adapted: Twins, inputs: PyTree, key: Key | None = None) -> Array:
        meta_params, features_SD, _, reference = adapted
        features_QD = embed(meta_params, inputs, reference=reference, key=key)
        distances_QSD = jnp.abs(features_QD[:, None] - features_SD[None])
        return meta_params.bias - distances_QSD @ meta_params.weights_D

    def by_class(adapted: Twins, logits_QS: Array) -> Array:
        counts_W = adapted.members_SW.sum(axis=0)
        means_QW = logits_QS @ (adapted.members_SW / jnp.maximum(counts_W, 1)[None])
        return among_known(means_QW, counts_W > 0)

    def predict(adapted: Twins, inputs: PyTree, *, key: Key | None = None) -> Array:
        return by_class(adapted, logits_of_pairs(adapted, inputs, key))

    def verification_loss(key: Key, meta_params: SiameseParams, task: Task) -> tuple[Array, Info]:
        adapted = adapt(key, meta_params, task.support)
        logits_QS = logits_of_pairs(adapted, task.query.inputs)
        query_members_QW = class_members(task.query, ways, logits_QS.dtype)
        same_QS = query_members_QW @ adapted.members_SW.T
        known_QS = query_members_QW.sum(axis=1)[:, None] * adapted.members_SW.sum(axis=1)[None]
        different_QS = known_QS - same_QS
        log_p_QS, log_not_p_QS = jax.nn.log_sigmoid(logits_QS), jax.nn.log_sigmoid(-logits_QS)
        loss = -(_mean(log_p_QS, same_QS) + _mean(log_not_p_QS, different_QS)) / 2
        outputs = by_class(adapted, logits_QS)
        _, metrics = cross_entropy(outputs, task.query.targets, task.query.mask)
        return loss, Info(loss, metrics)

    return plain_learner(init, adapt, predict, cross_entropy, loss=verification_loss)


def _mean(values_QS: Array, weights_QS: Array) -> Array:
    return (values_QS * weights_QS).sum() / jnp.maximum(weights_QS.sum(), 1)
