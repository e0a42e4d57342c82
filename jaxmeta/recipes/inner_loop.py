"""Settings that recipes with an inner loop share."""

from dataclasses import dataclass
from typing import Any, Literal

import optax

from jaxmeta.inner import DIFFERENTIATIONS, adam, truncated
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.settings import AT_TEST, Annotated, Count, Natural, Positive, option
from jaxmeta.recipes.tasks import Problem


@dataclass(frozen=True)
class Inner(Recipe):
    """Base class of the groups of settings; `inner` gives arguments of the learner, by name."""

    def inner(self, problem: Problem) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Steps(Inner):
    inner_steps: Natural = 1
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 3
    """Inner steps in evaluation."""

    def inner(self, problem: Problem) -> dict[str, Any]:
        steps = self.inner_steps if problem.train else self.eval_inner_steps
        return {**super().inner(problem), "inner_steps": steps}


@dataclass(frozen=True)
class Batches(Inner):
    inner_batch: Count | None = None
    """Support examples per inner step, at most all of them. Defaults to all."""

    def inner(self, problem: Problem) -> dict[str, Any]:
        whole = problem.support <= (self.inner_batch or 0)
        return {**super().inner(problem), "inner_batch": None if whole else self.inner_batch}


@dataclass(frozen=True)
class GradientDescent(Steps):
    inner_rate: Positive = 0.4
    """Learning rate of the inner loop."""
    inner_optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer of the inner loop."""

    def inner(self, problem: Problem) -> dict[str, Any]:
        make = {"sgd": optax.sgd, "adam": adam}[self.inner_optimizer]
        return {**super().inner(problem), "inner_optimizer": make(self.inner_rate)}


Way = Literal["second-order", "first-order", "mixed-mode", "rematerialised", "reverse-mode"]


@dataclass(frozen=True)
class Differentiated(Inner):
    differentiation: Way = "second-order"
    """How to differentiate through the inner steps; all but first-order are exact.
    first-order: takes inner gradients as constants;
    mixed-mode: forward over reverse, the fastest;
    rematerialised: recomputes each step, with as little memory as mixed-mode, but slower;
    reverse-mode: takes the most memory;
    second-order: the default, the same as mixed-mode."""
    truncate: Natural | None = None
    """Number of last inner steps to differentiate through. Defaults to all."""

    def inner(self, problem: Problem) -> dict[str, Any]:
        way = DIFFERENTIATIONS[self.differentiation]
        if self.truncate is not None:
            way = truncated(self.truncate, way)
        return {**super().inner(problem), "differentiation": way}

    def check(self) -> None:
        steps = getattr(self, "inner_steps", None)
        if self.truncate is not None and steps is not None and self.truncate > steps:
            raise ValueError(
                f"{option('truncate', self.truncate)} exceeds {option('inner_steps', steps)}; give "
                f"at most {steps}."
            )
