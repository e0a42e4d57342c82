"""A conditional VAE on features, and the delta-encoder, on the command line."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxmeta.core import Key, MetaLearner, Model
from jaxmeta.learners import vae_augmented
from jaxmeta.learners.generative import base_codes, tukey
from jaxmeta.models import mlp
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.feature_heads import FeatureHead
from jaxmeta.recipes.settings import Count
from jaxmeta.training.update import Trained


@recipe("vae-augmented", paper="Schwartz et al. 2018", kinds=("features",))
@dataclass(frozen=True)
class VAEAugmented(FeatureHead):
    """A conditional VAE of features (Schwartz et al. 2018): samples examples from the first one."""

    latent: Count = 16
    """Size of the code."""
    hidden_width: Count = 512
    """Width of the hidden layer of encoder and decoder (8192 as published)."""
    prior: bool = True
    """A prior of the code and a KL term; without them, it is the delta-encoder."""
    codes: Count = 512
    """Codes of base pairs that are stored, without the prior."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "features/*",
            {"steps": 2000, "checkpoint_every": 500, "chunk": 100, "outer_schedule": "cosine"},
            wall_time="3 min on a CPU core",
        ),
    )

    def _networks(self, problem: Problem) -> tuple[Model, Model]:
        size = problem.data["features"]
        return mlp((self.hidden_width,), 2 * self.latent), mlp((self.hidden_width,), size)

    def build(self, problem: Problem) -> MetaLearner:
        learner = vae_augmented(
            *self._networks(problem), prior=self.prior, codes=self.codes, **self.head(problem)
        )
        return self.on_views(learner)

    def finish(self, key: Key, trained: Trained, problem: Problem, calibration) -> Trained:
        if self.prior:
            return trained
        features, mask = calibration
        params = jax.tree.map(jnp.asarray, trained.meta_params)
        encoder = self._networks(problem)[0]
        codes = base_codes(key, encoder, params, tukey(features, self.power), mask)
        return Trained(params._replace(codes_KZ=codes))
