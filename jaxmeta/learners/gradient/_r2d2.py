"""R2-D2: ridge regression on learned features, solved in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    meta_learner,
)
from jaxmeta.learners.metric._prototypical import class_members
from jaxmeta.learners.ways import among_known, check_ways
from jaxmeta.ops import varying_with


class R2D2Params(NamedTuple):
    """Meta-parameters of R2-D2.

    Attributes:
      encoder: parameters of the feature network.
      log_ridge: log λ, with λ the ridge penalty.
      log_scale, bias: log α and β, which map regression outputs to logits.
    """

    encoder: PyTree
    log_ridge: Array
    log_scale: Array
    bias: Array


class RidgeHead(NamedTuple):
    """The adapted state of R2-D2.

    Attributes:
      meta_params: see `R2D2Params`.
      weights_DW: float `[features, ways]`.
      known_W: bool `[ways]`, which classes have an example.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: R2D2Params
    weights_DW: Array
    known_W: Array
    reference: PyTree


def r2d2(encoder: Model, objective: Objective, ways: int) -> MetaLearner:
    """R2-D2: adapt a linear head by ridge regression, differentiate through its closed form.

        W = Xᵀ (X Xᵀ + λ I)⁻¹ Y,  X the support's features, Y its labels one-hot
        logits(x) = α f(x) W + β;  λ, α, β and f are learned

    Regression outputs are about between 0 and 1, so that α is initialised to 10; λ to 1, β to 0.

    The linear system has the size of the support set, not of the features (the Woodbury identity).
    A class without a (valid) support example is never predicted; examples without a label (−1) are
    ignored.

    Args:
      encoder: maps inputs to features `[examples, D]`.
      objective: an objective of logits `[examples, ways]`, such as cross-entropy.
      ways: classes of a task. The meta-parameters do not depend on it.

    Raises:
      ValueError: fewer than two ways.

    Source: Bertinetto, Henriques, Torr, Vedaldi 2019, "Meta-learning with differentiable
    closed-form solvers", section 3.2.

    >>> import jaxmeta
    >>> identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = r2d2(identity, jaxmeta.cross_entropy, ways=2)
    >>> support = Batch(jnp.eye(2), jnp.array([0, 1]))
    >>> meta_params = learner.init(jax.random.key(0), Task(support, support))
    >>> learner.adapt(jax.random.key(0), meta_params, support).weights_DW.round(3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    check_ways("r2d2", ways)

    def init(key: Key, task: Task) -> R2D2Params:
        params = encoder.init(key, task.support.inputs)
        return R2D2Params(params, jnp.zeros(()), jnp.log(jnp.asarray(10.0)), jnp.zeros(()))

    def adapt(key: Key, meta_params: R2D2Params, support: Batch) -> RidgeHead:
        features_SD = encoder.apply(meta_params.encoder, support.inputs, key=key)
        labels_SW = class_members(support, ways, features_SD.dtype)
        known_W = labels_SW.sum(axis=0) > 0
        ridge = jnp.exp(meta_params.log_ridge) * jnp.eye(features_SD.shape[0])
        # Padding and examples without a label are excluded from the system: their duals are 0.
        left_out_S = labels_SW.sum(axis=1) == 0
        left_out_SS = left_out_S[:, None] | left_out_S[None]
        gram_SS = jnp.where(left_out_SS, 0, features_SD @ features_SD.T)
        gram_SS = gram_SS + ridge.astype(features_SD.dtype)
        labels_SW = varying_with(labels_SW, gram_SS)  # labels may be the same on all devices
        duals_SW = jax.scipy.linalg.solve(gram_SS, labels_SW, assume_a="pos")
        return RidgeHead(meta_params, features_SD.T @ duals_SW, known_W, support.inputs)

    def predict(adapted: RidgeHead, inputs: PyTree, *, key: Key | None = None) -> Array:
        meta_params = adapted.meta_params
        features_QD = encoder.apply(
            meta_params.encoder, inputs, reference=adapted.reference, key=key
        )
        outputs_QW = features_QD @ adapted.weights_DW
        logits_QW = jnp.exp(meta_params.log_scale) * outputs_QW + meta_params.bias
        return among_known(logits_QW, adapted.known_W)

    return meta_learner(init, adapt, predict, objective)
