"""Neural Turing machine on the command line."""

from dataclasses import dataclass
from typing import Literal

from jaxmeta.learners.memory import Machine, ntm
from jaxmeta.recipes import Problem, recipe
from jaxmeta.recipes.machine import MachineRecipe
from jaxmeta.recipes.settings import Count


@recipe("ntm", paper="Graves et al. 2014", kinds=("sequence",))
@dataclass(frozen=True)
class Ntm(MachineRecipe):
    """Neural Turing machine (Graves et al. 2014): a controller that reads and writes a memory."""

    slots: Count = 128
    """Number of memory rows."""
    slot_width: Count = 20
    """Size of a memory row."""
    controller_width: Count = 100
    """Size of the controller's hidden state."""
    read_heads: Count = 1
    """Number of read heads."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """Network that controls the heads."""

    def machine(self, problem: Problem) -> Machine:
        return ntm(
            problem.outputs,
            slots=self.slots,
            slot_width=self.slot_width,
            controller_width=self.controller_width,
            read_heads=self.read_heads,
            controller=self.controller,
        )
