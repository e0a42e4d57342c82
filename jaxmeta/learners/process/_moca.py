"""MOCA: a belief about when the regime of a stream began, around Bayesian regression."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Info, Key, MetaLearner, Model, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process._alpaca import ALPaCAParams, alpaca, precision_of
from jaxmeta.learners.process.gaussian import Mixture, component_densities, mixture_likelihood
from jaxmeta.ops import varying_with

NEVER = -1e30  # log of a probability of 0; finite, so that its gradient is 0 and not NaN


class MOCAParams(NamedTuple):
    """Meta-parameters of MOCA.

    Attributes:
      last_layer: of the regression, as in `alpaca`.
      log_odds: float scalar, log λ / (1 − λ) of the hazard rate; `()` if the rate is fixed.
    """

    last_layer: ALPaCAParams
    log_odds: PyTree


class RunLengths(NamedTuple):
    """The state of MOCA between two examples: R hypotheses about the run length.

    The run length r is the number of examples of the present regime so far: 0 if the next example
    is the first one of a new regime.

    Attributes:
      log_belief_R: float `[R]`, log b(r) for r = 0, …, R − 1; about −1e30 where b(r) is 0.
      mean_RDY: float `[R, features, Y]`, the posterior mean of the last layer given the last r
        examples.
      covariance_RDD: float `[R, features, features]`, its Λ⁻¹.
    """

    log_belief_R: Array
    mean_RDY: Array
    covariance_RDD: Array


class Followed(NamedTuple):
    """What MOCA has predicted and believed at each of T examples.

    Attributes:
      predictions: the `Mixture` of each example before its target is seen, `[T, R]`.
      log_posterior_TR: float `[T, R]`, the belief after the target is seen: at r is the probability
        that r of the examples before this one belong to its regime.
    """

    predictions: Mixture
    log_posterior_TR: Array


class Adapted(NamedTuple):
    """The adapted state of MOCA."""

    meta_params: MOCAParams
    state: RunLengths


def next_belief(
    log_belief_R: Array, log_density_R: Array, log_hazard: Array, log_survival: Array
) -> tuple[Array, Array]:
    """The belief about the run length after an example, and before the next one.

        b(r | y) ∝ b(r) p(y | r),   b'(0) = λ,   b'(r + 1) = (1 − λ) b(r | y)

    The last run length stands for all longer ones, too: b'(R − 1) = (1 − λ) Σ_{r ≥ R − 2} b(r | y).

    Args:
      log_belief_R: float `[R]`, log b; R is at least 2.
      log_density_R: float `[R]`, log p(y | r), the predictive density of each run length.
      log_hazard, log_survival: log λ and log (1 − λ).

    Returns:
      log b(· | y) and log b', both `[R]`.

    Source: Harrison et al. 2020, section 4, equations 4 to 6.

    >>> import math
    >>> rate = math.log(0.5), math.log(0.5)
    >>> _, after = next_belief(jnp.array([0.0, NEVER, NEVER]), jnp.zeros(3), *rate)
    >>> jnp.exp(after).tolist()
    [0.5, 0.5, 0.0]
    """
    chex.assert_rank([log_belief_R, log_density_R], 1)
    chex.assert_equal_shape([log_belief_R, log_density_R])
    log_posterior_R = jax.nn.log_softmax(log_belief_R + log_density_R)
    longest = jax.nn.logsumexp(log_posterior_R[-2:], keepdims=True)
    survived = jnp.concatenate([log_posterior_R[:-2], longest]) + log_survival
    switched = varying_with(jnp.reshape(jnp.asarray(log_hazard, survived.dtype), (1,)), survived)
    return log_posterior_R, jnp.concatenate([switched, survived])


def moca(
    encoder: Model,
    *,
    hazard: float = 0.05,
    learns_hazard: bool = True,
    longest: int | None = None,
    noise_std: float = 0.1,
    least_std: float = 1e-3,
) -> MetaLearner:
    """MOCA: online regression on a stream that switches between regimes at unknown times.

        b(r | y_t) ∝ b(r) N(y_t; K̄_rᵀφ_t, (1 + φ_tᵀΛ_r⁻¹φ_t) Σ)      the run length, from y_t
        Λ_{r+1} = Λ_r + φ_t φ_tᵀ,  K̄_{r+1} = K̄_r + Λ_{r+1}⁻¹ φ_t (y_t − K̄_rᵀφ_t)ᵀ
        b'(0) = λ,  b'(r + 1) = (1 − λ) b(r | y_t)                     a switch with probability λ
        p(y_{t+1} | x_{t+1}) = Σ_r b'(r) N(y_{t+1}; r)                the mixture of run lengths

    The prior K̄_0, Λ_0 and the features φ are those of `alpaca`. The loss is sequential: each query
    example is predicted from the support and the query examples before it, so that the belief is
    differentiated through the whole stream. `adapt` follows the support in its order; `predict` is
    the `Mixture` of each input as the next example. A masked example is passed over. With a hazard
    of 0, the predictions are those of `alpaca` on all examples so far; with 1, those of the prior.
    Features are computed for each example by itself: no statistics of the stream.

    Args:
      encoder: φ, maps inputs to features `[examples, D]`.
      hazard: λ, the probability of a switch before an example; at initialisation, if it is learned.
      learns_hazard: whether λ is a meta-parameter.
      longest: run lengths above this count as this one; its regression is that of the more probable
        of the two that it stands for. Defaults to the length of the stream. Memory and time are
        proportional to it.
      noise_std, least_std: as in `alpaca`.

    Raises:
      ValueError: a hazard outside [0, 1], or at an end if it is learned; `longest` below 1; as
        `alpaca`.

    Source: Harrison, Sharma, Finn, Pavone 2020, "Continuous meta-learning without tasks", section 4
    and algorithm 1.

    >>> from jaxmeta.models import mlp
    >>> learner = moca(mlp((16,), 8))
    >>> stream = Batch(jnp.linspace(-1, 1, 20)[:, None], jnp.ones((20, 1)))
    >>> params = learner.init(jax.random.key(0), Task((), stream))
    >>> loss, info = learner.loss(jax.random.key(1), params, Task((), stream))
    >>> adapted = learner.adapt(jax.random.key(1), params, stream)
    >>> adapted.state.log_belief_R.shape, learner.predict(adapted, jnp.ones((3, 1))).mean.shape
    ((21,), (3, 21, 1))
    """
    check_hazard(hazard, learns_hazard)
    if longest is not None and longest < 1:
        raise ValueError(f"moca: longest {longest}; give at least 1, or None for the stream.")
    regression = alpaca(encoder, noise_std=noise_std, least_std=least_std)

    def init(key: Key, task: Task) -> MOCAParams:
        params = regression.init(key, Task(task.query, task.query))
        dtype = params.factor_DD.dtype
        odds = jnp.log(jnp.asarray(hazard, dtype)) - jnp.log1p(-jnp.asarray(hazard, dtype))
        return MOCAParams(params, odds if learns_hazard else ())

    def run(
        meta_params: MOCAParams, parts: tuple[Batch, ...], key: Key | None = None
    ) -> tuple[RunLengths, list[Followed]]:
        steps = sum(part.targets.shape[0] for part in parts)
        slots = 1 + (steps if longest is None else min(longest, steps))
        state = starting(meta_params.last_layer, max(slots, 2))
        found = []
        for part in parts:
            state, followed = follow(
                encoder,
                meta_params,
                state,
                part,
                rates=rates_of(meta_params, hazard),
                least_std=least_std,
                key=key,
            )
            found.append(followed)
        return state, found

    def adapt(key: Key, meta_params: MOCAParams, support: Batch) -> Adapted:
        parts = (support,) if jax.tree.leaves(support) else ()
        return Adapted(meta_params, run(meta_params, parts, key)[0])

    def predict(adapted: Adapted, inputs: PyTree, *, key: Key | None = None) -> Mixture:
        (last_layer, _), state = adapted
        features_QD = features_of(encoder, last_layer, inputs, key)
        noise_Y = least_std + jnp.exp(last_layer.log_noise_Y)
        return jax.vmap(lambda features_D: _predict(state, features_D, noise_Y))(features_QD)

    def loss(key: Key, meta_params: MOCAParams, task: Task) -> tuple[Array, Info]:
        before = (task.support,) if jax.tree.leaves(task.support) else ()
        outputs = run(meta_params, (*before, task.query), key)[1][-1].predictions
        value, metrics = mixture_likelihood(outputs, task.query.targets, task.query.mask)
        return value, Info(value, metrics)

    return plain_learner(init, adapt, predict, mixture_likelihood, loss=loss)


def check_hazard(hazard: float, learned: bool) -> None:
    """Raise ValueError if the hazard rate is no probability, or at an end and learned."""
    if not 0 <= hazard <= 1 or (learned and hazard in (0, 1)):
        remedy = "0 < hazard < 1, or learns_hazard=False" if learned else "0 ≤ hazard ≤ 1"
        raise ValueError(f"moca: hazard {hazard}; give {remedy}.")


def rates_of(meta_params: MOCAParams, hazard: float) -> tuple[Array, Array]:
    """log λ and log (1 − λ): from the meta-parameters, or of a fixed `hazard`; at least `NEVER`."""
    if jax.tree.leaves(meta_params.log_odds):
        log_odds = meta_params.log_odds
        return jax.nn.log_sigmoid(log_odds), jax.nn.log_sigmoid(-log_odds)
    rates = jnp.asarray([hazard, 1 - hazard], meta_params.last_layer.factor_DD.dtype)
    log_hazard, log_survival = jnp.maximum(jnp.log(rates), NEVER)
    return log_hazard, log_survival


def starting(last_layer: ALPaCAParams, slots: int) -> RunLengths:
    """The state before the first example: run length 0, and the prior in every slot."""
    precision_DD = precision_of(last_layer.factor_DD)
    unit_DD = varying_with(jnp.eye(len(precision_DD), dtype=precision_DD.dtype), precision_DD)
    covariance_DD = jax.scipy.linalg.solve(precision_DD, unit_DD, assume_a="pos")
    log_belief_R = jnp.where(jnp.arange(slots) == 0, 0.0, NEVER).astype(precision_DD.dtype)
    prior = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[None], (slots, *leaf.shape)),
        (last_layer.mean_DY, covariance_DD),
    )
    return RunLengths(varying_with(log_belief_R, precision_DD), *prior)


def features_of(
    encoder: Model, last_layer: ALPaCAParams, inputs: PyTree, key: Key | None = None
) -> Array:
    """φ of each input by itself, `[T, D]`: an example knows nothing of later ones."""

    def of_one(row: PyTree) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], row)
        return encoder.apply(last_layer.encoder, alone, key=key)[0]

    return jax.vmap(of_one)(inputs)


def _predict(state: RunLengths, features_D: Array, noise_Y: Array) -> Mixture:
    """The prediction of each run length for one example, `[R, Y]`."""
    spread_R = 1 + (state.covariance_RDD @ features_D) @ features_D
    mean_RY = jnp.einsum("d,rdy->ry", features_D, state.mean_RDY)
    return Mixture(state.log_belief_R, mean_RY, jnp.sqrt(spread_R)[:, None] * noise_Y[None])


def follow(
    encoder: Model,
    meta_params: MOCAParams,
    state: RunLengths,
    stream: Batch,
    *,
    rates: tuple[Array, Array],
    least_std: float = 1e-3,
    key: Key | None = None,
) -> tuple[RunLengths, Followed]:
    """Predict the examples of a stream one after the other, each after those before it.

    Args:
      encoder: φ.
      meta_params: of `moca`.
      state: before the first example, see `starting`.
      stream: inputs `[T, ...]`, targets float `[T, Y]`, in order; masked examples are passed over.
      rates: log λ and log (1 − λ), see `rates_of`.
      least_std: as in `moca`.
      key: for the encoder.

    Returns:
      the state after the last example, and the predictions with the beliefs.

    >>> from jaxmeta.models import mlp
    >>> encoder, stream = mlp((16,), 8), Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> params = moca(encoder).init(jax.random.key(0), Task((), stream))
    >>> before, rates = starting(params.last_layer, slots=6), rates_of(params, 0.05)
    >>> follow(encoder, params, before, stream, rates=rates)[1].log_posterior_TR.shape
    (5, 6)
    """
    chex.assert_rank(stream.targets, 2)
    noise_Y = least_std + jnp.exp(meta_params.last_layer.log_noise_Y)
    features_TD = features_of(encoder, meta_params.last_layer, stream.inputs, key)
    dtype = jnp.result_type(features_TD, stream.targets, noise_Y, state.mean_RDY)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), state)
    prior = state.mean_RDY[:1], state.covariance_RDD[:1]  # r = 0: no example of the regime yet

    def step(
        state: RunLengths, given: tuple[Array, Array, Array]
    ) -> tuple[RunLengths, tuple[Mixture, Array]]:
        features_D, targets_Y, valid = given
        predicted = _predict(state, features_D, noise_Y)
        log_density_R = component_densities(predicted, targets_Y)
        log_posterior_R, log_belief_R = next_belief(state.log_belief_R, log_density_R, *rates)
        # Sherman-Morrison: Λ_{r+1}⁻¹ φ = Λ_r⁻¹ φ / (1 + φᵀ Λ_r⁻¹ φ).
        moves_RD = state.covariance_RDD @ features_D
        gain_RD = moves_RD / (1 + moves_RD @ features_D)[:, None]
        residual_RY = targets_Y[None] - predicted.mean
        learned = (
            state.mean_RDY + gain_RD[:, :, None] * residual_RY[:, None, :],
            state.covariance_RDD - gain_RD[:, :, None] * moves_RD[:, None, :],
        )
        longer = log_posterior_R[-1] > log_posterior_R[-2]  # whose regression the last slot keeps

        def shifted(first: Array, own: Array) -> Array:
            last = jnp.where(longer, own[-1:], own[-2:-1])
            return jnp.concatenate([first, own[:-2], last])

        after = RunLengths(log_belief_R, *jax.tree.map(shifted, prior, learned))
        after = jax.tree.map(lambda new, old: jnp.where(valid, new, old), after, state)
        return after, (predicted, log_posterior_R)

    valid_T = valid_mask(stream.mask, features_TD.shape[0])
    state, found = jax.lax.scan(step, state, (features_TD, stream.targets, valid_T))
    return state, Followed(*found)
