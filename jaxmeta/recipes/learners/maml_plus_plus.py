"""MAML++ on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax

from jaxmeta.core import MetaLearner
from jaxmeta.inner._partition import paths_of
from jaxmeta.learners import maml_plus_plus
from jaxmeta.learners.gradient._maml_plus_plus import in_normalisation
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, Steps
from jaxmeta.recipes.settings import AT_TEST, Fraction, Natural, Positive


@recipe("maml-plus-plus", paper="Antoniou et al. 2019", kinds=("classification", "regression"))
@dataclass(frozen=True)
class MamlPlusPlus(Differentiated, Batches, Steps):
    """MAML++ (Antoniou et al. 2019): MAML with rates and normalisation learned per step."""

    inner_rate: Positive = 0.1
    """Learning rate of the inner loop; the initial value of learned rates."""
    inner_steps: Natural = 5
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 5
    """Inner steps in evaluation."""
    learned_rates: bool = True
    """Learn a rate for every parameter tensor and inner step."""
    normalisation_per_step: bool = True
    """Learn each normalisation's scale and shift for every inner step, instead of adapting them;
    no effect for networks without normalisation."""
    multi_step_loss_fraction: Fraction = 0.1
    """Initial fraction of training in which the losses after all inner steps count, annealed."""
    first_order_fraction: Fraction = 0.0
    """Initial fraction of training with first-order gradients."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("few-shot/default", {"steps": 600, "checkpoint_every": 100}),
        presets.omniglot(
            "99.47 (ensemble of 5), 99.93 (ensemble of 5), "
            "97.65 (ensemble of 5), 99.33 (ensemble of 5)",
            wall_time="15 h on a CPU core",
            task_batch=8,
            steps=50_000,
            network="conv4-pool",
            outer_schedule="cosine",
        ),
        Preset("regression/*", {"inner_rate": 1e-3, "normalisation_per_step": False}),
    )

    def build(self, problem: Problem) -> MetaLearner:
        model = problem.model()
        params = jax.eval_shape(model.init, jax.random.key(0), problem.example.support.inputs)
        normalised = any(map(in_normalisation, paths_of(params)))
        per_step = in_normalisation if self.normalisation_per_step and normalised else None
        return maml_plus_plus(
            model,
            problem.objective,
            inner_rate=self.inner_rate,
            learned_rates=self.learned_rates,
            normalisation_per_step=per_step,
            multi_step_loss_until=round(self.multi_step_loss_fraction * problem.steps),
            first_order_until=round(self.first_order_fraction * problem.steps),
            trained_inner_steps=max(self.inner_steps, 1),
            **self.inner(problem),
        )
