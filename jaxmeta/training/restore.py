"""A trained run read back: the learner and its meta-parameters."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from jaxmeta.core import MetaLearner, PyTree
from jaxmeta.training import build, build_learner, checkpoints
from jaxmeta.training.config import EXPERIMENTS, AnyExperiment, FewShot, Regression, from_json
from jaxmeta.training.loop import CHECKPOINTS
from jaxmeta.training.state import Trained


class TrainedRun(NamedTuple):
    """What a run folder holds, ready for use.

    Attributes:
      learner: with the inner steps and the ways of evaluation.
      meta_params: those that were best in validation.
      config: the run's configuration.
      image_shape: `(height, width, channels)` that the model takes; None for curves.
      step: the meta-updates after which the meta-parameters were saved.
    """

    learner: MetaLearner
    meta_params: PyTree
    config: AnyExperiment
    image_shape: tuple[int, ...] | None
    step: int


def restore(run_directory: str | Path, *, config: AnyExperiment | None = None) -> TrainedRun:
    """The learner and the best meta-parameters of a run folder.

        learner, meta_params, *_ = restore("runs/maml-glyphs-5w1s-seed0")
        adapted = learner.adapt(key, meta_params, support)
        outputs = learner.predict(adapted, images)

    Args:
      run_directory: a folder that `experiments.few_shot` or `experiments.regression` wrote.
      config: the run's configuration, changed in what does not touch the parameters (the test
        ways of a prototypical network, inner steps); None is the run's own.

    Raises:
      FileNotFoundError: no run there, or no checkpoint in it yet.
      ValueError: the checkpoint is of another model, or damaged; the learner has a head for
        another number of ways.
    """
    folder = Path(run_directory)
    own, image_shape = read_config(folder)
    config = own if config is None else config
    learner = build_learner.learner_of(config, train=False)
    task = build.example_task(config, image_shape)
    like = jax.eval_shape(lambda key: learner.init(key, task), jax.random.key(0))
    best = checkpoints.restore(folder / CHECKPOINTS, Trained(like), step="best")
    if best is None and (folder / "results.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds the results of a run without its checkpoints; the command that trains "
            "it stands in its results.json."
        )
    if best is None:
        raise FileNotFoundError(
            f"{folder} holds no validated checkpoint yet; train it further with --resume."
        )
    return TrainedRun(learner, best.tree.meta_params, config, image_shape, best.step)


def read_config(folder: Path) -> tuple[AnyExperiment, tuple[int, ...] | None]:
    """The configuration of a run folder, and the shape of its images.

    Raises:
      FileNotFoundError: there is no `config.json`.
      ValueError: it can't be read.
    """
    path = folder / "config.json"
    if not path.is_file() and (seeds := sorted(folder.glob("seed_*/config.json"))):
        raise FileNotFoundError(f"{folder} holds a run of each seed; give {seeds[0].parent}.")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no config.json.")
    try:
        fields = json.loads(path.read_text())
        kind = fields["config"]["experiment"]
        if kind not in EXPERIMENTS:
            known = " or ".join(f"experiments.{name}" for name in EXPERIMENTS)
            raise ValueError(f"it is a run of experiments.{kind}; give one of {known}")
        shape = fields["image_shape"]
        return from_json(fields["config"]), None if shape is None else tuple(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}.") from error


def with_episode(
    config: AnyExperiment, *, ways: int | None = None, shots: int | None = None
) -> AnyExperiment:
    """The configuration with other test tasks and the same training tasks."""
    trained = {f"train_{name}": size for name, size in config.episode(True).items()}
    if isinstance(config, Regression) and config.task != "sinusoids":
        del trained["train_shots"]  # there, a random number of points
    tested = {"shots": shots} | ({"ways": ways} if isinstance(config, FewShot) else {})
    return replace(
        config, **trained, **{name: size for name, size in tested.items() if size is not None}
    )
