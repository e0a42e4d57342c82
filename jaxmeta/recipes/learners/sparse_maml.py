"""Sparse-MAML on the command line."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import sparse_maml
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent, Way


@recipe("sparse-maml", paper="von Oswald et al. 2021", kinds=("classification", "regression"))
@dataclass(frozen=True)
class SparseMaml(Differentiated, Batches, GradientDescent):
    """Sparse-MAML (von Oswald et al. 2021): MAML that learns what to adapt."""

    initial_mask: tuple[float, float] = (-0.05, 0.05)
    """Range of the mask's initial values, drawn uniformly; a parameter adapts where it is ≥ 0."""
    differentiation: Way = "first-order"
    """As for maml; here inner gradients are constants by default, as published."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot(wall_time="2 h on a CPU core"),  # as first-order MAML, per step
        # The paper takes 35 inner steps at a rate of 0.1 (1-shot) or 0.25, and 64 channels.
        presets.miniimagenet("50.35 ± 0.39, 67.03 ± 0.74"),
    )

    def check(self) -> None:
        super().check()
        low, high = self.initial_mask
        if not -math.inf < low <= high < math.inf:
            raise ValueError(
                f"--initial-mask {low} {high}: give two finite numbers, the smaller first."
            )

    def build(self, problem: Problem) -> MetaLearner:
        return sparse_maml(
            problem.model(),
            problem.objective,
            initial_mask=self.initial_mask,
            **self.inner(problem),
        )
