"""OML on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import oml
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.inner_loop import Differentiated
from jaxmeta.recipes.online_steps import OnlineSteps, new_classes


@recipe("oml", paper="Javed, White 2019", kinds=("class-stream",))
@dataclass(frozen=True)
class Oml(Differentiated, OnlineSteps):
    """OML (Javed, White 2019): a representation on which a head learns a stream online."""

    learns_rates: bool = False
    """Learn a factor of the rate for each feature, as La-MAML."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("class-streams/default", {"inner_rate": 0.005}),  # of normalised features
        Preset(
            "class-streams/omniglot-published",
            {},
            {"omniglot-published": {10: "93", 50: "83", 100: "78", 200: "60"}},
        ),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return oml(
            self.encoder(problem),
            problem.objective,
            problem.trained_ways,
            self.inner_rate,
            ways=new_classes(problem),
            learns_rates=self.learns_rates,
            **self.inner(problem),
        )
