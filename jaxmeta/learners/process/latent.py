"""Neural processes: a latent variable makes the predictions of one function coherent."""

from typing import Any, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import (
    Array,
    Batch,
    Info,
    Key,
    MetaLearner,
    Model,
    PyTree,
    Task,
    masked_mean,
    valid_mask,
)
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.keys import split_key
from jaxmeta.learners.process.attention import AttentionKind, CrossAttention
from jaxmeta.learners.process.conditional import beside, mean_of_real, pairs_of
from jaxmeta.learners.process.gaussian import (
    Gaussian,
    gaussian_likelihood,
    gaussian_of,
    log_density,
)

_DRAWS_AT_ONCE = 8


class LatentParams(NamedTuple):
    """Meta-parameters of a neural process.

    Attributes:
      latent_encoder: parameters of the network that encodes a point for the latent path.
      latent: parameters of the layers from the mean of encoded points to the distribution of z.
      encoder, attention: parameters of the deterministic path; `()` without one.
      decoder: parameters of the network that predicts.
    """

    latent_encoder: PyTree
    latent: PyTree
    encoder: PyTree
    attention: PyTree
    decoder: PyTree


class LatentState(NamedTuple):
    """The adapted state of a neural process.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      latents_LD: float `[samples, D]`, drawn from q(z | context).
      context: the support set, for the deterministic path.
    """

    meta_params: LatentParams
    latents_LD: Array
    context: Batch


class _Latent(nn.Module):
    """From the mean of encoded points to the distribution of z."""

    width: int

    @nn.compact
    def __call__(self, representation_D: Array) -> Gaussian:
        hidden = nn.relu(nn.Dense(self.width, name="hidden")(representation_D))
        # Flax derives initial weights from the layer's name: renaming it would change results.
        spread = nn.sigmoid(nn.Dense(self.width, name="deviation")(hidden))
        return Gaussian(nn.Dense(self.width, name="mean")(hidden), 0.1 + 0.9 * spread)


def neural_process(
    latent_encoder: Model,
    decoder: Model,
    *,
    latent_width: int = 128,
    encoder: Model | None = None,
    attention: AttentionKind = "uniform",
    heads: int = 1,
    samples: int = 8,
) -> MetaLearner:
    """A neural process: a latent variable z, inferred from the context, represents a function.

        q(z | C) = N(μ, σ²) of mean_s h([x_s, y_s]),   y(x) ~ N(g([x, z]))
        loss = −1/n Σ_t E_{q(z | C ∪ T)} log p(y_t | x_t, z) + 1/n KL(q(z | C ∪ T) ‖ q(z | C))

    with C the support and T the n points of the query (a point in both counts twice); the
    expectation is the mean over `samples` draws. An `encoder` adds a deterministic path:
    g([x, r(x), z]), with r(x) the attention of x to the encoded points (see `CrossAttention`).
    Unless this attention is uniform, the learner is an attentive neural process.

    Predictions are the mean and the standard deviation of the mixture over `samples` draws of z
    from q(z | C). Metrics, in nats per target: `log_likelihood` of single targets,
    1/n Σ_t log mean_z p(y_t | x_t, z); and `joint_log_likelihood` of all targets, by importance
    sampling with draws from q(z | C ∪ T),
    1/n log mean_z [∏_t p(y_t | x_t, z) q(z | C) / q(z | C ∪ T)] (Burda et al. 2016).
    Both are lower bounds in expectation, tighter with more draws.

    Args:
      latent_encoder: h, maps pairs `[examples, X + Y]` to `[examples, D]`.
      decoder: g, maps inputs, r(x) and z, concatenated, to `[examples, 2 Y]`.
      latent_width: size of z.
      encoder: encoder of the deterministic path. Defaults to no deterministic path.
      attention, heads: attention of the deterministic path.
      samples: draws of z. One suffices in training; a test should have many.

    Raises:
      ValueError: an unknown attention, fewer than 1 sample or head, a `latent_width` that is not a
        multiple of `heads`.

    Source: Garnelo, Schwarz, Rosenbaum et al. 2018, "Neural processes", section 2; Kim et al. 2019,
    "Attentive neural processes", section 3.

    >>> from jaxmeta.models import mlp
    >>> learner = neural_process(mlp((16,), 16), mlp((16,), 2), latent_width=4)
    >>> context = Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> params = jax.jit(learner.init)(jax.random.key(0), Task(context, context))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, context)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((3, 1))).mean.shape
    (3, 1)
    """
    if samples < 1 or heads < 1 or latent_width % heads or attention not in get_args(AttentionKind):
        raise ValueError(
            f"neural_process: {samples} samples, width {latent_width}, {heads} heads, attention "
            f"{attention!r}; give at least 1, a width that is a multiple of the heads, and one of "
            f"{', '.join(get_args(AttentionKind))}."
        )
    latent = _Latent(latent_width)
    densities = jax.vmap(log_density, in_axes=(0, None))  # of one set of targets under each draw
    of_latents = jax.vmap(log_density, in_axes=(None, 0))
    attend = CrossAttention(attention, width=latent_width, heads=heads)

    def init(key: Key, task: Task) -> LatentParams:
        keys = jax.random.split(key, 5)
        context = task.support
        pairs = pairs_of(context)
        points_params = latent_encoder.init(keys[0], pairs)
        points_SD = latent_encoder.apply(points_params, pairs)
        encoder_params, attention_params, widths = (), (), [context.inputs.shape[-1], latent_width]
        if encoder is not None:
            encoder_params = encoder.init(keys[2], pairs)
            values_SD = encoder.apply(encoder_params, pairs)
            real_S = jnp.ones(pairs.shape[:1], bool)
            variables = attend.init(keys[3], context.inputs, context.inputs, values_SD, real_S)
            attention_params = variables.get("params", {})
            widths.append(values_SD.shape[-1])
        return LatentParams(
            points_params,
            latent.init(keys[1], points_SD[0])["params"],
            encoder_params,
            attention_params,
            decoder.init(keys[4], jnp.zeros((1, sum(widths)), pairs.dtype)),
        )

    def belief(meta_params: LatentParams, batch: Batch) -> Gaussian:
        points_SD = latent_encoder.apply(meta_params.latent_encoder, pairs_of(batch))
        mean_D = mean_of_real(points_SD, batch.mask)
        return latent.apply({"params": meta_params.latent}, mean_D)  # pyright: ignore

    def reads(meta_params: LatentParams, context: Batch, inputs: Array, key: Key | None) -> Array:
        """The inputs, concatenated with their attention to the context, `[examples, X + D]`."""
        if encoder is None:
            return inputs
        values_SD = encoder.apply(meta_params.encoder, pairs_of(context), key=key)
        real_S = _real(context)
        arguments = (inputs, context.inputs, values_SD, real_S)
        read_QD: Any = attend.apply({"params": meta_params.attention}, *arguments)
        return jnp.concatenate([inputs, read_QD], axis=-1)

    def decode(
        meta_params: LatentParams, given: Array, latent_D: Array, key: Key | None
    ) -> Gaussian:
        outputs = decoder.apply(meta_params.decoder, beside(given, latent_D), key=key)
        return gaussian_of(outputs)

    def draws(key: Key, belief: Gaussian, count: int) -> Array:
        noise = jax.random.normal(key, (count, *belief.mean.shape), belief.mean.dtype)
        return belief.mean[None] + belief.std[None] * noise

    def adapt(key: Key, meta_params: LatentParams, support: Batch) -> LatentState:
        latents_LD = draws(key, belief(meta_params, support), samples)
        return LatentState(meta_params, latents_LD, support)

    def each_draw(adapted: LatentState, inputs: Array, key: Key | None = None) -> Gaussian:
        encoder_key, key = split_key(key)
        given = reads(adapted.meta_params, adapted.context, inputs, encoder_key)
        # A few at once: many draws for all pixels of an image would need gigabytes.
        return jax.lax.map(
            lambda z: decode(adapted.meta_params, given, z, key),
            adapted.latents_LD,
            batch_size=min(len(adapted.latents_LD), _DRAWS_AT_ONCE),
        )

    def predict(adapted: LatentState, inputs: Array, *, key: Key | None = None) -> Gaussian:
        return _mixture(each_draw(adapted, inputs, key))

    def loss(key: Key, meta_params: LatentParams, task: Task) -> tuple[Array, Info]:
        latent_key, adapt_key = jax.random.split(key)
        context, targets = task
        before = belief(meta_params, context)
        after = belief(meta_params, _together(context, targets))
        latents_LD = draws(latent_key, after, samples)
        each = each_draw(LatentState(meta_params, latents_LD, context), targets.inputs)
        densities_LQ = densities(each, targets.targets)
        totals_L = jnp.where(_real(targets)[None], densities_LQ, 0).sum(axis=1)
        count = jnp.maximum(_real(targets).sum(), 1)
        value = (divergence(after, before) - totals_L.mean()) / count

        adapted = jax.lax.stop_gradient(adapt(adapt_key, meta_params, context))
        each = each_draw(adapted, targets.inputs)
        _, metrics = gaussian_likelihood(_mixture(each), targets.targets, targets.mask)
        of_each_Q = _log_mean(densities(each, targets.targets))
        metrics["log_likelihood"] = masked_mean(of_each_Q, targets.mask)
        importance_L = of_latents(before, latents_LD) - of_latents(after, latents_LD)
        metrics["joint_log_likelihood"] = _log_mean(totals_L + importance_L) / count
        return value, Info(value, jax.lax.stop_gradient(metrics))

    return plain_learner(init, adapt, predict, gaussian_likelihood, loss=loss)


def divergence(one: Gaussian, other: Gaussian) -> Array:
    """KL(one ‖ other) of independent normal distributions, in nats, summed.

        Σ log σ₂/σ₁ + (σ₁² + (μ₁ − μ₂)²) / 2σ₂² − ½

    >>> at = lambda mean: Gaussian(jnp.array([mean]), jnp.ones(1))
    >>> float(divergence(at(0.0), at(2.0)))
    2.0
    """
    chex.assert_equal_shape([*one, *other])
    scaled = (jnp.square(one.std) + jnp.square(one.mean - other.mean)) / jnp.square(other.std)
    return (jnp.log(other.std / one.std) + (scaled - 1) / 2).sum()


def _mixture(each: Gaussian) -> Gaussian:
    """The mean and the standard deviation of a uniform mixture over the first axis."""
    variance = jnp.square(each.std).mean(axis=0) + each.mean.var(axis=0)
    return Gaussian(each.mean.mean(axis=0), jnp.sqrt(variance))


def _log_mean(logarithms: Array) -> Array:
    """The logarithm of the mean, over the first axis."""
    return jax.nn.logsumexp(logarithms, axis=0) - jnp.log(float(len(logarithms)))


def _real(batch: Batch) -> Array:
    return valid_mask(batch.mask, len(batch.targets))


def _together(one: Batch, other: Batch) -> Batch:
    join = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    return Batch(
        join(one.inputs, other.inputs),
        join(one.targets, other.targets),
        join(_real(one), _real(other)),
    )
