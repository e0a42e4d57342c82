"""ANML on the command line."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from jaxmeta.core import MetaLearner, Model
from jaxmeta.learners import anml
from jaxmeta.learners.continual import gated
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.inner_loop import Differentiated
from jaxmeta.recipes.online_steps import OnlineSteps, new_classes
from jaxmeta.recipes.settings import Positive


@recipe("anml", paper="Beaulieu et al. 2020", kinds=("class-stream",))
@dataclass(frozen=True)
class Anml(Differentiated, OnlineSteps):
    """ANML (Beaulieu et al. 2020): OML on features that a second network gates."""

    inner_rate: Positive = 0.1
    """Learning rate of the online steps in training; at test, validation chooses among
    --eval-rates."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("class-streams/default", {"inner_rate": 0.02}),  # of normalised features
        Preset(
            "class-streams/omniglot-published",
            {"image_size": 28, "steps": 20_000, "outer_rate": 1e-3, "query_statistics": "group"},
            {"omniglot-published": {10: "88", 50: "88", 100: "85", 200: "80"}},
        ),
    )

    def encoder(self, problem: Problem) -> Model:
        return gated(*self._networks(problem))

    def build(self, problem: Problem) -> MetaLearner:
        return anml(
            *self._networks(problem),
            problem.objective,
            problem.trained_ways,
            self.inner_rate,
            ways=new_classes(problem),
            **self.inner(problem),
        )

    def _networks(self, problem: Problem) -> tuple[Model, Model]:
        """The encoder, and a gate of the same shape with an output for each feature."""
        encoder, inputs = problem.encoder(), problem.example.support.inputs
        features = jax.eval_shape(
            lambda key: encoder.apply(encoder.init(key, inputs), inputs), jax.random.key(0)
        )
        return encoder, problem.encoder(features.shape[-1])
