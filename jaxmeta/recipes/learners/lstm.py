"""LSTM on the command line."""

from dataclasses import dataclass

from jaxmeta.learners.memory import Machine, lstm_machine
from jaxmeta.recipes.machine import MachineRecipe
from jaxmeta.recipes.registry import recipe
from jaxmeta.recipes.settings import Count
from jaxmeta.recipes.tasks import Problem


@recipe("lstm", paper="Hochreiter, Schmidhuber 1997", kinds=("sequence",))
@dataclass(frozen=True)
class Lstm(MachineRecipe):
    """LSTM (Hochreiter, Schmidhuber 1997): a recurrent network without another memory."""

    width: Count = 256
    """Size of each layer."""
    layers: Count = 1
    """Layers on top of each other."""

    def machine(self, problem: Problem) -> Machine:
        return lstm_machine(
            self.width,
            problem.outputs,
            layers=self.layers,
        )
