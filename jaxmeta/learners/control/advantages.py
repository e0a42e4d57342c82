"""Returns, baselines and advantages of episodes."""

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, PyTree
from jaxmeta.learners.control.gathering import Episodes
from jaxmeta.ops import varying_with


def discounted_returns(rewards_H: Array, discount: float) -> Array:
    """The discounted return from each step, `[H]`.

        R_t = r_t + γ R_{t+1},  R_H = 0

    >>> discounted_returns(jnp.array([1.0, 0.0, 4.0]), 0.5).tolist()
    [2.0, 2.0, 4.0]
    """
    chex.assert_rank(rewards_H, 1)

    def earlier(later: Array, reward: Array) -> tuple[Array, Array]:
        value = reward + discount * later
        return value, value

    zero = varying_with(jnp.zeros((), rewards_H.dtype), rewards_H)
    return jax.lax.scan(earlier, zero, rewards_H, reverse=True)[1]


def generalized_advantages(
    rewards_H: Array,
    values_H: Array,
    discount: float,
    trace: float,
    *,
    mask_H: Array | None = None,
) -> Array:
    """Generalised advantage estimates `[H]`; the value after the last step is 0.

        A_t = δ_t + γλ A_{t+1},  δ_t = r_t + γ V_{t+1} − V_t

    With λ = 1 this is the discounted return minus the value, with λ = 0 the temporal difference.

    Args:
      rewards_H, values_H: r_t and V_t.
      discount: γ.
      trace: λ.
      mask_H: 0 for steps that did not happen, such as those after the end of an episode: they have
        advantage 0, and the step before them is followed by the one after. Defaults to 1.

    Source: Schulman, Moritz, Levine, Jordan, Abbeel 2016, "High-dimensional continuous control
    using generalized advantage estimation", equation 16.

    >>> generalized_advantages(jnp.array([1.0, 2.0]), jnp.array([0.5, 1.0]), 0.5, 0.0).tolist()
    [1.0, 1.0]
    """
    chex.assert_rank([rewards_H, values_H], 1)
    valid_H = jnp.ones_like(rewards_H) if mask_H is None else mask_H

    def earlier(later: tuple[Array, Array], step: tuple[Array, ...]) -> tuple[PyTree, Array]:
        advantage, after = later
        reward, value, valid = step
        own = reward + discount * after - value + discount * trace * advantage
        kept = jax.tree.map(lambda new, old: jnp.where(valid > 0, new, old), (own, value), later)
        return kept, jnp.where(valid > 0, own, 0)

    zero = varying_with(jnp.zeros((), rewards_H.dtype), (rewards_H, values_H, valid_H))
    steps = (rewards_H, values_H, valid_H)
    return jax.lax.scan(earlier, (zero, zero), steps, reverse=True)[1]


def time_features(observations_HD: Array) -> Array:
    """Features of an observation and its time, `[H, 2D + 4]`.

        [s, s², t, t², t³, 1],  s the observation clipped to ±10, t = (0, 1, 2, ...) / 100

    Source: Duan, Chen, Houthooft, Schulman, Abbeel 2016, "Benchmarking deep reinforcement learning
    for continuous control", section 5.

    >>> time_features(jnp.array([[2.0], [3.0]]))[0].tolist()
    [2.0, 4.0, 0.0, 0.0, 0.0, 1.0]
    """
    chex.assert_rank(observations_HD, 2)
    clipped = jnp.clip(observations_HD, -10, 10)
    t = jnp.arange(len(clipped), dtype=clipped.dtype)[:, None] / 100
    return jnp.concatenate([clipped, clipped**2, t, t**2, t**3, jnp.ones_like(t)], axis=1)


def linear_values(episodes: Episodes, discount: float, *, ridge: float = 1e-5) -> Array:
    """Values `[E, H]` of a linear baseline that is fitted to the returns of these episodes.

        V_t = wᵀφ_t,  w = argmin_w 1/N Σ_{e,t} (wᵀφ_{e,t} − R_{e,t})² + ridge ‖w‖²

    over the N valid steps, with the features φ of `time_features`, each divided by its root mean
    square, so that the system has a solution for features of any size. The values after an
    episode's end are 0. As published, the baseline is fitted to the episodes that it is applied to.

    Args:
      episodes: `[E, H]`.
      discount: γ of the returns R.
      ridge: the strength of the regularisation.

    Source: Duan et al. 2016, section 5; Finn et al. 2017, appendix A.3.

    >>> from jaxmeta.data.control import navigation
    >>> from jaxmeta.learners.control import gather
    >>> def act(key, memory, seen):
    ...     return memory, jax.random.normal(key, (2,)), jnp.zeros(())
    >>> episodes = gather(navigation(horizon=5), act, jax.random.key(0), jnp.ones(2), episodes=4)
    >>> linear_values(episodes, 0.99).shape
    (4, 5)
    """
    flat = episodes.seen.observation.reshape(*episodes.rewards.shape, -1)
    features_EHF = jax.vmap(time_features)(flat) * episodes.mask[..., None]
    count = jnp.maximum(episodes.mask.sum(), 1)
    sizes_F = jnp.sqrt(jnp.square(features_EHF).sum(axis=(0, 1)) / count)
    features_EHF = features_EHF / jnp.where(sizes_F > 0, sizes_F, 1)[None, None]
    returns_EH = jax.vmap(lambda rewards: discounted_returns(rewards, discount))(episodes.rewards)
    features_NF = features_EHF.reshape(-1, features_EHF.shape[-1])
    returns_N = (returns_EH * episodes.mask).reshape(-1)
    moments_FF = features_NF.T @ features_NF / count
    moments_F = features_NF.T @ returns_N / count
    penalty = ridge * jnp.eye(len(moments_F), dtype=moments_F.dtype)
    weights = jax.scipy.linalg.solve(moments_FF + penalty, moments_F, assume_a="pos")
    return features_EHF @ weights


def normalised(advantages: Array, mask: Array) -> tuple[Array, Array]:
    """Advantages with mean 0 and standard deviation 1 over the valid steps, and 0 elsewhere.

    Also returns the standard deviation that they were divided by.

    >>> found, std = normalised(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0]))
    >>> found.round(3).tolist(), round(float(std), 3)
    ([-1.0, 1.0, 0.0], 1.0)
    """
    chex.assert_equal_shape([advantages, mask])
    count = jnp.maximum(mask.sum(), 1)
    centred = (advantages - (advantages * mask).sum() / count) * mask
    # A variance of 0 has no root to divide by: constant advantages become 0.
    std = jnp.sqrt(jnp.square(centred).sum() / count + 1e-8)
    return centred / std, std
