"""Prototypical networks on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from jaxmeta.core import MetaLearner, Task
from jaxmeta.learners import prototypical
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe


@recipe("prototypical", paper="Snell et al. 2017", kinds=("classification",))
@dataclass(frozen=True)
class Prototypical(Recipe):
    """Prototypical networks (Snell et al. 2017): classifies by the nearest class mean."""

    distance: Literal["euclidean", "cosine", "mahalanobis"] = "euclidean"
    """Squared Euclidean distance as published, cosine with a learned temperature, or Mahalanobis
    distance by the covariance of the support (Bateni et al. 2020)."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "few-shot/default",
            {**presets.SIXTY_WAYS, "steps": 300, "checkpoint_every": 50, "chunk": 10},
        ),
        presets.omniglot(
            "98.8, 99.7, 96.0, 98.9, 86.3",  # the challenge: Lake et al. 2019
            wall_time="1.5 h on a CPU core",
            **presets.SIXTY_WAYS_OMNIGLOT,
        ),
        presets.FAST,
        Preset(
            presets.FAST.pattern,
            {
                "distortions": True,
                "train_queries": 2,
                "test_views": "shifts",
                "steps": 8000,
                "checkpoint_every": 1000,
            },
            wall_time="70 min on one of 2 busy CPU cores, 25 of them for the test",
        ),
        presets.miniimagenet(
            "49.42 ± 0.78, 68.20 ± 0.66",
            **{**presets.SIXTY_WAYS, "train_ways": 30, "train_queries": 15},
            steps=20_000,
            chunk=10,
        ),
        Preset("few-shot/miniimagenet-5w5s", {"train_ways": 20}),
        Preset("text/*", {"distance": "cosine"}),  # as the encoder was trained
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, unlabelled=True, embeds=True)

    def build(self, problem: Problem) -> MetaLearner:
        return prototypical(
            problem.encoder(), problem.objective, problem.ways, distance=self.distance
        )

    def draw(self, path: Path, problem: Problem, adapted: Any, task: Task, title: str) -> None:
        from jaxmeta import plots

        encoder, params = problem.encoder(), adapted.meta_params["encoder"]
        embed = jax.jit(
            lambda inputs, reference: encoder.apply(params, inputs, reference=reference)
        )
        plots.embedding_map(
            path,
            np.asarray(embed(task.support.inputs, None)),
            np.asarray(task.support.targets),
            np.asarray(embed(task.query.inputs, adapted.reference)),
            np.asarray(task.query.targets),
            np.asarray(adapted.prototypes_WD),
            title=f"{title}: embeddings of one test task",
        )
