"""A Bayesian last layer: Gaussian process regression on learned features, in closed form."""

from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    valid_mask,
)
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.metric._prototypical import (
    class_members,
    known_classes,
    squared_distances,
)
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood
from jaxmeta.learners.ways import among_known, check_choice, check_ways
from jaxmeta.ops import varying_with

FeatureKernel = Literal["linear", "rbf"]
TrainingLoss = Literal["predictive", "marginal"]


class LastLayerParams(NamedTuple):
    """Meta-parameters of a Bayesian last layer.

    Attributes:
      encoder: parameters of the feature network.
      log_scale: log s, with s the variance of the prior.
      log_length: log ℓ, the length scale of the `rbf` kernel; not used by `linear`.
      log_noise: log of the noise's standard deviation, without its lower bound.
    """

    encoder: PyTree
    log_scale: Array
    log_length: Array
    log_noise: Array


class Conditioned(NamedTuple):
    """The adapted state of a Bayesian last layer: the posterior given the support set.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      features_SD: float `[S, features]`, of the support.
      factor_SS: float `[S, S]`, the Cholesky factor of K + σ² I.
      duals_SY: float `[S, Y]`, (K + σ² I)⁻¹ Y; 0 for padding.
      valid_S: bool `[S]`, which examples are no padding and have a label.
      known_W: bool `[ways]`, which classes have an example; None in regression.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: LastLayerParams
    features_SD: Array
    factor_SS: Array
    duals_SY: Array
    valid_S: Array
    known_W: Array | None
    reference: PyTree


def bayesian_last_layer(
    encoder: Model,
    objective: Objective = gaussian_likelihood,
    ways: int = 0,
    *,
    feature_kernel: FeatureKernel = "linear",
    training_loss: TrainingLoss = "predictive",
    noise_std: float = 0.3,
    least_std: float = 0.03,
) -> MetaLearner:
    """Bayesian regression on learned features φ, meta-trained through its closed form.

        k(x, x') = s φ(x)ᵀ φ(x') / D                      (linear: a Gaussian prior of a last layer)
        k(x, x') = s exp(−‖φ(x) − φ(x')‖² / (2 ℓ² D))     (rbf)
        mean(x) = k(x, X) (K + σ² I)⁻¹ Y,   var(x) = k(x, x) − k(x, X) (K + σ² I)⁻¹ k(X, x)

    φ, s, ℓ and σ are meta-parameters. In regression, the outputs are a `Gaussian` of mean(x) and
    √(var(x) + σ²), and the prior mean is 0. In classification, the labels are +1 for a class and −1
    for the others, and the logit of a class is log Φ(mean / √(var + σ²)), with Φ the normal
    distribution function; for two classes, Φ is the probability. Without a valid support example,
    the prediction is that of the prior.

    `alpaca` has a last layer with a learned prior mean and a full prior covariance, at a cost of D³
    instead of S³; here the prior has one scale, and any kernel is possible.

    Args:
      encoder: φ, maps inputs to features `[examples, D]`.
      objective: of a `Gaussian`; in classification, of logits `[examples, ways]`.
      ways: number of classes; 0 for regression.
      feature_kernel: see above.
      training_loss: `predictive`, the objective on the query given the support; or `marginal`,
        the negative log marginal likelihood of the labels of support and query together, in nats
        per label.
      noise_std: σ at initialisation, in the targets' unit.
      least_std: lower bound of σ. The rounding of K, 4 ε tr K with ε that of the floating-point
        type, is added to σ² where K + σ² I is inverted.

    Raises:
      ValueError: an unknown kernel or loss; one way; not 0 < least_std < noise_std.

    Source: Patacchiola et al. 2020, "Bayesian meta-learning for the few-shot setting via deep
    kernels", section 4 (`marginal`); Harrison, Sharma, Pavone 2018, "Meta-learning priors for
    efficient online Bayesian regression", section 3 (`linear`, `predictive`).

    >>> from jaxmeta.models import mlp
    >>> learner = bayesian_last_layer(mlp((16,), 8), feature_kernel="rbf")
    >>> support = Batch(jnp.linspace(-1, 1, 5)[:, None], jnp.ones((5, 2)))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> adapted = learner.adapt(jax.random.key(1), params, support)
    >>> learner.predict(adapted, jnp.ones((3, 1))).std.shape
    (3, 2)
    """
    check_choice("bayesian_last_layer", feature_kernel, FeatureKernel)
    check_choice("bayesian_last_layer", training_loss, TrainingLoss)
    if ways:
        check_ways("bayesian_last_layer", ways)
    if not 0 < least_std < noise_std:
        raise ValueError(
            f"bayesian_last_layer: noise_std {noise_std}, least_std {least_std}; give "
            "0 < least_std < noise_std."
        )

    def init(key: Key, task: Task) -> LastLayerParams:
        params = encoder.init(key, task.support.inputs)
        noise = jnp.log(jnp.asarray(noise_std - least_std, float))
        return LastLayerParams(params, jnp.zeros(()), jnp.zeros(()), noise)

    def kernel(params: LastLayerParams, one_AD: Array, other_BD: Array) -> Array:
        size = one_AD.shape[-1]
        if feature_kernel == "linear":
            return jnp.exp(params.log_scale) * (one_AD @ other_BD.T / size)
        distances_AB = jnp.maximum(squared_distances(one_AD, other_BD), 0) / size
        return jnp.exp(params.log_scale - distances_AB / (2 * jnp.exp(2 * params.log_length)))

    def noise_variance(params: LastLayerParams) -> Array:
        return jnp.square(least_std + jnp.exp(params.log_noise))

    def labels_of(batch: Batch, dtype: Any) -> tuple[Array, Array]:
        """The targets of the regression, `[examples, Y]`, 0 where invalid; and which are valid."""
        if ways:
            members_SW = class_members(batch, ways, dtype)
            labelled_S = members_SW.sum(axis=1) != 0  # a NaN is kept, and makes the result NaN
            return jnp.where(labelled_S[:, None], 2 * members_SW - 1, 0), labelled_S
        chex.assert_rank(batch.targets, 2)
        valid_S = valid_mask(batch.mask, len(batch.targets))
        return jnp.where(valid_S[:, None], batch.targets, 0), valid_S

    def factor_of(params: LastLayerParams, features_SD: Array, valid_S: Array) -> Array:
        """The Cholesky factor of K + σ² I, with 1 on the diagonal for what is not valid."""
        both_SS = valid_S[:, None] & valid_S[None]
        unit_SS = jnp.eye(len(valid_S), dtype=features_SD.dtype)
        gram_SS = jnp.where(both_SS, kernel(params, features_SD, features_SD), 0)
        # And what float32 rounds of K, whose rank is at most D.
        rounding = 4 * jnp.finfo(gram_SS.dtype).eps * jnp.trace(gram_SS)
        diagonal_S = jnp.where(valid_S, noise_variance(params) + rounding, 1)
        return jnp.linalg.cholesky(gram_SS + diagonal_S[:, None] * unit_SS)

    def adapt(key: Key, meta_params: LastLayerParams, support: Batch) -> Conditioned:
        features_SD = encoder.apply(meta_params.encoder, support.inputs, key=key)
        labels_SY, valid_S = labels_of(support, features_SD.dtype)
        factor_SS = factor_of(meta_params, features_SD, valid_S)
        labels_SY = varying_with(labels_SY, factor_SS)
        duals_SY = jax.scipy.linalg.cho_solve((factor_SS, True), labels_SY)
        known_W = known_classes(support, ways) if ways else None
        return Conditioned(
            meta_params, features_SD, factor_SS, duals_SY, valid_S, known_W, support.inputs
        )

    def predict(adapted: Conditioned, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        params = adapted.meta_params
        features_QD = encoder.apply(params.encoder, inputs, reference=adapted.reference, key=key)
        cross_QS = kernel(params, features_QD, adapted.features_SD)
        cross_QS = jnp.where(adapted.valid_S[None], cross_QS, 0)
        mean_QY = cross_QS @ adapted.duals_SY
        explained_SQ = jax.scipy.linalg.solve_triangular(
            adapted.factor_SS, varying_with(cross_QS.T, adapted.factor_SS), lower=True
        )
        prior_Q = jnp.full(len(features_QD), jnp.exp(params.log_scale))
        if feature_kernel == "linear":
            prior_Q = prior_Q * jnp.square(features_QD).mean(axis=1)
        variance_Q = jnp.maximum(prior_Q - jnp.square(explained_SQ).sum(axis=0), 0)
        std_Q = jnp.sqrt(variance_Q + noise_variance(params))
        if not ways:
            return Gaussian(mean_QY, jnp.broadcast_to(std_Q[:, None], mean_QY.shape))
        assert adapted.known_W is not None
        return among_known(jax.scipy.special.log_ndtr(mean_QY / std_Q[:, None]), adapted.known_W)

    def marginal(key: Key, meta_params: LastLayerParams, task: Task) -> tuple[Array, Info]:
        adapted = adapt(key, meta_params, task.support)
        outputs = predict(adapted, task.query.inputs)
        judged, metrics = objective(outputs, task.query.targets, task.query.mask)
        features_ND = jnp.concatenate(
            [
                adapted.features_SD,
                encoder.apply(meta_params.encoder, task.query.inputs, reference=adapted.reference),
            ]
        )
        labelled = [labels_of(part, features_ND.dtype) for part in task]
        labels_NY, valid_N = map(jnp.concatenate, zip(*labelled))
        loss = _negative_evidence(factor_of(meta_params, features_ND, valid_N), labels_NY, valid_N)
        return loss, Info(loss, {**metrics, "predictive_loss": judged})

    loss = marginal if training_loss == "marginal" else None
    return plain_learner(init, adapt, predict, objective, loss=loss)


def _negative_evidence(factor_NN: Array, labels_NY: Array, valid_N: Array) -> Array:
    """−log N(Y; 0, L Lᵀ), in nats per valid label; rows that are not valid have label 0."""
    whitened_NY = jax.scipy.linalg.solve_triangular(
        factor_NN, varying_with(labels_NY, factor_NN), lower=True
    )
    count = valid_N.sum()
    outputs = labels_NY.shape[1]
    # The factor of an example that is not valid is 1, whose logarithm is 0.
    normaliser = jnp.log(jnp.diag(factor_NN)).sum() + count * jnp.log(2 * jnp.pi) / 2
    total = jnp.square(whitened_NY).sum() / 2 + outputs * normaliser
    return total / jnp.maximum(count * outputs, 1)
