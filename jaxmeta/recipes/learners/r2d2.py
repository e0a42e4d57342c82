"""R2-D2 on the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner, PyTree
from jaxmeta.learners import r2d2
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe


@recipe("r2d2", paper="Bertinetto et al. 2019", kinds=("classification",))
@dataclass(frozen=True)
class R2d2(Recipe):
    """R2-D2 (Bertinetto et al. 2019): ridge regression on learned features, in closed form."""

    presets: ClassVar[tuple[Preset, ...]] = (
        presets.omniglot(
            wall_time="1.5 h on a CPU core",
            **presets.SIXTY_WAYS_OMNIGLOT,
        ),
        presets.FAST,
        # The paper draws 1 to 10 shots in training. Its figures are of a network of this size.
        presets.miniimagenet(
            "49.5, 65.4",
            train_ways=16,
            task_batch=1,
            outer_rate=5e-3,
            outer_schedule="halving",
            steps=20_000,
            chunk=10,
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, embeds=True)

    def build(self, problem: Problem) -> MetaLearner:
        return r2d2(problem.encoder(), problem.objective, problem.ways)

    def encoder_params(self, meta_params: PyTree) -> PyTree:
        return meta_params.encoder

    def with_encoder(self, meta_params: PyTree, change: Callable[[PyTree], PyTree]) -> PyTree:
        return meta_params._replace(encoder=change(meta_params.encoder))
