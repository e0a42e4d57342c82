"""Neural processes on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import neural_process
from jaxmeta.models import mlp
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count


@recipe("neural-process", paper="Garnelo et al. 2018", kinds=("regression",))
@dataclass(frozen=True)
class NeuralProcess(Recipe):
    """Neural process (Garnelo et al. 2018): a latent variable for each function."""

    representation: Count = 128
    """Width of the encoder's and decoder's layers, and of the latent variable."""
    samples: Count = 64
    """Samples of the latent variable at test; training uses one."""

    def build(self, problem: Problem) -> MetaLearner:
        size = self.representation
        encoder, decoder = mlp((size,) * 3, size), mlp((size,) * 2, 2 * problem.outputs)
        samples = 1 if problem.train else self.samples
        return neural_process(encoder, decoder, latent_width=size, samples=samples)
