"""CAVIA on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.inner import only
from jaxmeta.learners import cavia
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent
from jaxmeta.recipes.settings import AT_TEST, Count, Natural, Positive


@recipe("cavia", paper="Zintgraf et al. 2019", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Cavia(Differentiated, Batches, GradientDescent):
    """CAVIA (Zintgraf et al. 2019): MAML that adapts a small context vector."""

    inner_rate: Positive = 1.0
    """Learning rate of the inner loop."""
    inner_steps: Natural = 2
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 2
    """Inner steps in evaluation."""
    context: Count = 100
    """Size of the context vector."""
    conditions: str | None = None
    """Parameters that the context modulates, by name.
    Defaults to the third block's last normalisation, or the first layer of a perceptron."""
    presets: ClassVar[tuple[Preset, ...]] = (
        presets.omniglot(wall_time="2 h on a CPU core"),
        # Section 5.1 of the paper.
        Preset("regression/*", {"context": 5, "inner_steps": 1, "eval_inner_steps": 1}),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return cavia(
            problem.model(),
            problem.objective,
            context=self.context,
            conditions=only(self.conditions or problem.context_layer),
            **self.inner(problem),
        )
