"""Meta-transfer learning on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import optax

from jaxmeta.core import MetaLearner
from jaxmeta.learners import MetaTransferParams, meta_transfer
from jaxmeta.recipes import Engine, Needs, Preset, Problem, presets, recipe
from jaxmeta.recipes.folders import read_identity
from jaxmeta.recipes.inner_loop import Differentiated, GradientDescent
from jaxmeta.recipes.settings import AT_TEST, PLACE, Natural, Positive
from jaxmeta.training.update import MetaUpdate

_FROZEN = {"query_statistics": "none", "hard_tasks": True}


@recipe("meta-transfer", paper="Sun et al. 2019", kinds=("classification",))
@dataclass(frozen=True)
class MetaTransfer(Differentiated, GradientDescent):
    """Meta-transfer learning (Sun et al. 2019): scales and shifts a frozen pre-trained network."""

    pretrained: Annotated[str | None, PLACE] = None
    """Run folder of a pre-trained network, see `python -m experiments.pretrain`."""
    inner_rate: Positive = 0.01
    """Learning rate of the head in the inner loop."""
    filter_rate: Positive = 1e-4
    """Outer learning rate of scales and shifts. The initial head is trained at --outer-rate."""
    inner_steps: Natural = 100
    """Inner steps in training."""
    eval_inner_steps: Annotated[Natural, AT_TEST] = 100
    """Inner steps in evaluation."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("few-shot/default", {**_FROZEN, "steps": 400, "checkpoint_every": 100}),
        presets.omniglot(**_FROZEN),
        Preset("few-shot/omniglot-challenge", {"hard_tasks": False}),  # not within groups
        presets.miniimagenet("61.2 ± 1.8, 75.5 ± 0.8", **_FROZEN, network="resnet12"),
        Preset("few-shot/grocery-*", _FROZEN, wall_time="25 min on 2 CPU cores"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(folded=True)

    def data(self) -> dict[str, Any]:
        if self.pretrained is None:
            return {}
        return {"pretrained": read_identity(Path(self.pretrained))}

    def build(self, problem: Problem) -> MetaLearner:
        return meta_transfer(
            problem.encoder(),
            problem.objective,
            problem.same_ways(),
            # The pre-trained network is read for training only; a trained run contains it.
            pretrained=self._pretrained(problem) if problem.train else None,
            **self.inner(problem),
        )

    def _pretrained(self, problem: Problem) -> Any:
        if self.pretrained is None:
            raise ValueError(
                "meta-transfer requires a pre-trained network: run python -m experiments.pretrain "
                "--out FOLDER with the same --dataset, --network and --width, then give "
                "--pretrained FOLDER."
            )
        return frozen_network(self.pretrained, problem)

    def update(self, learner: MetaLearner, engine: Engine) -> MetaUpdate:
        filters = MetaTransferParams(frozen=False, scales=True, shifts=True, head=False)
        slower = optax.scale(self.filter_rate / engine.training.outer_rate)
        return engine.update(learner, engine.training.optimizer(optax.masked(slower, filters)))


def frozen_network(folder: str, problem: Problem) -> Any:
    """The frozen network of a pre-training run on the images of this problem.

    Raises:
      ValueError: the folder is not a pre-training run, or a run on other images or another split,
        which may have seen the test classes.
      OSError: it can't be read.
    """
    from jaxmeta.recipes.restoring import restore

    run = restore(folder)
    if run.experiment.domain.kind != "supervised":
        raise ValueError(f"--pretrained {folder} is not a run of python -m experiments.pretrain.")
    if run.data["images_sha256"] != problem.data["images_sha256"]:
        raise ValueError(
            f"{folder} was trained on other images or on another split; give the --dataset, "
            "--split, --seed and --image-size of the pre-training."
        )
    return run.trained.meta_params
