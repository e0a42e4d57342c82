"""A conditional VAE on features, which imagines examples of a new class from its first one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Info, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.generative._augmented import Generate
from jaxmeta.learners.generative.linear import head_on_samples, transformed
from jaxmeta.learners.generative.vae import (
    bound_loss,
    divergence_from_prior,
    log_likelihood,
    posterior,
    sampled,
)
from jaxmeta.learners.metric._prototypical import class_members
from jaxmeta.objectives import masked_mean


class FeatureVAEParams(NamedTuple):
    """Parameters of a conditional VAE on features.

    Attributes:
      encoder: of the network of q(z | x, x_a), from `[N, 2 D]`.
      decoder: of the network of p(x | z, x_a), from `[N, latent + D]`.
      log_std: log σ of the Gaussian likelihood, a float scalar.
      codes_KZ: codes of pairs of base classes, float `[codes, latent]`, from which z is drawn
        where there is no prior; otherwise unused.
    """

    encoder: PyTree
    decoder: PyTree
    log_std: Array
    codes_KZ: Array


def vae_samples(decoder: Model, params: FeatureVAEParams, *, prior: bool = True) -> Generate:
    """`generate(key, features) -> features` of another example of the class.

        x' = mean of p(x | z, x_a),  z ~ N(0, I), or z a code of a base pair without the prior

    With the prior, the noise of the likelihood, σ ε, is added, so that x' is a sample of the model.

    >>> from jaxmeta.models import mlp
    >>> decoder = mlp((), 3)
    >>> weights = decoder.init(jax.random.key(0), jnp.zeros((1, 2 + 3)))
    >>> params = FeatureVAEParams((), weights, jnp.zeros(()), jnp.zeros((4, 2)))
    >>> vae_samples(decoder, params)(jax.random.key(1), jnp.ones(3)).shape
    (3,)
    """

    def generate(key: Key, features_D: Array) -> Array:
        code_key, noise_key = jax.random.split(key)
        latent, dtype = params.codes_KZ.shape[1:], features_D.dtype
        if prior:
            code_Z = jax.random.normal(code_key, latent, dtype)
        else:
            row = jax.random.randint(code_key, (), 0, params.codes_KZ.shape[0])
            code_Z = params.codes_KZ[row]
        new_D = decoder.apply(params.decoder, jnp.concatenate([code_Z, features_D])[None])[0]
        if not prior:
            return new_D
        return new_D + jnp.exp(params.log_std) * jax.random.normal(noise_key, new_D.shape, dtype)

    return generate


def vae_augmented(
    encoder: Model,
    decoder: Model,
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    count: int = 100,
    power: float = 1.0,
    prior: bool = True,
    codes: int = 512,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """A linear head on features and on samples of a conditional VAE, trained on pairs of a class.

        training: bound(x | x_a) = E_{q(z | x, x_a)} [log N(x; d(z, x_a), σ²)] − KL(q ‖ N(0, I)),
                  x of the query set, x_a an example of its class in the support set
        task:     head = argmin L(head; S ∪ {samples of p(x | z, x_a) : x_a ∈ S, z ~ N(0, I)})

    Without the prior it is the delta-encoder: z is the mean of the encoder, and for a new class a
    code of a random pair of the base classes. With e = |x − d(z, x_a)|, the loss is Σ_i w_i e_i,
    w_i = e_i² / Σ_j e_j², so that the features with the largest errors count most.

    The inputs are features of a frozen network, `[examples, ...]`. Metrics of the loss are those of
    `bound_loss`; a query example without a support example of its class does not count.

    Args:
      encoder: `[N, 2 D]`, the features x and x_a, to `[N, 2 · latent]`.
      decoder: `[N, latent + D]` to features `[N, D]`.
      objective, ways, inner_optimizer, inner_steps, differentiation: as in `meta_transfer`.
      count: samples for each support example.
      power: λ of Tukey's transform of all features.
      prior: whether z has a prior and the loss a KL term.
      codes: number of stored codes of base pairs, see `base_codes`.

    Raises:
      ValueError: fewer than one code; otherwise as `distribution_calibration`.

    Source: Schwartz et al. 2018, "Delta-encoder: an effective sample synthesis method for few-shot
    object recognition", section 3; Sohn, Lee, Yan 2015, "Learning structured output representation
    using deep conditional generative models", equation 4.

    >>> import jaxmeta
    >>> from jaxmeta import Batch
    >>> from jaxmeta.models import mlp
    >>> networks = mlp((8,), 4), mlp((8,), 3)
    >>> learner = vae_augmented(*networks, jaxmeta.cross_entropy, 2, optax.sgd(1.0), 5)
    >>> support = Batch(jnp.eye(3)[:2], jnp.array([0, 1]))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> loss, info = learner.loss(jax.random.key(1), params, Task(support, support))
    >>> sorted(info.metrics)
    ['bound', 'divergence', 'log_likelihood']
    """
    if codes < 1:
        raise ValueError(f"vae_augmented: codes is {codes}; give at least 1.")
    adapt, predict = head_on_samples(
        "vae_augmented",
        objective,
        ways,
        inner_optimizer,
        inner_steps,
        power=power,
        generator=lambda params: vae_samples(decoder, params, prior=prior),
        count=count,
        differentiation=differentiation,
    )

    def init(key: Key, task: Task) -> FeatureVAEParams:
        encoder_key, decoder_key, code_key = jax.random.split(key, 3)
        features = jax.eval_shape(lambda inputs: transformed(inputs, 1), task.support.inputs)
        size = features.shape[1]
        params = encoder.init(encoder_key, jnp.zeros((1, 2 * size)))
        outputs = jax.eval_shape(encoder.apply, params, jnp.zeros((1, 2 * size)))
        latent = outputs.shape[1] // 2
        return FeatureVAEParams(
            params,
            decoder.init(decoder_key, jnp.zeros((1, latent + size))),
            jnp.zeros(()),
            jax.random.normal(code_key, (codes, latent)),
        )

    def loss(key: Key, params: FeatureVAEParams, task: Task) -> tuple[Array, Info]:
        pair_key, code_key = jax.random.split(key)
        features_SD = transformed(task.support.inputs, power)
        values_QD = transformed(task.query.inputs, power)
        partner_Q, known_Q = partners(pair_key, task, ways)
        given_QD = features_SD[partner_Q]
        mean, log_variance = pair_codes(encoder, params, values_QD, given_QD)
        code_QZ = sampled(code_key, mean, log_variance) if prior else mean
        outputs_QD = decoder.apply(params.decoder, jnp.concatenate([code_QZ, given_QD], axis=1))
        if prior:
            fit_Q = log_likelihood(values_QD, outputs_QD, params.log_std)
            return bound_loss(fit_Q, divergence_from_prior(mean, log_variance), known_Q)
        errors_QD = jnp.abs(values_QD - outputs_QD)
        squares_QD = jnp.square(errors_QD)
        weights_QD = squares_QD / jnp.maximum(squares_QD.sum(axis=1, keepdims=True), 1e-12)
        error = masked_mean((weights_QD * errors_QD).sum(axis=1), known_Q)
        zero = jnp.zeros_like(error)
        return error, Info(error, {"bound": -error, "log_likelihood": -error, "divergence": zero})

    return plain_learner(init, adapt, predict, objective, loss=loss)


def pair_codes(
    encoder: Model, params: FeatureVAEParams, values_ND: Array, given_ND: Array
) -> tuple[Array, Array]:
    """The mean and the logarithm of the variance of q(z | x, x_a) of each pair."""
    return posterior(encoder.apply(params.encoder, jnp.concatenate([values_ND, given_ND], axis=1)))


def partners(key: Key, task: Task, ways: int) -> tuple[Array, Array]:
    """A random support example of the class of each query example, int `[Q]`; whether it exists.

    >>> from jaxmeta import Batch
    >>> task = Task(Batch(None, jnp.array([0, 1])), Batch(None, jnp.array([1, 2, 0])))
    >>> rows, known = partners(jax.random.key(0), task, 3)
    >>> rows[0].item(), rows[2].item(), known.tolist()
    (1, 0, [True, False, True])
    """
    members_SW, members_QW = class_members(task.support, ways), class_members(task.query, ways)
    same_QS = members_QW @ members_SW.T > 0
    queries, examples = jnp.arange(same_QS.shape[0]), jnp.arange(same_QS.shape[1])

    def scores(query: Array) -> Array:  # of each pair by itself, so that padding changes nothing
        of_query = jax.random.fold_in(key, query)
        return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(of_query, row)))(examples)

    scores_QS = jnp.where(same_QS, jax.vmap(scores)(queries), -1)
    return scores_QS.argmax(axis=1), same_QS.any(axis=1)


def base_codes(
    key: Key,
    encoder: Model,
    params: FeatureVAEParams,
    features_CND: Array,
    mask_CN: Array,
) -> Array:
    """Codes of random pairs of base classes, of the shape of `params.codes_KZ`.

    Args:
      key: of the pairs.
      encoder, params: of the VAE.
      features_CND, mask_CN: transformed features of the base classes, as for `base_statistics`.

    >>> from jaxmeta.models import mlp
    >>> encoder, features = mlp((), 4), jnp.ones((5, 6, 3))
    >>> weights = encoder.init(jax.random.key(0), jnp.zeros((1, 2 * 3)))
    >>> params = FeatureVAEParams(weights, (), jnp.zeros(()), jnp.zeros((7, 2)))
    >>> base_codes(jax.random.key(1), encoder, params, features, jnp.ones((5, 6), bool)).shape
    (7, 2)
    """
    class_key, first_key, second_key = jax.random.split(key, 3)
    codes = params.codes_KZ.shape[0]
    rows = jax.random.randint(class_key, (codes,), 0, features_CND.shape[0])

    def drawn(key: Key) -> Array:
        scores_KN = jax.random.uniform(key, (codes, features_CND.shape[1]))
        return jnp.where(mask_CN[rows], scores_KN, -1).argmax(axis=1)

    first, second = (features_CND[rows, drawn(key)] for key in (first_key, second_key))
    return pair_codes(encoder, params, first, second)[0]
