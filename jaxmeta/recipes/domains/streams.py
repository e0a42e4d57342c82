"""Streams that switch between regimes: `python -m experiments.streams [LEARNER]`.

A learner predicts each example of a stream from those before it, without being told where the
function changes. Switching sine waves have known switches; with the volatility of stocks, nobody
knows them.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxmeta.core import Batch, Task
from jaxmeta.data import switches_of, switching_sinusoids
from jaxmeta.data.cache import digest
from jaxmeta.data.prices import COLUMNS, PARTS, SOURCE, load_volatilities, volatility_streams
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.tables import read_numbers
from jaxmeta.learners.process import gaussian_likelihood
from jaxmeta.models import mlp
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Report, Tasks, Training, domain
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Fraction, NonNegative, check_chosen
from jaxmeta.recipes.streams_report import compared, comparison_lines, draw_belief
from jaxmeta.recipes.tasks import Figure


@dataclass(frozen=True)
class Waves:
    """Sine waves with switches."""

    switch_rate: Annotated[Fraction, AT_TEST] = 0.05
    """Probability of a switch before an example."""
    noise: Annotated[NonNegative, AT_TEST] = 0.1
    """Standard deviation of the noise of the targets."""


@domain("streams", kind="stream")
@dataclass(frozen=True)
class Streams(Domain):
    """Meta-train a learner on streams with switches and evaluate it on unseen streams."""

    task: Literal["sinusoids", "stocks"] = "sinusoids"
    """Switching sine waves, or the volatility of stocks in windows of successive days."""
    length: AtLeastTwo = 100
    """Examples per stream."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network's hidden layers."""
    sinusoids: Waves = field(default_factory=Waves)

    default_learner: ClassVar[str] = "moca"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 3000,
                "task_batch": 8,
                "outer_schedule": "cosine",
                "clip_norm": 1.0,
                "checkpoint_every": 300,
                "chunk": 25,
            },
        ),
    )

    def check(self) -> None:
        """Check that no options of another task are given."""
        check_chosen(self, self.task, {"sinusoids": "sinusoids"})

    def label(self) -> str:
        return self.task

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        columns = len(COLUMNS) if self.task == "stocks" else 1
        stream = Batch(jnp.zeros((self.length, columns)), jnp.zeros((self.length, 1)))
        return Problem(
            kind="stream",
            train=train,
            example=Task(jax.tree.map(lambda leaf: leaf[:0], stream), stream),
            objective=gaussian_likelihood,
            network=lambda constants, outputs: mlp(self.hidden, outputs or self.hidden[-1]),
            support=self.length,
            steps=training.steps,
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        data: dict[str, Any] = {}
        protocol: dict[str, Any] = {"length": self.length, "query_statistics": "none"}
        if self.task == "stocks":
            parts = load_volatilities(self.length)
            sources = {
                part: volatility_streams(own, length=self.length) for part, own in parts.items()
            }
            arrays = {part: own.targets for part, own in parts.items()}
            data = {"volatilities_sha256": digest(arrays)}
            protocol |= {"dates": {part: list(own) for part, own in PARTS.items()}}
            protocol |= {"source": SOURCE, "survivors": "members of the index in 2018 only"}
            truth = None
        else:
            waves = asdict(self.sinusoids)
            sample: Sampler = switching_sinusoids(length=self.length, **waves)
            sources = dict.fromkeys(PARTS, sample)
            protocol |= waves
            truth = switches_of

        def held_out(part: str) -> HeldOut:
            return HeldOut(sources[part], {**data, **protocol, "task": self.task, "part": part})

        def report(made: Report) -> dict[str, Any]:
            return compared(made, sources["validation"], truth)

        return Tasks(
            train=lambda: sources["train"],
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(Figure("loss", "negative log-likelihood"),),
            title=f"{self.task} · {self.length} examples",
            summary={"task": self.task, "dataset": self.task},
            protocol=protocol,
            data=data,
            report=report,
            draw=functools.partial(draw_belief, truth=truth),
            extra_lines=comparison_lines,
        )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read tables of numbers (CSV): the stream so far in its order, and possible next inputs.

        A row of the stream has the input and the target.

        Raises:
          ValueError: stocks, whose inputs and targets are scaled by all training days.
        """
        if self.task == "stocks":
            raise ValueError(
                "predict does not support runs of --task stocks, whose inputs and targets are "
                "scaled by the training days; use the learner in Python."
            )
        known, asked = read_numbers(support, 2), read_numbers(query, 1)
        return UserTask(
            support=Batch(known[:, :1], known[:, 1:]),
            inputs=asked,
            rows=[" ".join(map(str, row)) for row in asked.tolist()],
            names=[],
        )
