"""DARTS on the command line, with GDAS and rules that stop it as settings."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import optax

from jaxmeta.architecture import CELL_OPERATIONS
from jaxmeta.core import MetaLearner
from jaxmeta.learners import darts
from jaxmeta.learners.architecture import (
    Stop,
    eigenvalue_growth,
    gumbel_relaxation,
    never,
    skip_limit,
    softmax_relaxation,
)
from jaxmeta.recipes import Needs, Preset, Problem, recipe
from jaxmeta.recipes.base import Engine
from jaxmeta.recipes.searches import Search
from jaxmeta.recipes.settings import Count, Fraction, Natural, NonNegative, Positive, option

_LAST_RATE_FRACTION = 0.04  # the rate of the weights falls from 0.025 to 0.001


@recipe("darts", paper="Liu et al. 2019", kinds=("architecture",))
@dataclass(frozen=True)
class Darts(Search):
    """DARTS (Liu et al. 2019): an architecture learned by gradient descent on a supernet."""

    differentiation: Literal["second-order", "first-order", "finite-difference"] = "second-order"
    """How the step of the weights is differentiated: exactly, not at all, or by a difference of
    two gradients as published."""
    relaxation: Literal["softmax", "gumbel"] = "softmax"
    """Mixing weights of the operations: their softmax (DARTS), or one of them sampled; with
    --differentiation first-order that is GDAS."""
    temperature: tuple[Positive, Positive] = (10.0, 0.1)
    """First and last temperature, with --relaxation gumbel."""
    weight_rate: Positive = 0.025
    """First learning rate of the weights, which falls along a cosine to 4 % of it."""
    momentum: Fraction = 0.9
    """Momentum (Nesterov's) of the weights."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of the weights."""
    weight_clip: Positive = 5.0
    """Largest norm of the gradient of the weights."""
    architecture_decay: NonNegative = 1e-3
    """Weight decay of the architecture."""
    stop: Literal["never", "skips", "eigenvalue"] = "never"
    """Rule after which the derived architecture no longer changes. skips: the last one before more
    than --largest-skips skip connections; eigenvalue: that of four epochs before the dominant
    eigenvalue of the validation loss grows fast."""
    largest_skips: Natural = 1
    """Skip connections that a cell may have, with --stop skips."""
    eigenvalue_every: Count = 78
    """Steps of an epoch, at the end of which the eigenvalue is computed, with --stop eigenvalue."""

    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "architecture/default",
            # 20 passes over 5,000 images in batches of 64.
            {"steps": 1560, "checkpoint_every": 78, "chunk": 13, "outer_rate": 3e-4},
        ),
        Preset(
            "architecture/full",
            # Dong & Yang 2020, for a GPU: 50 passes over 25,000 images.
            {
                "steps": 19_550,
                "checkpoint_every": 391,
                "chunk": 17,
                "width": 16,
                "cells": 5,
                "image_count": 50_000,
                "outer_rate": 3e-4,
                "eigenvalue_every": 391,
            },
            {"full": "54.30 (Dong & Yang 2020)"},
            wall_time="not run",
        ),
    )

    def check(self) -> None:
        applies = {
            "temperature": ("relaxation", "gumbel"),
            "largest_skips": ("stop", "skips"),
            "eigenvalue_every": ("stop", "eigenvalue"),
        }
        for name, (owner, choice) in applies.items():
            value, default = getattr(self, name), getattr(type(self), name)
            preset = any(own.settings.get(name) == value for own in self.presets)
            if getattr(self, owner) != choice and value != default and not preset:
                raise ValueError(f"{option(name, value)} applies only to {option(owner, choice)}.")

    @property
    def needs(self) -> Needs:
        return Needs(supernet=True, sampled=self.relaxation == "gumbel")

    def build(self, problem: Problem) -> MetaLearner:
        rate = optax.cosine_decay_schedule(self.weight_rate, problem.steps, _LAST_RATE_FRACTION)
        optimizer = optax.chain(
            optax.clip_by_global_norm(self.weight_clip),
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(rate, momentum=self.momentum, nesterov=True),
        )
        relaxation = softmax_relaxation
        if self.relaxation == "gumbel":
            temperatures = optax.linear_schedule(*self.temperature, problem.steps)
            relaxation = gumbel_relaxation(temperatures)
        return darts(
            problem.model(),
            problem.objective,
            optimizer,
            differentiation=self.differentiation,
            relaxation=relaxation,
            stop=self._rule(),
        )

    def _rule(self) -> Stop:
        if self.stop == "skips":
            return skip_limit(CELL_OPERATIONS.index("skip_connect"), self.largest_skips)
        return eigenvalue_growth(self.eigenvalue_every) if self.stop == "eigenvalue" else never

    def optimizer(self, engine: Engine) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(self.architecture_decay)
        return optax.chain(decay, engine.training.optimizer(decay=(0.5, 0.999)))
