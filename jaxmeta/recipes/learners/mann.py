"""Memory-augmented networks on the command line, for classification and for sequences."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import memory_classifier
from jaxmeta.learners.memory import Machine, mann
from jaxmeta.recipes import Needs, Preset, Problem, presets, recipe
from jaxmeta.recipes.machine import MachineRecipe
from jaxmeta.recipes.settings import Count, Positive


@recipe("mann", paper="Santoro et al. 2016", kinds=("classification", "sequence"))
@dataclass(frozen=True)
class Mann(MachineRecipe):
    """Memory-augmented network (Santoro et al. 2016): writes what it sees into a memory."""

    slots: Count = 128
    """Number of memory rows."""
    slot_width: Count = 40
    """Size of a memory row."""
    controller_width: Count = 200
    """Size of the LSTM that controls the heads."""
    read_heads: Count = 4
    """Number of heads, each of which reads and writes."""
    strength: Positive | None = None
    """Initial value of the learned read strength. Defaults to 1, not learned, as published."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.READING,
        presets.omniglot(wall_time="5 h on a CPU core"),
        Preset(
            "sequence/*",
            {},
            {"labels": {1: "36.4", 2: "82.8", 3: "91.0", 4: "92.6", 5: "94.9", 10: "98.1"}},
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(in_order=True)

    def machine(self, problem: Problem) -> Machine:
        return mann(
            problem.outputs,
            slots=self.slots,
            slot_width=self.slot_width,
            controller_width=self.controller_width,
            read_heads=self.read_heads,
            strength=self.strength,
        )

    def build(self, problem: Problem) -> MetaLearner:
        if problem.kind == "sequence":
            return super().build(problem)
        machine, ways = self.machine(problem), problem.same_ways()
        return memory_classifier(machine, problem.encoder(), problem.objective, ways)
