"""Train a network on all training classes, the ordinary way: `python -m experiments.pretrain`.

    python -m experiments.pretrain --dataset grocery --network resnet12 --width 16

takes about 15 minutes on 2 CPU cores, 13 passes over 3,586 photographs of 84×84 pixels.
What meta-transfer learning starts from, and the baselines of `experiments.baselines`. Checkpoints
are chosen by prototypes of the frozen features on few-shot tasks of the validation classes. The
run folder gets `backbone.npz`: the network without its head, with the statistics of the training
images folded into scale and shift, so that it has none of its own.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.command_line import guarded, read_arguments
from experiments.folders import fields_of, prepare_settings
from experiments.progress import Progress
from experiments.run import (
    circumstances,
    load_dataset,
    plain,
    run_keys,
    train_in,
)
from jaxmeta import files, plots
from jaxmeta.core import Array, Model, PyTree, cross_entropy
from jaxmeta.data import ClassImages, episodes, image_batches
from jaxmeta.data._episodes import check_episode
from jaxmeta.learners import prototypical, supervised
from jaxmeta.models import folded, pack
from jaxmeta.training import build, checkpoints, evaluation
from jaxmeta.training import config as configs
from jaxmeta.training.build_learner import network_of
from jaxmeta.training.config import Experiment, FewShot
from jaxmeta.training.estimates import Estimate
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.parallel import mesh_for, on_first_process

BACKBONE = "backbone.npz"
_CALIBRATION_IMAGES = 1024  # of the training classes, for the statistics that are folded in


@dataclass(frozen=True)
class Pretrain(Experiment):
    """Train a network on all training classes, for meta-transfer learning and for baselines."""

    experiment: ClassVar[str] = "pretrain"
    steps: int = 1500
    """Updates."""
    task_batch: int = 1
    """Batches of an update, shared by the devices."""
    outer_schedule: Literal["constant", "linear", "cosine", "halving"] = "cosine"
    """The learning rate over the run."""
    checkpoint_every: int = 250
    """Updates between validations and checkpoints."""
    chunk: int = 10
    """Updates of one compiled call; logs and interrupts come at its end."""
    eval_tasks: tyro.conf.Suppress[int] = 1000  # test tasks are for `experiments.baselines`
    validation_tasks: int = 1000
    """5-way 1-shot tasks that choose the best checkpoint."""
    dataset: str = "grocery"
    """As in `experiments.few_shot`."""
    split: str | None = None
    """Class split, TRAIN/VALIDATION/TEST counts."""
    image_size: int | None = None
    """Side of the images in pixels; None: the set's own."""
    color: bool | None = None
    """Three channels or one; None: as the images are."""
    network: Literal["conv4-stride", "resnet12"] = "resnet12"
    """Four convolutions of stride 2, or a residual network of twelve layers."""
    width: int = 16
    """Channels of each convolution; of the first block in resnet12 (64 as published)."""
    batch_size: int = 32
    """Images of a batch."""
    shift: int = 8
    """Augmentation: each image moved by up to so many pixels."""
    flip: bool = True
    """Augmentation: half of the images mirrored left to right."""
    light: float = 0.3
    """Augmentation: brightness and contrast changed by up to this part."""
    out: Path = Path("runs/pretrained")
    """Run folder."""
    resume: bool = False
    """Go on from the newest checkpoint of the run folder."""
    overwrite: bool = False
    """Delete the run that the folder holds and start anew."""


def few_shot_of(settings: Pretrain, **changes: Any) -> FewShot:
    """The few-shot experiment on the same images and the same network, frozen."""
    shared = ("dataset", "split", "image_size", "color", "network", "width", "seed")
    values = {name: getattr(settings, name) for name in shared}
    frozen = {"steps": settings.steps, "task_batch": 1, "query_statistics": "none"}
    return FewShot(**{**values, **frozen, **changes})


def features_of(encoder: Model, params: PyTree, classes: ClassImages) -> ClassImages:
    """The frozen features of all images in their place: float32 `[total, 1, 1, D]`."""
    embed = _embedding(encoder)
    parts = np.array_split(classes.images, -(-len(classes.images) // 64))
    # Of two sizes at most, so that two programs serve all.
    features = np.concatenate([np.asarray(embed(params, part)) for part in parts])
    return classes._replace(images=features[:, None, None])


@functools.cache  # one network's validations, and the parts of its images, share two programs
def _embedding(encoder: Model) -> Callable[[PyTree, Any], Array]:
    return jax.jit(lambda params, images: encoder.apply(params, images.astype(jnp.float32) / 255))


def on_features() -> Model:
    """The encoder of images that are features already."""
    return Model(
        lambda key, inputs: (),
        lambda params, inputs, *, reference=None, key=None: inputs.reshape(len(inputs), -1),
    )


def run(settings: Pretrain, progress: Progress) -> dict[str, Any]:
    """Train, fold, write `backbone.npz` and `results.json`; return the latter.

    Raises:
      ValueError, OSError: with one plain line for the command line to show.
    """
    configs.check(settings)
    configs.require(settings, "batch_size", lambda value: value >= 1, "at least 1")
    few_shot = few_shot_of(settings)
    dataset = load_dataset(few_shot)
    assert dataset is not None
    fields = fields_of(settings)
    classes = len(dataset.train.names)
    network = network_of(dataclasses.replace(few_shot, query_statistics="batch"), classes)
    encoder = network_of(few_shot, None)
    mesh = mesh_for(settings.task_batch, tasks_at_once=settings.tasks_at_once)
    learner = supervised(network, cross_entropy)
    update = build.update_for(learner, settings, mesh, at_once=settings.tasks_at_once)
    batches = image_batches(
        dataset.train,
        settings.batch_size,
        shift=settings.shift,
        flip=settings.flip,
        light=settings.light,
    )
    on_first_process(lambda: prepare_settings(settings, settings.out, fields))
    train_key, validation_key, _ = run_keys(settings.seed)
    calibration = calibration_batches(dataset.train, settings)
    fold = jax.jit(functools.partial(folded, network))

    def backbone_of(params: PyTree) -> PyTree:
        frozen = fold(params, calibration)
        return {name: layer for name, layer in frozen.items() if name != "head"}

    prototypes = prototypical(on_features(), cross_entropy, 5)
    queries = min(15, int(dataset.validation.counts.min()) - 1)
    check_episode(dataset.validation, 5, 1, queries, "none")
    judge = evaluation(prototypes, settings.validation_tasks, tasks_at_once=100)

    def validate(params: PyTree) -> dict[str, Estimate]:
        features = features_of(encoder, backbone_of(params), dataset.validation)
        tasks = episodes(features, ways=5, shots=1, queries=queries)
        nothing_learned = prototypes.init(validation_key, tasks(validation_key))
        return judge(nothing_learned, tasks, validation_key)

    outcome = train_in(
        settings.out,
        settings,
        update,
        batches,
        train_key,
        validate,
        name="pre-training",
        mesh=mesh,
        resume=settings.resume,
        progress=progress,
    )
    backbone = jax.device_get(backbone_of(outcome.best.meta_params))
    results = {
        "experiment": settings.experiment,
        "settings": fields,
        "protocol": dataset.protocol
        | {
            "training_classes": classes,
            "selected_on": "prototypes of frozen features on 5-way 1-shot validation tasks, "
            f"{settings.validation_tasks} every {settings.checkpoint_every} steps",
        },
        "validation": plain(validate(outcome.best.meta_params)),
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        "images_per_second": round(outcome.tasks_per_second * settings.batch_size, 1),
        **circumstances(mesh),
        "parameters_sha256": checkpoints.parameters_sha256(backbone),
    }

    def keep() -> None:
        trained_on = np.array(dataset.protocol["images_sha256"])
        data = pack({"network": backbone, "images_sha256": trained_on})
        files.write_bytes(settings.out / BACKBONE, data)
        files.write_json(settings.out / "results.json", results)
        title = f"pre-training · {settings.dataset} · {settings.network}, width {settings.width}"
        plots.learning_curve(
            settings.out / "learning_curve.png", read_metrics(settings.out), title=title
        )

    on_first_process(keep)
    return results


def calibration_batches(classes: ClassImages, settings: Pretrain) -> Array:
    """Images as they are, float32 `[batches, batch_size, H, W, C]`, drawn evenly from all."""
    size = min(settings.batch_size, len(classes.images))
    count = max(1, min(_CALIBRATION_IMAGES, len(classes.images)) // size)
    rows = np.random.default_rng(settings.seed).permutation(len(classes.images))[: count * size]
    return jnp.asarray(classes.images[rows].reshape(count, size, *classes.images.shape[1:])) / 255


def main(settings: Pretrain) -> None:
    results = run(settings, Progress())
    value, interval = (100 * results["validation"][name] for name in ("accuracy", "accuracy_ci95"))
    print(
        f"{settings.network} · {settings.dataset} · prototypes of its features on validation "
        f"classes, 5-way 1-shot: {value:.1f} ± {interval:.1f} %"
    )
    print(f"the network: {settings.out / BACKBONE}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(read_arguments(Pretrain, "pretrain"))))
