"""Meta-LSTM on the command line."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxmeta.core import MetaLearner
from jaxmeta.learners import meta_lstm
from jaxmeta.recipes import Preset, Problem, presets, recipe
from jaxmeta.recipes.inner_loop import Batches, Steps
from jaxmeta.recipes.settings import AT_TEST, Count, Natural, Positive

_AS_PUBLISHED = {"task_batch": 1, "train_queries": 15, "width": 32, "clip_norm": 0.25}


@recipe("meta-lstm", paper="Ravi, Larochelle 2017", kinds=("classification", "regression"))
@dataclass(frozen=True)
class MetaLstm(Batches, Steps):
    """Meta-LSTM (Ravi, Larochelle 2017): an LSTM whose cell state is the parameters."""

    inner_steps: Natural = 12
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 12
    """Inner steps in evaluation."""
    lstm_width: Count = 20
    """Size of the LSTM's state for each parameter."""
    inner_rate: Positive = 0.01
    """Approximate initial learning rate of the inner loop, from which the LSTM learns its own."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("few-shot/default", {**_AS_PUBLISHED, "steps": 1200, "checkpoint_every": 200}),
        presets.omniglot(
            wall_time="6 h on a CPU core", **_AS_PUBLISHED, network="conv4-pool", steps=50_000
        ),
        Preset("few-shot/omniglot-*w5s", {"inner_steps": 5, "eval_inner_steps": 5}),
        Preset("regression/*", {"inner_steps": 5, "eval_inner_steps": 5}),
    )

    def build(self, problem: Problem) -> MetaLearner:
        return meta_lstm(
            problem.model(),
            problem.objective,
            lstm_width=self.lstm_width,
            inner_rate=self.inner_rate,
            **self.inner(problem),
        )
