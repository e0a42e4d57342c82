"""LSTM on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.learners.memory import Machine, lstm_machine
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.machine import MachineRecipe
from jaxmeta.recipes.settings import Count


@recipe("lstm", paper="Hochreiter, Schmidhuber 1997", kinds=("sequence",))
@dataclass(frozen=True)
class Lstm(MachineRecipe):
    """LSTM (Hochreiter, Schmidhuber 1997): a recurrent network without an external memory."""

    width: Count = 256
    """Size of each layer."""
    layers: Count = 1
    """Number of stacked layers."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(  # Santoro et al. 2016, table 1
            "sequence/*",
            {},
            {"labels": {1: "24.4", 2: "49.5", 3: "55.3", 4: "61.0", 5: "63.6", 10: "62.5"}},
        ),
    )

    def machine(self, problem: Problem) -> Machine:
        return lstm_machine(
            self.width,
            problem.outputs,
            layers=self.layers,
        )
