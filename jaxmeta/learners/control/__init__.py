"""Policies that adapt, for meta-reinforcement learning, and planning with adaptive models."""

from jaxmeta.learners.control._decision_pretrained import decision_pretrained
from jaxmeta.learners.control._maml_rl import maml_rl
from jaxmeta.learners.control._promp import promp
from jaxmeta.learners.control._rl_squared import rl_squared
from jaxmeta.learners.control.advantages import (
    discounted_returns,
    generalized_advantages,
    linear_values,
    normalised,
    time_features,
)
from jaxmeta.learners.control.bandit_rules import no_pulls, thompson_sampling, upper_confidence
from jaxmeta.learners.control.gathering import Act, Episodes, Seen, begin, episode, gather, returns
from jaxmeta.learners.control.planning import (
    Planner,
    Recent,
    Reward,
    adaptive_control,
    cross_entropy_method,
    nothing_recent,
    predicted_return,
    random_shooting,
)
from jaxmeta.learners.control.policies import (
    Distribution,
    Normal,
    categorical,
    distribution_of,
    normal,
    outputs_of,
    policy_model,
    with_log_std,
)
from jaxmeta.learners.control.policy_gradient import (
    Experience,
    PolicyGradient,
    Sampled,
    linear_advantages,
)
from jaxmeta.learners.control.surrogates import clipped, dice, log_likelihood, lvc

__all__ = [
    "Act",
    "Distribution",
    "Episodes",
    "Experience",
    "Normal",
    "Planner",
    "PolicyGradient",
    "Recent",
    "Reward",
    "Sampled",
    "Seen",
    "adaptive_control",
    "begin",
    "categorical",
    "clipped",
    "cross_entropy_method",
    "decision_pretrained",
    "dice",
    "discounted_returns",
    "distribution_of",
    "episode",
    "gather",
    "generalized_advantages",
    "linear_advantages",
    "linear_values",
    "log_likelihood",
    "lvc",
    "maml_rl",
    "no_pulls",
    "normal",
    "normalised",
    "nothing_recent",
    "outputs_of",
    "policy_model",
    "predicted_return",
    "promp",
    "random_shooting",
    "returns",
    "rl_squared",
    "thompson_sampling",
    "time_features",
    "upper_confidence",
    "with_log_std",
]
