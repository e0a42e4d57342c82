"""Differentiable neural computer on the command line."""

from dataclasses import dataclass

from jaxmeta.learners.memory import Machine, dnc
from jaxmeta.recipes import Problem, recipe
from jaxmeta.recipes.machine import MachineRecipe
from jaxmeta.recipes.settings import Count


@recipe("dnc", paper="Graves et al. 2016", kinds=("sequence",))
@dataclass(frozen=True)
class Dnc(MachineRecipe):
    """Differentiable neural computer (Graves et al. 2016): an NTM that frees and links its rows."""

    slots: Count = 16
    """Number of memory rows."""
    slot_width: Count = 16
    """Size of a memory row."""
    controller_width: Count = 64
    """Size of the controller's hidden state."""
    read_heads: Count = 4
    """Number of read heads."""

    def machine(self, problem: Problem) -> Machine:
        return dnc(
            problem.outputs,
            slots=self.slots,
            slot_width=self.slot_width,
            controller_width=self.controller_width,
            read_heads=self.read_heads,
        )
