"""A learned acquisition rule: a small network that scores examples, trained by policy gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from jaxmeta.active._pool import Acquired
from jaxmeta.active._rules import Rule, View, margin, to_labelled, to_mean
from jaxmeta.core import Array, Info, Key, MetaLearner, Model, PyTree, Task, meta_learner
from jaxmeta.learners.control import (
    PolicyGradient,
    categorical,
    discounted_returns,
    log_likelihood,
    normalised,
)
from jaxmeta.learners.control.policy_gradient import no_objective
from jaxmeta.learners.control.surrogates import mean_surrogate
from jaxmeta.learners.metric._prototypical import squared_distances

FEATURES = 8
_NEVER = -1e9  # the score of an example that may not be chosen


def features(view: View) -> Array:
    """What the learned rule sees of each example, float `[N, 8]`.

    The largest probability; the margin to the second largest; the entropy in units of that of equal
    probabilities; the distances to the nearest labelled example and to the mean of the candidates;
    the mean similarity to the candidates, exp(−squared distance); the fraction of the budget that
    is spent; the fraction of the classes with a label. Squared distances are in units of their mean
    over the candidates' pairs.

    See `learned_acquirer`.
    """
    examples, ways = view.probabilities_NW.shape
    dtype = view.points_ND.dtype
    pairs_NN = jnp.maximum(squared_distances(view.points_ND, view.points_ND), 0)
    free_N = view.candidates_N.astype(dtype)
    count = jnp.maximum(free_N.sum(), 1)
    unit = free_N @ pairs_NN @ free_N / count**2
    unit = jnp.where(unit > 0, unit, 1)
    similarity_N = jnp.exp(-pairs_NN / unit) @ free_N / count
    columns = (
        view.probabilities_NW.max(axis=1),
        -margin(jax.random.key(0), view),  # it takes no key
        entr(view.probabilities_NW).sum(axis=1) / jnp.log(ways).astype(dtype),
        jnp.sqrt(to_labelled(view) / unit),
        jnp.sqrt(to_mean(view) / unit),
        similarity_N,
        jnp.broadcast_to(view.used, (examples,)),
        jnp.broadcast_to(view.known_W.mean(dtype=dtype), (examples,)),
    )
    return jnp.stack([column.astype(dtype) for column in columns], axis=1)


def learned(policy: Model, params: PyTree, *, explore: bool = False) -> Rule:
    """The rule of a trained policy; with `explore`, the choice is drawn from the policy.

        score_n = f(features_n) [+ Gumbel noise]

    The highest of scores with Gumbel noise has the probabilities of their softmax.

    See `learned_acquirer`.
    """

    def rule(key: Key, view: View) -> Array:
        scores_N = policy.apply(params, features(view))[:, 0]
        if explore:
            scores_N = scores_N + jax.random.gumbel(key, scores_N.shape, scores_N.dtype)
        return scores_N

    return rule


class AcquisitionExperience(NamedTuple):
    """The acquisitions of a policy on one task, E times; constants.

    Attributes:
      features: `[E, B, N, 8]`, see `features`.
      candidates: bool `[E, B, N]`.
      chosen: int32 `[E, B]`.
      logits: of the policy that chose, `[E, B, N]`.
      advantages: `[E, B]`.
      areas: `[E]`, the mean accuracy over the labels.
    """

    features: Array
    candidates: Array
    chosen: Array
    logits: Array
    advantages: Array
    areas: Array


def learned_acquirer(
    policy: Model,
    acquire_with: Callable[[Rule, Callable[[View], PyTree]], Callable[[Key, Task], Acquired]],
    *,
    rollouts: int = 8,
    discount: float = 0.9,
    metric: str = "accuracy",
) -> MetaLearner:
    """A policy that chooses examples, trained by REINFORCE on the accuracy that follows.

        π(n | view) = softmax over candidates of f(features_n)
        r_t = accuracy after the label t − accuracy before it
        R_t = Σ_{k ≥ 0} γᵏ r_{t+k},   A_et = R_et − mean_e R_et, normalised over the E rollouts
        maximised: mean_et A_et log π(n_et | view_et)

    The meta-parameters are those of `policy`. Train it with `jaxmeta.training.meta_update` on
    tasks whose support is a pool; the frozen learner that is to be helped is in `acquire_with`.
    Then use `learned(policy, meta_params)`.

    Args:
      policy: f, maps `[N, 8]` to `[N, 1]`, such as `mlp((32,), 1)`.
      acquire_with: `acquire_with(rule, record) -> acquire`, see `acquisition`.
      rollouts: E, acquisitions of each task, whose mean is the baseline.
      discount: γ. A label is mostly worth what it changes at once; a smaller γ has less variance.
      metric: of the objective, whose gain is the reward.

    Raises:
      ValueError: fewer than 2 rollouts, a discount that is not between 0 and 1.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning"; learned acquisition over few-shot tasks, Bachman, Sordoni, Trischler
    2017, "Learning algorithms for active learning".

    >>> from jaxmeta.models import mlp
    >>> learner = learned_acquirer(mlp((8,), 1), lambda rule, record: None, rollouts=4)
    """
    if rollouts < 2 or not 0 <= discount <= 1:
        raise ValueError(
            f"learned_acquirer: {rollouts} rollouts, discount {discount}; give at least 2 "
            "rollouts, and a discount from 0 to 1."
        )

    def seen(view: View) -> tuple[Array, Array]:
        return features(view), view.candidates_N

    def logits_of(params: PyTree, given: Array, candidates: Array) -> Array:
        scores = policy.apply(params, given.reshape(-1, FEATURES)).reshape(candidates.shape)
        return jnp.where(candidates, scores, _NEVER)

    def gather(key: Key, params: PyTree, task: Task) -> AcquisitionExperience:
        params = jax.lax.stop_gradient(params)
        acquire = acquire_with(learned(policy, params, explore=True), seen)
        keys = jax.random.split(key, rollouts)
        found = jax.vmap(acquire, in_axes=(0, None))(keys, task)
        values = found.metrics[metric]
        gains = jnp.diff(values, axis=1)
        returns = jax.vmap(lambda rewards: discounted_returns(rewards, discount))(gains)
        centred = returns - returns.mean(axis=0, keepdims=True)
        given, candidates = found.recorded
        return jax.lax.stop_gradient(
            AcquisitionExperience(
                given,
                candidates,
                found.chosen_B,
                logits_of(params, given, candidates),
                normalised(centred, jnp.ones_like(centred))[0],
                values[:, 1:].mean(axis=1),
            )
        )

    def surrogate(params: PyTree, lived: AcquisitionExperience) -> Array:
        logits = logits_of(params, lived.features, lived.candidates)
        each = jax.vmap(jax.vmap(categorical.log_probability))
        log_ratios = each(logits, lived.chosen) - each(lived.logits, lived.chosen)
        ones = jnp.ones_like(log_ratios)
        return -mean_surrogate(log_likelihood, log_ratios, lived.advantages, ones)

    def divergence(params: PyTree, lived: AcquisitionExperience) -> Array:
        logits = logits_of(params, lived.features, lived.candidates)
        return jax.vmap(jax.vmap(categorical.divergence))(lived.logits, logits).mean()

    def info(lived: AcquisitionExperience) -> Info:
        area = lived.areas.mean()
        return Info(-area, {metric: area})

    def init(key: Key, task: Task) -> PyTree:
        return policy.init(key, jnp.zeros((1, FEATURES)))

    def adapt(key: Key, params: PyTree, support: PyTree) -> PyTree:
        return params

    def predict(params: PyTree, inputs: Array, *, key: Key | None = None) -> Array:
        return policy.apply(params, inputs, key=key)

    def loss(key: Key, params: PyTree, task: Task) -> tuple[Array, Info]:
        found = info(gather(key, params, task))
        return found.loss, found

    learner = meta_learner(init, adapt, predict, no_objective, loss=loss)
    return learner._replace(grad=PolicyGradient(gather, surrogate, divergence, info))
