"""MAML for reinforcement learning: an initial policy for a few steps of policy gradients."""

import optax

from jaxmeta.core import MetaLearner, Model
from jaxmeta.environment import Environment
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.control.policy_gradient import Advantages, adaptive_policy
from jaxmeta.learners.control.surrogates import Surrogate, dice, log_likelihood, lvc


def maml_rl(
    environment: Environment,
    policy: Model,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    episodes: int = 20,
    surrogate: Surrogate = dice,
    outer: Surrogate = lvc,
    advantages: Advantages | None = None,
    normalise: bool = True,
    sampling_term: bool = False,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """MAML for policies: the meta-parameters φ are the initialisation of policy-gradient steps.

        θ_0 = φ,  θ_{k+1} = θ_k + α ∇_θ surrogate(θ_k; E episodes of θ_k)
        maximised: E[R(τ')],  τ' ~ π_θ_K

    Two objectives are possible:
      the inner gradient in expectation, θ_{k+1} = θ_k + α ∇E[R]: `surrogate=dice`, with all terms
        of the second derivative, or `lvc`, with fewer terms and less variance;
      over the sampled episodes, E_τ E_τ'(τ)[R(τ')], as in E-MAML: `surrogate=log_likelihood,
        sampling_term=True`.
    The second adds the sampling term ∇_φ log π_φ(τ) · R(τ'), which rewards episodes τ for the
    adaptation that they make possible; with `normalise`, R is divided by the standard deviation of
    the advantages of τ', as these are. `log_likelihood` without it is the published MAML, whose
    meta-gradient is that of neither objective. `dice` is unbiased if the advantages are neither
    normalised nor have a baseline that is fitted to the same episodes; the default has both.

    Args:
      environment: the processes; a task's support and query are tasks of it.
      policy: the network; see `policy_model`. Its parameters are the meta-parameters.
      inner_optimizer: any optax transformation; `optax.sgd(0.1)` in the paper.
      inner_steps: K.
      episodes: E, before each inner step and after the last one.
      surrogate: of the inner steps.
      outer: of the adapted policy, `lvc` or `clipped(ε)`.
      advantages: from `[E, H]` episodes. Defaults to `linear_advantages()`, γ = 0.99, λ = 1.
      normalise: whether to give the advantages of a task mean 0 and standard deviation 1.
      sampling_term: whether to add E-MAML's sampling term.
      differentiation: see `jaxmeta.inner.unroll`; `first_order` for first-order MAML.

    `loss` is minus the mean return of the adapted policy, undiscounted; `grad` is the gradient of
    the surrogate. `predict` gives the outputs of the adapted policy for observations `[N, ...]`.

    Raises:
      ValueError: fewer than 1 episode; negative `inner_steps`; a truncated way to differentiate;
        `sampling_term` with another surrogate than `log_likelihood`.

    Source: Finn, Abbeel, Levine 2017, Algorithm 3; Stadie et al. 2018, "Some considerations on
    learning to explore via meta-reinforcement learning", section 3.

    >>> from jaxmeta.data.control import navigation
    >>> from jaxmeta.learners.control import policy_model
    >>> from jaxmeta.models import mlp
    >>> environment = navigation(horizon=10)
    >>> policy = policy_model(mlp((8,), 2), environment.actions)
    >>> learner = maml_rl(environment, policy, optax.sgd(0.1), inner_steps=1, episodes=2)
    """
    if sampling_term and surrogate is not log_likelihood:
        raise ValueError(
            "maml_rl: sampling_term requires surrogate=log_likelihood; the other surrogates "
            "already differentiate the expectation over episodes."
        )
    return adaptive_policy(
        environment,
        policy,
        inner_optimizer,
        inner_steps,
        episodes=episodes,
        inner=surrogate,
        outer=outer,
        advantages=advantages,
        normalise=normalise,
        sampling_term=sampling_term,
        differentiation=differentiation,
    )
