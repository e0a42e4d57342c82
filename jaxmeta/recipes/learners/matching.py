"""Matching networks on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import matching
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import Count


@recipe("matching", paper="Vinyals et al. 2016", kinds=("classification",))
@dataclass(frozen=True)
class Matching(Recipe):
    """Matching networks (Vinyals et al. 2016): attends to the support set and takes its labels."""

    full_context: bool = False
    """Full context embeddings: of a support example given the others, of a query given them all."""
    reads: Count = 5
    """Steps of the query's LSTM, each of which reads the support, with --full-context."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.COMPARING,
        presets.omniglot("98.1, 98.9, 93.8, 98.5", wall_time="1.5 h on a CPU core"),
        # As trained by Ravi and Larochelle 2017, whose figures these are.
        presets.miniimagenet(
            "43.56 ± 0.84, 55.31 ± 0.73",
            full_context=True,
            reads=3,
            train_ways=None,
            train_queries=15,
            task_batch=1,
            outer_rate=1e-4,
            steps=75_000,
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, in_order=self.full_context, embeds=True)

    def build(self, problem: Problem) -> MetaLearner:
        return matching(
            problem.encoder(),
            problem.objective,
            problem.ways,
            full_context=self.full_context,
            reads=self.reads,
        )
