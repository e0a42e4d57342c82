"""ProMP: proximal meta-policy search."""

import optax

from jaxmeta.core import MetaLearner, Model
from jaxmeta.environment import Environment
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.control.policy_gradient import Advantages, adaptive_policy
from jaxmeta.learners.control.surrogates import clipped, lvc


def promp(
    environment: Environment,
    policy: Model,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    episodes: int = 20,
    clip: float = 0.3,
    inner_divergence: float = 5e-4,
    advantages: Advantages | None = None,
    normalise: bool = True,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """ProMP: policy-gradient steps with low variance, and a proximal meta-objective.

        θ_0 = φ,  θ_{k+1} = θ_k + α ∇_θ lvc(θ_k; E episodes of π_old,k)
        maximised: clipped(θ_K; E episodes of π_old,K) − η Σ_k KL(π_old,k ‖ π_θ_k)

    The policies π_old gather the episodes once, and several steps of an outer optimizer follow;
    see `jaxmeta.training.proximal_update`.

    Args:
      clip: ε of the clipped ratio.
      inner_divergence: η, on the observations before each inner step.

    Other arguments, and the functions of the learner, as in `maml_rl`.

    Raises:
      ValueError: as `maml_rl`; `clip` is not positive; negative `inner_divergence`.

    Source: Rothfuss, Lee, Clavera, Asfour, Abbeel 2019, "ProMP: proximal meta-policy search",
    equations 13 to 15 and Algorithm 1.

    >>> from jaxmeta.data.control import navigation
    >>> from jaxmeta.learners.control import policy_model
    >>> from jaxmeta.models import mlp
    >>> environment = navigation(horizon=10)
    >>> policy = policy_model(mlp((8,), 2), environment.actions)
    >>> learner = promp(environment, policy, optax.sgd(0.1), inner_steps=1, episodes=2)
    """
    return adaptive_policy(
        environment,
        policy,
        inner_optimizer,
        inner_steps,
        episodes=episodes,
        inner=lvc,
        outer=clipped(clip),
        advantages=advantages,
        normalise=normalise,
        inner_divergence=inner_divergence,
        differentiation=differentiation,
    )
