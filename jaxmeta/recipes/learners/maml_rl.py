"""MAML for policies on the command line, with E-MAML as one of its settings."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxmeta.core import MetaLearner
from jaxmeta.learners import maml_rl
from jaxmeta.learners.control import clipped, dice, log_likelihood, lvc
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.policies import NAVIGATION, AdaptivePolicy
from jaxmeta.recipes.settings import Positive, option

_SURROGATES = {"dice": dice, "lvc": lvc, "log-likelihood": log_likelihood}


@recipe("maml-rl", paper="Finn et al. 2017", kinds=("control",))
@dataclass(frozen=True)
class MamlRl(AdaptivePolicy):
    """MAML for policies (Finn et al. 2017): an initial policy for a few gradient steps."""

    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    """Meta-update. trpo: a trust-region step, without --outer-optimizer; ppo: --epochs passes over
    a batch of episodes; gradient: one step."""
    surrogate: Literal["dice", "lvc", "log-likelihood"] = "lvc"
    """Surrogate of the inner steps: dice, with all terms of the second derivative; lvc, with fewer
    terms and less variance; log-likelihood, as published."""
    sampling_term: bool = False
    """Add E-MAML's sampling term, with --surrogate log-likelihood."""
    ratio_clip: Positive = 0.2
    """ε: probability ratios are clipped to 1 ± ε in the objective, with --outer ppo."""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "control/navigation",
            {**NAVIGATION, "surrogate": "log-likelihood", "curvature_fraction": 0.25},
            {"navigation": {0: "−40.41", 1: "−11.68", 2: "−3.33", 3: "−3.23"}},
        ),
    )

    def check(self) -> None:
        if self.sampling_term and self.surrogate != "log-likelihood":
            raise ValueError(
                f"--sampling-term requires {option('surrogate', 'log-likelihood')}: the other "
                "surrogates already differentiate the expectation over episodes."
            )
        if self.sampling_term and self.outer == "ppo":
            raise ValueError(
                f"--sampling-term does not support {option('outer', 'ppo')}, whose later epochs "
                "would raise the term without bound: choose trpo or gradient."
            )

    def build(self, problem: Problem) -> MetaLearner:
        return maml_rl(
            **self.policy(problem),
            surrogate=_SURROGATES[self.surrogate],
            outer=clipped(self.ratio_clip) if self.outer == "ppo" else lvc,
            sampling_term=self.sampling_term,
        )
