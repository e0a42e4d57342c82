"""A Bayesian last layer on the command line, for regression and classification."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxmeta.core import MetaLearner
from jaxmeta.learners import bayesian_last_layer
from jaxmeta.learners.process import gaussian_likelihood
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe


@recipe(
    "bayesian-last-layer",
    paper="Patacchiola et al. 2020",
    kinds=("classification", "regression"),
)
@dataclass(frozen=True)
class BayesianLastLayer(Recipe):
    """Bayesian last layer (Patacchiola et al. 2020): a Gaussian process on learned features."""

    feature_kernel: Literal["linear", "rbf"] = "rbf"
    """Kernel of the features; linear is Bayesian linear regression."""
    training_loss: Literal["predictive", "marginal"] = "predictive"
    """Loss of the query given the support, or the marginal likelihood of both, as published."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.READING,
        presets.omniglot(wall_time="3 h on a CPU core"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True)

    def build(self, problem: Problem) -> MetaLearner:
        objective = gaussian_likelihood if problem.kind == "regression" else problem.objective
        return bayesian_last_layer(
            problem.encoder(),
            objective,
            problem.ways,
            feature_kernel=self.feature_kernel,
            training_loss=self.training_loss,
        )
