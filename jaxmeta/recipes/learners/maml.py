"""MAML on the command line, and first-order MAML as a preset of it."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.inner import excluding
from jaxmeta.learners import maml
from jaxmeta.recipes import Needs, Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Differentiated, GradientDescent, Way


@recipe("maml", paper="Finn et al. 2017", kinds=("classification", "regression"))
@dataclass(frozen=True)
class Maml(Differentiated, Batches, GradientDescent):
    """MAML (Finn et al. 2017): learns an initialisation through the inner loop."""

    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot(
            "98.7 ± 0.4, 99.9 ± 0.1, 95.8 ± 0.3, 98.9 ± 0.2", wall_time="3 h on a CPU core"
        ),
        presets.miniimagenet("48.70 ± 1.84, 63.11 ± 0.92"),
        Preset(
            "regression/sinusoid",
            {},
            {"sinusoid": {1: "0.67", 5: "0.38", 10: "0.35"}},
            "1 min on 2 CPU cores",
        ),
        Preset(
            "regression/sinusoid-frequency",
            {},
            {"sinusoid-frequency": {1: "1.13"}},
            "1 min on 2 CPU cores",
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(relaxed=True)

    def build(self, problem: Problem) -> MetaLearner:
        given, architecture = self.inner(problem), problem.architecture
        if not architecture:
            return maml(problem.model(), problem.objective, **given)
        adapts = excluding(architecture)
        learner = maml(problem.model(), problem.objective, adapts=adapts, **given)
        return learner._replace(derive=lambda params, _: params[architecture].argmax(axis=-1))


@recipe("first-order-maml", paper="Finn et al. 2017", kinds=("classification", "regression"))
@dataclass(frozen=True)
class FirstOrderMaml(Maml):
    """First-order MAML (Finn et al. 2017): MAML without second derivatives."""

    differentiation: Way = "first-order"
    """As for maml; here inner gradients are constants by default."""
    presets: ClassVar[tuple[Preset, ...]] = (
        *presets.MAML,
        presets.omniglot(
            "98.3 ± 0.5, 99.2 ± 0.2, 89.4 ± 0.5, 97.9 ± 0.1", wall_time="2 h on a CPU core"
        ),
        presets.miniimagenet("48.07 ± 1.75, 63.15 ± 0.91"),
    )
