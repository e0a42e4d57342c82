"""Distribution calibration on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxmeta.core import Key, MetaLearner
from jaxmeta.learners import distribution_calibration
from jaxmeta.learners.generative import base_statistics, tukey
from jaxmeta.recipes import Engine, Preset, Problem, recipe
from jaxmeta.recipes.feature_heads import FeatureHead, untrained
from jaxmeta.recipes.settings import AT_TEST, Count, NonNegative
from jaxmeta.training.update import MetaUpdate, Trained


@recipe("distribution-calibration", paper="Yang et al. 2021", kinds=("features",))
@dataclass(frozen=True)
class DistributionCalibration(FeatureHead):
    """Distribution calibration (Yang et al. 2021): samples by statistics of near base classes."""

    nearest: Annotated[Count, AT_TEST] = 2
    """Number of nearest base classes."""
    spread: Annotated[NonNegative, AT_TEST] = 0.21
    """Added to every entry of the covariance."""
    transform_base: bool = True
    """Take base statistics of transformed features; the published code takes the others."""
    presets: ClassVar[tuple[Preset, ...]] = (Preset("features/*", {"steps": 1}),)

    def build(self, problem: Problem) -> MetaLearner:
        learner = distribution_calibration(
            base_classes=problem.data["classes"]["train"],
            base_examples=problem.data["base_examples"],
            nearest=self.nearest,
            spread=self.spread,
            **self.head(problem),
        )
        return self.on_views(learner)

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        return untrained(engine, learner)

    def finish(self, key: Key, trained: Trained, problem: Problem, calibration) -> Trained:
        features, mask = calibration
        power = self.power if self.transform_base else 1
        return Trained(base_statistics(tukey(features, power), mask))
