"""Attentive neural processes on the command line."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxmeta.core import MetaLearner
from jaxmeta.learners import neural_process
from jaxmeta.models import mlp
from jaxmeta.recipes import Preset, Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count


@recipe("attentive-neural-process", paper="Kim et al. 2019", kinds=("regression",))
@dataclass(frozen=True)
class AttentiveNeuralProcess(Recipe):
    """Attentive neural process (Kim et al. 2019): its targets attend to the context."""

    representation: Count = 128
    """Width of the encoder's and decoder's layers, and of the latent variable."""
    samples: Count = 64
    """Samples of the latent variable at test; training uses one."""
    attention: Literal["laplace", "dot-product", "multi-head"] = "multi-head"
    """Kind of attention of a target to the context."""
    heads: Count = 8
    """Number of heads of the multi-head attention."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("regression/gp*", {}, wall_time="40 min on a CPU core"),
    )

    def build(self, problem: Problem) -> MetaLearner:
        size = self.representation
        encoder, decoder = mlp((size,) * 3, size), mlp((size,) * 2, 2 * problem.outputs)
        return neural_process(
            encoder,
            decoder,
            latent_width=size,
            samples=1 if problem.train else self.samples,
            encoder=encoder,
            attention=self.attention,
            heads=self.heads,
        )
