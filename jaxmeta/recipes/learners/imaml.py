"""iMAML on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jaxmeta.core import MetaLearner
from jaxmeta.inner import conjugate_gradients, neumann_series
from jaxmeta.learners import imaml
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import GradientDescent
from jaxmeta.recipes.settings import AT_TEST, Count, Natural, NonNegative, Positive


@recipe("imaml", paper="Rajeswaran et al. 2019", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Imaml(GradientDescent):
    """iMAML (Rajeswaran et al. 2019): MAML with an implicit meta-gradient."""

    inner_rate: Positive = 0.1
    """Learning rate of the inner loop."""
    inner_steps: Natural = 16
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 16
    """Inner steps in evaluation."""
    strength: Positive = 2.0
    """Strength λ of the pull towards the initialisation in adaptation, also at test."""
    damping: NonNegative = 1.0
    """Damping that is added to λ in the meta-gradient."""
    solver: Literal["conjugate-gradients", "neumann"] = "conjugate-gradients"
    """Solver of the meta-gradient's linear system.
    The Neumann series converges if the loss has curvature below λ plus the damping."""
    solver_steps: Count = 5
    """Conjugate-gradient steps, or terms of the Neumann series."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("few-shot/default", {"steps": 400, "checkpoint_every": 100}),
        # The paper's λ is 2. The authors' code takes plain steps and one towards the start, and
        # solves with I + H/24: a small λ and a large damping.
        presets.omniglot(
            "99.50 ± 0.26, 99.74 ± 0.11, 96.18 ± 0.36, 99.14 ± 0.10",
            wall_time="12 h on a CPU core",
            strength=0.05,
            damping=24.0,
            steps=20_000,
        ),
        Preset(presets.TWENTY_WAYS, {"inner_steps": 25, "eval_inner_steps": 25}),
        Preset("regression/*", {"inner_rate": 1e-2, "strength": 1.0, "damping": 0.0}),
    )

    def build(self, problem: Problem) -> MetaLearner:
        if self.solver == "neumann":
            solver = neumann_series(self.solver_steps, 1 / (self.strength + self.damping))
        else:
            solver = conjugate_gradients(self.solver_steps)
        return imaml(
            problem.model(),
            problem.objective,
            strength=self.strength,
            damping=self.damping,
            solver=solver,
            **self.inner(problem),
        )
