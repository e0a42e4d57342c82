"""Variational autoencoders: the bound, and a plain learner of images."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Info, Key, MetaLearner, Model, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.objectives import masked_mean

Likelihood = Literal["bernoulli", "gaussian"]


class VAEParams(NamedTuple):
    """Parameters of a variational autoencoder.

    Attributes:
      encoder: of the network of q(z | x), whose outputs are its mean and the logarithm of its
        variance.
      decoder: of the network of p(x | z).
      log_std: the logarithm of the standard deviation of a Gaussian likelihood, a float scalar.
    """

    encoder: PyTree
    decoder: PyTree
    log_std: Array


def posterior(outputs: Array) -> tuple[Array, Array]:
    """The mean and the logarithm of the variance of q(z | x), each half of the outputs."""
    mean, log_variance = jnp.split(outputs, 2, axis=-1)
    return mean, log_variance


def sampled(key: Key, mean: Array, log_variance: Array) -> Array:
    """A sample of q: mean + std · ε, with its own random numbers for every row.

    >>> sampled(jax.random.key(0), jnp.ones((2, 1)), jnp.full((2, 1), -100.0)).tolist()
    [[1.0], [1.0]]
    """
    rows = jnp.arange(mean.shape[0])
    draw = lambda row: jax.random.normal(jax.random.fold_in(key, row), mean.shape[1:], mean.dtype)  # noqa: E731
    return mean + jnp.exp(log_variance / 2) * jax.vmap(draw)(rows)


def divergence_from_prior(mean: Array, log_variance: Array) -> Array:
    """KL(N(mean, variance) ‖ N(0, I)) of each row, in nats.

        ½ Σ_j (m_j² + v_j − 1 − log v_j)

    >>> divergence_from_prior(jnp.array([[2.0]]), jnp.zeros((1, 1))).tolist()
    [2.0]
    """
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return terms.sum(axis=-1) / 2


def log_likelihood(values: Array, outputs: Array, log_std: Array | None) -> Array:
    """log p(x | z) of each row, summed over all other axes, in nats.

    Args:
      values: x, `[rows, ...]`; 0 or 1 for a Bernoulli likelihood.
      outputs: of the decoder, of the same shape: the mean of a Gaussian, or the logits.
      log_std: the logarithm of the Gaussian's standard deviation; None for a Bernoulli likelihood.

    >>> log_likelihood(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2)), None).round(4).tolist()
    [-1.386299967765808]
    """
    if log_std is None:
        terms = values * outputs - jax.nn.softplus(outputs)
    else:
        squares = jnp.square((values - outputs) * jnp.exp(-log_std))
        terms = -squares / 2 - log_std - jnp.log(2 * jnp.pi) / 2
    return terms.reshape(terms.shape[0], -1).sum(axis=1)


def vae(encoder: Model, decoder: Model, *, likelihood: Likelihood = "bernoulli") -> MetaLearner:
    """A variational autoencoder of images, a plain learner: the query set is the batch.

        bound(x) = E_{q(z | x)} [log p(x | z)] − KL(q(z | x) ‖ N(0, I)) ≤ log p(x)
        meta-gradient: −∇ bound, the mean over the query set, with one sample of z

    With a Bernoulli likelihood, pixels are rounded to 0 and 1. `predict` gives the mean image of
    p(x | z): with z the mean of q(z | x), a reconstruction, or with a key from the prior, a sample.
    The support set is ignored.

    Args:
      encoder: `[N, H, W, C]` to `[N, 2 · latent]`, see `posterior`.
      decoder: `[N, latent]` to logits, or the mean of a Gaussian, `[N, H, W, C]`.
      likelihood: of the pixels; a Gaussian has one learned standard deviation.

    Raises:
      ValueError: an unknown likelihood.

    Source: Kingma, Welling 2014, "Auto-encoding variational Bayes", equation 10.

    >>> from jaxmeta import Batch
    >>> from jaxmeta.models import conv4, image_decoder
    >>> learner = vae(conv4(4, width=8), image_decoder((28, 28, 1), width=8))
    >>> batch = Batch(jnp.zeros((2, 28, 28, 1)), jnp.zeros(2, jnp.int32))
    >>> params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> learner.predict(params, batch.inputs).shape
    (2, 28, 28, 1)
    """
    if likelihood not in ("bernoulli", "gaussian"):
        raise ValueError(f"vae: likelihood {likelihood!r}; give bernoulli or gaussian.")

    def init(key: Key, task: Task) -> VAEParams:
        encoder_key, decoder_key = jax.random.split(key)
        params = encoder.init(encoder_key, task.query.inputs)
        codes = jax.eval_shape(encoder.apply, params, task.query.inputs)
        latent = jnp.zeros((codes.shape[0], codes.shape[1] // 2))
        return VAEParams(params, decoder.init(decoder_key, latent), jnp.zeros(()))

    def predict(params: VAEParams, inputs: Array, *, key: Key | None = None) -> Array:
        mean, log_variance = posterior(encoder.apply(params.encoder, seen(inputs)))
        if key is not None:
            mean = sampled(key, jnp.zeros_like(mean), jnp.zeros_like(log_variance))
        outputs = decoder.apply(params.decoder, mean)
        return jax.nn.sigmoid(outputs) if likelihood == "bernoulli" else outputs

    def seen(inputs: Array) -> Array:
        return (inputs > 0.5).astype(inputs.dtype) if likelihood == "bernoulli" else inputs

    def loss(key: Key, params: VAEParams, task: Task) -> tuple[Array, Info]:
        values = seen(task.query.inputs)
        mean, log_variance = posterior(encoder.apply(params.encoder, values))
        outputs = decoder.apply(params.decoder, sampled(key, mean, log_variance))
        log_std = None if likelihood == "bernoulli" else params.log_std
        return bound_loss(
            log_likelihood(values, outputs, log_std),
            divergence_from_prior(mean, log_variance),
            task.query.mask,
        )

    def adapt(key: Key, params: VAEParams, support: PyTree) -> VAEParams:
        return params

    return plain_learner(init, adapt, predict, no_objective, loss=loss)


def bound_loss(fit: Array, divergence: Array, mask: Array | None) -> tuple[Array, Info]:
    """The loss −bound, and the bound with its two terms as metrics, means over the rows.

    >>> loss, info = bound_loss(jnp.array([-3.0]), jnp.array([1.0]), None)
    >>> float(loss), float(info.metrics["bound"])
    (4.0, -4.0)
    """
    fit, divergence = masked_mean(fit, mask), masked_mean(divergence, mask)
    metrics = {"bound": fit - divergence, "log_likelihood": fit, "divergence": divergence}
    return divergence - fit, Info(divergence - fit, metrics)


def no_objective(outputs: PyTree, targets: PyTree, mask: Array | None = None) -> tuple[Array, dict]:
    """The objective of a learner that gives its own loss.

    Raises:
      TypeError: always.
    """
    raise TypeError("this learner has its own loss.")
