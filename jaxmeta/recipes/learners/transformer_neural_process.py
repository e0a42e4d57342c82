"""Transformer neural processes on the command line."""

from dataclasses import dataclass

from jaxmeta.core import MetaLearner
from jaxmeta.learners import transformer_neural_process
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count


@recipe("transformer-neural-process", paper="Nguyen, Grover 2022", kinds=("regression",))
@dataclass(frozen=True)
class TransformerNeuralProcess(Recipe):
    """Transformer neural process (Nguyen, Grover 2022): tokens that attend to the context."""

    width: Count = 64
    """Width of a token."""
    layers: Count = 4
    """Number of blocks of attention and perceptron."""
    heads: Count = 4
    """Number of attention heads."""

    def build(self, problem: Problem) -> MetaLearner:
        return transformer_neural_process(width=self.width, layers=self.layers, heads=self.heads)
