"""Surrogates of the expected return: what policy gradients differentiate.

Each is a function of one episode, `surrogate(log_ratios_H, advantages_H) -> values_H`, with

    log_ratios: ℓ_t = log π_θ(a_t | s_t) − log π_old(a_t | s_t),  π_old the policy that acted
    advantages: A_t, constants

At θ = θ_old all of `dice`, `lvc` and `log_likelihood` have the same gradient in expectation, the
policy gradient. They differ in the second derivative, which MAML's meta-gradient contains:

| surrogate | its expected Hessian at θ_old |
|---|---|
| `dice` | that of the expected return |
| `lvc` | without the products of the scores of different steps, with less variance |
| `log_likelihood` | without all products of scores |

As in published code, step t is not weighted by γᵗ.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array

Surrogate = Callable[[Array, Array], Array]
"""`surrogate(log_ratios_H, advantages_H) -> values_H`, to be maximised."""


def dice(log_ratios_H: Array, advantages_H: Array) -> Array:
    """DiCE, whose derivatives of any order are unbiased.

        values_t = (exp Σ_{u ≤ t} ℓ_u − exp Σ_{u < t} ℓ_u) A_t

    With A_t the return from step t, this is DiCE's objective up to a constant; with advantages, it
    has a baseline that reduces the variance of every derivative.

    Source: Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing, Whiteson 2018, "DiCE: the infinitely
    differentiable Monte Carlo estimator"; with advantages, Farquhar, Whiteson, Foerster 2019,
    "Loaded DiCE", equation 11.

    >>> slope = jax.grad(lambda l: dice(l, jnp.array([1.0, 2.0])).sum())
    >>> slope(jnp.zeros(2)).tolist()
    [1.0, 2.0]
    """
    chex.assert_rank([log_ratios_H, advantages_H], 1)
    until = jnp.cumsum(log_ratios_H)
    return jnp.exp(until - log_ratios_H) * jnp.expm1(log_ratios_H) * advantages_H


def lvc(log_ratios_H: Array, advantages_H: Array) -> Array:
    """The low-variance curvature estimator: the likelihood ratio of every step by itself.

        values_t = exp(ℓ_t) A_t

    Source: Rothfuss, Lee, Clavera, Asfour, Abbeel 2019, "ProMP: proximal meta-policy search",
    equation 10.

    >>> lvc(jnp.zeros(2), jnp.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    chex.assert_rank([log_ratios_H, advantages_H], 1)
    return jnp.exp(log_ratios_H) * advantages_H


def log_likelihood(log_ratios_H: Array, advantages_H: Array) -> Array:
    """The log-likelihood of the actions, weighted by their advantages.

        values_t = ℓ_t A_t

    Its second derivative is not that of the expected return; see `sampling_term` in `maml_rl` for
    the objective that it belongs to.

    Source: Finn, Abbeel, Levine 2017, equation 4 and its published code.

    >>> log_likelihood(jnp.ones(2), jnp.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    chex.assert_rank([log_ratios_H, advantages_H], 1)
    return log_ratios_H * advantages_H


def clipped(clip: float) -> Surrogate:
    """The clipped likelihood ratio of proximal policy optimization.

        values_t = min(exp(ℓ_t) A_t, clip(exp(ℓ_t), 1 ± ε) A_t)

    Raises:
      ValueError: `clip`, ε, is not positive.

    Source: Schulman, Wolski, Dhariwal, Radford, Klimov 2017, "Proximal policy optimization
    algorithms", equation 7.

    >>> clipped(0.5)(jnp.log(jnp.array([2.0, 2.0])), jnp.array([1.0, -1.0])).tolist()
    [1.5, -2.0]
    """
    if not clip > 0:
        raise ValueError(f"clipped: clip {clip}; give a positive number.")

    def surrogate(log_ratios_H: Array, advantages_H: Array) -> Array:
        chex.assert_rank([log_ratios_H, advantages_H], 1)
        ratios = jnp.exp(log_ratios_H)
        limited = jnp.clip(ratios, 1 - clip, 1 + clip)
        return jnp.minimum(ratios * advantages_H, limited * advantages_H)

    return surrogate


def mean_surrogate(
    surrogate: Surrogate, log_ratios_EH: Array, advantages_EH: Array, mask_EH: Array
) -> Array:
    """A surrogate in units of the horizon: `1/(E H) Σ` over valid steps; the mask may hold weights.

    Its gradient is that of the expected return, divided by H. A mean over the valid steps would
    have another one where episodes end early: those that end sooner would count for more.

    >>> ones = jnp.ones((1, 2))
    >>> float(mean_surrogate(lvc, 0 * ones, jnp.array([[1.0, 5.0]]), jnp.array([[1.0, 0.0]])))
    0.5
    """
    valid = mask_EH > 0
    log_ratios_EH = jnp.where(valid, log_ratios_EH, 0)
    values_EH = jax.vmap(surrogate)(log_ratios_EH, jnp.where(valid, advantages_EH, 0))
    return (values_EH * mask_EH).mean()
