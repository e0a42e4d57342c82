"""RL² on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import rl_squared
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.policies import Policy
from jaxmeta.recipes.settings import Count, Fraction, NonNegative, Positive

_PROXIMAL = {"outer_rate": 1e-3, "clip_norm": 0.5, "minibatches": 4}


@recipe("rl-squared", paper="Duan et al. 2016", kinds=("control", "bandits"))
@dataclass(frozen=True)
class RlSquared(Policy):
    """RL² (Duan et al. 2016): a recurrent policy that remembers a process."""

    width: Count = 64
    """Width of the recurrent network."""
    transitions: bool = False
    """The network also receives the observation before the last action."""
    ratio_clip: Positive = 0.2
    """ε: probability ratios are clipped to 1 ± ε in the objective."""
    discount: Fraction = 0.99
    """Discount over a trial."""
    trace: Fraction = 0.9
    """λ of the generalised advantage estimates."""
    value_weight: NonNegative = 0.5
    """Weight of the squared error of the values."""
    entropy_weight: NonNegative = 0.05
    """Weight of the policy's entropy, in units of reward per nat."""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("bandits/default", _PROXIMAL, {"default": "return of 100 pulls: 78.7"}),
        Preset(
            "control/tabular",
            {
                **_PROXIMAL,
                "transitions": True,
                "outer_rate": 2e-3,
                "outer_schedule": "linear",
                "epochs": 2,
                "minibatches": 16,
                "steps": 3000,
                "checkpoint_every": 100,
            },
            {"tabular": "share of the largest return: 0.752"},
        ),
    )

    def check(self) -> None:
        if self.outer == "trpo":
            raise ValueError(
                "--outer trpo does not support rl-squared, whose surrogate also fits values: "
                "choose ppo or gradient."
            )

    def build(self, problem: Problem) -> MetaLearner:
        assert problem.environment is not None
        return rl_squared(
            problem.environment,
            episodes=problem.support,
            width=self.width,
            transitions=self.transitions,
            clip=self.ratio_clip,
            discount=self.discount,
            trace=self.trace,
            value_weight=self.value_weight,
            entropy_weight=self.entropy_weight,
        )
