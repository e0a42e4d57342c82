"""ProMP on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import promp
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.policies import NAVIGATION, AdaptivePolicy
from jaxmeta.recipes.settings import NonNegative, Positive


@recipe("promp", paper="Rothfuss et al. 2019", kinds=("control",))
@dataclass(frozen=True)
class Promp(AdaptivePolicy):
    """ProMP (Rothfuss et al. 2019): proximal meta-updates of a policy."""

    ratio_clip: Positive = 0.3
    """ε: probability ratios are clipped to 1 ± ε in the objective."""
    inner_divergence: NonNegative = 5e-4
    """Weight of the penalty on the KL divergence from the policies that gathered the episodes of
    the inner steps."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("control/navigation", {**NAVIGATION, "outer_rate": 3e-3}),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return promp(
            **self.policy(problem), clip=self.ratio_clip, inner_divergence=self.inner_divergence
        )
