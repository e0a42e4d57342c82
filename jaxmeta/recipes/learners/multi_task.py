"""Multi-task learning on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.inner import adam
from jaxmeta.learners import multi_task
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import AT_TEST, Count, Natural, Positive


@recipe("multi-task", paper="Caruana 1997", kinds=("classification",))
@dataclass(frozen=True)
class MultiTask(Recipe):
    """Multi-task learning (Caruana 1997): a shared trunk, and a head for each training task."""

    tasks: Count = 200
    """Number of training tasks. With 1, and --train-ways of all training classes, it is supervised
    training."""
    fine_tune: Annotated[Literal["head", "all"], AT_TEST] = "head"
    """What is trained for a new task: a new head on the frozen trunk, or all parameters."""
    new_head: Annotated[Literal["zero", "prototypes"], AT_TEST] = "zero"
    """What the head of a new task starts from: zero, or the means of its classes."""
    inner_rate: Annotated[Positive, AT_TEST] = 0.01
    """Learning rate for a new task."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 100
    """Training steps for a new task; with 0 and --new-head prototypes, the means classify."""
    inner_optimizer: Annotated[Literal["sgd", "adam"], AT_TEST] = "adam"
    """Optimizer for a new task."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("few-shot/*", {"train_queries": 5}),
        presets.omniglot(wall_time="6 h on a CPU core", rotations="as-classes"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True, numbered=self.tasks)

    def build(self, problem: Problem) -> MetaLearner:
        optimizer = {"sgd": optax.sgd, "adam": adam}[self.inner_optimizer](self.inner_rate)
        return multi_task(
            problem.encoder(),
            problem.objective,
            problem.ways,
            self.tasks,
            optimizer,
            self.eval_inner_steps,
            fine_tune=self.fine_tune,
            new_head=self.new_head,
            trained_outputs=problem.trained_ways,
        )
