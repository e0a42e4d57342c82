"""Active one-shot learning on the command line."""

from dataclasses import dataclass
from typing import ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import active_one_shot
from jaxmeta.learners.memory import Rewards, lstm_machine
from jaxmeta.recipes import Needs, Preset, Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count, Fraction


@recipe("active-one-shot", paper="Woodward, Finn 2017", kinds=("sequence",))
@dataclass(frozen=True)
class ActiveOneShot(Recipe):
    """Active one-shot learning (Woodward, Finn 2017): predicts a class or asks for its label."""

    width: Count = 200
    """Size of the LSTM."""
    right_reward: float = 1.0
    """Reward of a right prediction."""
    wrong_reward: float = -1.0
    """Reward of a wrong prediction; a lower one gives fewer errors and more requests."""
    request_reward: float = -0.05
    """Reward of asking for a label."""
    discount: Fraction = 0.5
    """Discount of the Q-values."""
    exploration: Fraction = 0.05
    """Probability of a random action in training."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "sequence/*",
            {"task": "labels", "ways": 3, "task_batch": 50},
            # Accuracy of predictions, and labels asked for, with --wrong-reward -1 and -10; not
            # checked against the paper.
            {"labels": "75.9 with 7.2 % of the labels, 86.4 with 31.8 %"},
        ),
    )

    @property
    def needs(self) -> Needs:
        return Needs(requests=True)

    def build(self, problem: Problem) -> MetaLearner:
        ways, steps = problem.outputs, len(problem.example.query.targets)
        return active_one_shot(
            lstm_machine(self.width, ways + 1),
            ways,
            rewards=Rewards(self.right_reward, self.wrong_reward, self.request_reward),
            discount=self.discount,
            exploration=self.exploration,
            instances=tuple(range(1, steps // ways + 1)),
        )
