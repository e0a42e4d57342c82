"""Meta-SGD on the command line."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import meta_sgd
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, Steps
from jaxmeta.recipes.settings import AT_TEST, Natural


@recipe("meta-sgd", paper="Li et al. 2017", kinds=("classification", "regression"))
@dataclass(frozen=True)
class MetaSgd(Differentiated, Batches, Steps):
    """Meta-SGD (Li et al. 2017): MAML with a learned rate for every parameter."""

    initial_rate: tuple[float, float] = (0.005, 0.1)
    """Range of the learned rates' initial values, drawn uniformly."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 1
    """Inner steps in evaluation."""
    presets: ClassVar[tuple[Preset, ...]] = (
        presets.omniglot(
            "99.53 ± 0.26, 99.93 ± 0.09, 95.93 ± 0.38, 98.97 ± 0.19", wall_time="4 h on a CPU core"
        ),
        presets.miniimagenet("50.47 ± 1.87, 64.03 ± 0.94", width=32),
        Preset(
            "regression/sinusoid-frequency",
            {},
            {"sinusoid-frequency": {1: "0.90"}},
            "1 min on 2 CPU cores",
        ),
    )

    def check(self) -> None:
        super().check()
        low, high = self.initial_rate
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"--initial-rate {low} {high}: give two positive, finite numbers, the smaller "
                "first."
            )

    def build(self, problem: Problem) -> MetaLearner:
        return meta_sgd(
            problem.model(),
            problem.objective,
            initial_rate=self.initial_rate,
            **self.inner(problem),
        )
