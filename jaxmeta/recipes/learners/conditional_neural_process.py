"""Conditional neural processes on the command line, for regression and classification."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxmeta.core import MetaLearner
from jaxmeta.learners import conditional_neural_process, conditional_neural_process_classifier
from jaxmeta.learners.process import class_by_class
from jaxmeta.models import mlp
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, presets, recipe
from jaxmeta.recipes.settings import Count


@recipe(
    "conditional-neural-process",
    paper="Garnelo et al. 2018",
    kinds=("classification", "regression"),
)
@dataclass(frozen=True)
class ConditionalNeuralProcess(Recipe):
    """Conditional neural process (Garnelo et al. 2018): averages the encoded support."""

    representation: Count = 128
    """Width of the encoder's and decoder's layers; in classification, of the decoder's only."""
    decoder: Literal["class-by-class", "joint"] = "class-by-class"
    """How a classifier compares a query with the classes.
    class-by-class: with each class, by the same weights;
    joint: with all classes together in one network, as published."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.READING,
        presets.omniglot("95.3, 98.5, 89.9, 96.8", wall_time="3 h on a CPU core"),
        Preset("regression/gp", {}, wall_time="10 min on a CPU core"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=self.decoder == "class-by-class")

    def build(self, problem: Problem) -> MetaLearner:
        size = self.representation
        if problem.kind == "regression":
            decoder = mlp((size,) * 2, 2 * problem.outputs)
            return conditional_neural_process(mlp((size,) * 3, size), decoder)
        if self.decoder == "class-by-class":
            ways = problem.ways
            decoder = class_by_class(mlp((size,) * 2, 1), ways)
        else:
            ways = problem.same_ways()
            decoder = mlp((size,) * 2, ways)
        return conditional_neural_process_classifier(
            problem.encoder(), decoder, problem.objective, ways
        )
