"""ALPaCA: Bayesian linear regression on learned features."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood
from jaxmeta.ops import varying_with


class LastLayer(NamedTuple):
    """A belief about the last layer: K ~ MN(mean, precision⁻¹, Σ).

    Attributes:
      mean_DY: float `[features, Y]`, K̄.
      precision_DD: float `[features, features]`, Λ, symmetric and positive definite.
    """

    mean_DY: Array
    precision_DD: Array


class ALPaCAParams(NamedTuple):
    """Meta-parameters of ALPaCA.

    Attributes:
      encoder: parameters of the feature network.
      mean_DY: float `[features, Y]`, K̄_0, the prior mean of the last layer.
      factor_DD: float `[features, features]`, the prior precision: Λ_0 = L Lᵀ, where L has the
        entries below the diagonal, and the exponentials of the diagonal.
      log_noise_Y: float `[Y]`, log σ_ε of each target.
    """

    encoder: PyTree
    mean_DY: Array
    factor_DD: Array
    log_noise_Y: Array


class Regressed(NamedTuple):
    """The adapted state of ALPaCA.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      mean_DY: float `[features, Y]`, the posterior mean of the last layer.
      covariance_DD: float `[features, features]`, Λ⁻¹ of the posterior.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: ALPaCAParams
    mean_DY: Array
    covariance_DD: Array
    reference: PyTree


def alpaca(
    encoder: Model,
    objective: Objective = gaussian_likelihood,
    *,
    noise_std: float = 0.1,
    least_std: float = 1e-3,
) -> MetaLearner:
    """ALPaCA: adapt a linear last layer by Bayesian regression, in closed form.

        y = Kᵀ φ(x) + ε,  ε ~ N(0, Σ),  K ~ MN(K̄_0, Λ_0⁻¹, Σ),  Σ = diag(σ_ε²)
        Λ = ΦᵀΦ + Λ_0,  K̄ = Λ⁻¹ (ΦᵀY + Λ_0 K̄_0),  Φ the features of the support, Y its targets
        mean(x) = K̄ᵀ φ(x),  std(x)² = (1 + φ(x)ᵀ Λ⁻¹ φ(x)) σ_ε²

    φ, K̄_0, Λ_0 and σ_ε are meta-learned through the closed form. Without a valid support example,
    the prediction is that of the prior. The order of the examples does not matter: adapting to one
    after the other gives the same posterior, see `last_layer_posterior`.

    Args:
      encoder: φ, maps inputs to features `[examples, D]`.
      objective: an objective of a `Gaussian`.
      noise_std: σ_ε at initialisation, in the targets' unit.
      least_std: lower bound of σ_ε, so that the likelihood of noise-free targets is bounded.

    Raises:
      ValueError: not 0 ≤ least_std < noise_std.

    Source: Harrison, Sharma, Pavone 2018, "Meta-learning priors for efficient online Bayesian
    regression", section 3 and algorithm 1; there Σ is given, and the paper's posterior covariance
    is Σ (1 + φᵀ Λ⁻¹ φ), too.

    >>> from jaxmeta.models import mlp
    >>> learner = alpaca(mlp((16,), 8))
    >>> support = Batch(jnp.linspace(-1, 1, 5)[:, None], jnp.ones((5, 2)))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> adapted = learner.adapt(jax.random.key(1), params, support)
    >>> learner.predict(adapted, jnp.ones((3, 1))).mean.shape
    (3, 2)
    """
    if not 0 <= least_std < noise_std:
        raise ValueError(
            f"alpaca: noise_std {noise_std}, least_std {least_std}; give 0 ≤ least_std < noise_std."
        )

    def init(key: Key, task: Task) -> ALPaCAParams:
        encoder_key, key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        features = jax.eval_shape(encoder.apply, params, task.support.inputs)
        size, targets = features.shape[-1], task.support.targets.shape[-1]
        mean = jax.random.normal(key, (size, targets), features.dtype) / size**0.5
        start = jnp.full((targets,), jnp.log(noise_std - least_std), features.dtype)
        return ALPaCAParams(params, mean, jnp.zeros((size, size), features.dtype), start)

    def adapt(key: Key, meta_params: ALPaCAParams, support: Batch) -> Regressed:
        features_SD = encoder.apply(meta_params.encoder, support.inputs, key=key)
        belief = LastLayer(meta_params.mean_DY, precision_of(meta_params.factor_DD))
        belief = last_layer_posterior(belief, features_SD, support.targets, support.mask)
        unit_DD = jnp.eye(features_SD.shape[-1], dtype=features_SD.dtype)
        unit_DD = varying_with(unit_DD, belief.precision_DD)
        precision_DD = _invertible(belief.precision_DD)
        covariance_DD = jax.scipy.linalg.solve(precision_DD, unit_DD, assume_a="pos")
        return Regressed(meta_params, belief.mean_DY, covariance_DD, support.inputs)

    def predict(adapted: Regressed, inputs: PyTree, *, key: Key | None = None) -> Gaussian:
        meta_params = adapted.meta_params
        features_QD = encoder.apply(
            meta_params.encoder, inputs, reference=adapted.reference, key=key
        )
        variance_Q = ((features_QD @ adapted.covariance_DD) * features_QD).sum(axis=-1)
        spread_Q = 1 + jnp.maximum(variance_Q, 0)  # rounding may make it negative
        noise_Y = least_std + jnp.exp(meta_params.log_noise_Y)
        return Gaussian(features_QD @ adapted.mean_DY, jnp.sqrt(spread_Q)[:, None] * noise_Y[None])

    return plain_learner(init, adapt, predict, objective)


def precision_of(factor_DD: Array) -> Array:
    """Λ = L Lᵀ, where L has the entries below the diagonal, and exponentials of the diagonal.

    >>> precision_of(jnp.array([[0.0, 9.0], [2.0, 0.0]])).tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """
    chex.assert_rank(factor_DD, 2)
    lower_DD = jnp.tril(factor_DD, -1) + jnp.diag(jnp.exp(jnp.diag(factor_DD)))
    return lower_DD @ lower_DD.T


def last_layer_posterior(
    belief: LastLayer, features_SD: Array, targets_SY: Array, mask: Array | None = None
) -> LastLayer:
    """The belief about the last layer after some examples; the new prior of the next ones.

        Λ' = Λ + ΦᵀΦ,  K̄' = K̄ + Λ'⁻¹ Φᵀ (Y − Φ K̄)

    Args:
      belief: the belief before.
      features_SD: float `[examples, features]`, Φ.
      targets_SY: float `[examples, Y]`.
      mask: None or bool `[examples]`.

    Source: Harrison, Sharma, Pavone 2018, equation 8, with the residuals of the mean before, which
    are small where the prior is good: more exact in float32.

    >>> prior = LastLayer(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    >>> after = last_layer_posterior(prior, jnp.ones((3, 1)), jnp.full((3, 1), 2.0))
    >>> after.mean_DY.round(4).tolist(), after.precision_DD.tolist()
    ([[1.5]], [[4.0]])
    """
    chex.assert_rank([features_SD, targets_SY, belief.mean_DY, belief.precision_DD], 2)
    valid_S1 = valid_mask(mask, features_SD.shape[0])[:, None]
    features_SD = jnp.where(valid_S1, features_SD, 0)
    residuals_SY = jnp.where(valid_S1, targets_SY - features_SD @ belief.mean_DY, 0)
    precision_DD = belief.precision_DD + features_SD.T @ features_SD
    right_DY = varying_with(features_SD.T @ residuals_SY, precision_DD)
    change_DY = jax.scipy.linalg.solve(_invertible(precision_DD), right_DY, assume_a="pos")
    return LastLayer(belief.mean_DY + change_DY, precision_DD)


def _invertible(precision_DD: Array) -> Array:
    """Λ with an allowance for rounding, 4 ε tr Λ, without which large features give NaN."""
    size = precision_DD.shape[0]
    allowance = 4 * jnp.finfo(precision_DD.dtype).eps * jnp.trace(precision_DD)
    return precision_DD + jax.lax.stop_gradient(allowance) * jnp.eye(size, dtype=precision_DD.dtype)
