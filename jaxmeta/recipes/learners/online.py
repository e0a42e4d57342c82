"""Online learning without meta-learning on the command line, a baseline for streams of classes."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import online
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.online_steps import OnlineSteps, new_classes


@recipe("online", paper="Javed, White 2019", kinds=("class-stream",))
@dataclass(frozen=True)
class Online(OnlineSteps):
    """Online learning (Javed, White 2019): pre-trained or from scratch, the baseline of OML."""

    from_scratch: bool = False
    """Train nothing before the test: a random network learns online as a whole."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "class-streams/*",
            {},
            {"omniglot-published": {10: "39", 50: "20", 100: "14", 200: "8"}},
        ),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return online(
            self.encoder(problem),
            problem.objective,
            problem.trained_ways,
            self.inner_rate,
            ways=new_classes(problem),
            whole=self.from_scratch,
        )

    @property
    def freezes_features(self) -> bool:
        return not self.from_scratch
