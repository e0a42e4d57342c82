"""A linear head on features with Gaussian noise, on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import Key, MetaLearner
from jaxmeta.learners import noise_augmented
from jaxmeta.learners.generative import base_noise, base_statistics, tukey
from jaxmeta.recipes import Engine, Preset, Problem, recipe
from jaxmeta.recipes.feature_heads import FeatureHead, untrained
from jaxmeta.training.update import MetaUpdate, Trained


@recipe("noise-augmented", paper="baseline", kinds=("features",))
@dataclass(frozen=True)
class NoiseAugmented(FeatureHead):
    """The baseline of generators: a linear head, with Gaussian noise of the base covariance."""

    presets: ClassVar[tuple[Preset, ...]] = (Preset("features/*", {"steps": 1}),)

    def build(self, problem: Problem) -> MetaLearner:
        return self.on_views(noise_augmented(**self.head(problem)))

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        return untrained(engine, learner)

    def finish(self, key: Key, trained: Trained, problem: Problem, calibration) -> Trained:
        features, mask = calibration
        return Trained(base_noise(base_statistics(tukey(features, self.power), mask)))
