"""Supervised pre-training on all training classes: `python -m experiments.pretrain`.

The network is the start of meta-transfer learning and of the baselines of `experiments.baselines`.
Validation and test classify few-shot tasks by prototypes of the frozen features. The final
network has no head, and the statistics of the training images are folded into its scales and
shifts, so that it does not normalise by a batch.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Task, cross_entropy
from jaxmeta.data import ClassImages, episodes, image_batches
from jaxmeta.data.images.dataset import classes_of
from jaxmeta.data.scaling import scaled
from jaxmeta.files import shown
from jaxmeta.learners import prototypical
from jaxmeta.models import on_features
from jaxmeta.recipes import (
    ACCURACY,
    Domain,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Tasks,
    Training,
    domain,
)
from jaxmeta.recipes.images import (
    CALIBRATION_IMAGES,
    ImageNetwork,
    Images,
    data_identity,
    features_of,
)
from jaxmeta.recipes.settings import Count, Fraction, Natural
from jaxmeta.training.update import Trained

WAYS, SHOTS, QUERIES = 5, 1, 15  # the few-shot tasks on which the features are evaluated


@dataclass(frozen=True)
class Network:
    """The network."""

    network: Literal["conv4-stride", "resnet12"] = "resnet12"
    """Four convolutions of stride 2, or a residual network of twelve layers."""
    width: Count = 16
    """Channels of each convolution (of the first block in resnet12; 64 as published)."""

    def build(self, outputs: int | None, *, frozen: bool | None = None) -> Model:
        """The network with or without a head of `outputs` units.

        In training it normalises by its batch; if `frozen`, by statistics that are folded into its
        parameters. Defaults to frozen without a head.
        """
        frozen = outputs is None if frozen is None else frozen
        return ImageNetwork(self.network, self.width, "training").build(outputs, train=not frozen)


@dataclass(frozen=True)
class Augmentation:
    """The training batches and their augmentation."""

    batch_size: Count = 32
    """Images per batch."""
    shift: Natural = 8
    """Shift each image at random by up to this many pixels."""
    flip: bool = True
    """Mirror half of the images left to right."""
    light: Fraction = 0.3
    """Change brightness and contrast at random by up to this fraction."""


@domain("pretrain", kind="supervised")
@dataclass(frozen=True)
class Pretrain(Domain):
    """Train a network on all training classes, for meta-transfer learning and for baselines."""

    images: Images = field(default_factory=lambda: Images(dataset="grocery"))
    image_network: Network = field(default_factory=Network)
    batches: Augmentation = field(default_factory=Augmentation)

    default_learner: ClassVar[str] = "supervised"
    presets: ClassVar[tuple[Preset, ...]] = (
        # 13 passes over 3,586 photographs of 84×84 pixels.
        Preset(
            "default",
            {
                "steps": 1500,
                "task_batch": 1,
                "outer_schedule": "cosine",
                "checkpoint_every": 250,
                "chunk": 10,
                "validation_tasks": 1000,
            },
            wall_time="15 min on 2 CPU cores",
        ),
    )

    def label(self) -> str:
        return f"{Path(self.images.dataset).name}-{self.image_network.network}"

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        images = jnp.zeros((self.batches.batch_size, *data["image_shape"]))
        batch = Batch(images, jnp.zeros((len(images),), jnp.int32))
        classes = data["classes"]["train"]

        return Problem(
            kind="supervised",
            train=train,
            example=Task(batch, batch),
            objective=cross_entropy,
            network=lambda constants, outputs: self.image_network.build(outputs),
            outputs=classes,
            steps=training.steps,
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset = self.images.load(training.seed, seen=needs.seen)
        data = data_identity(dataset)
        of_training = self.problem(training, needs, data, train=True)
        encoder = of_training.encoder()
        prototypes = prototypical(on_features(), cross_entropy, WAYS)

        def judge(
            key: Key, learner: MetaLearner, trained: Trained, task: Task
        ) -> tuple[Array, Mapping[str, Array]]:
            loss, info = prototypes.loss(key, trained.meta_params, task)
            return loss, info.metrics

        def held_out(part: str) -> HeldOut:
            classes: ClassImages = getattr(dataset, part)
            sizes: dict[str, Any] = {"ways": WAYS, "shots": SHOTS, "queries": _queries(classes)}

            def prepare(recipe: Any, trained: Trained) -> tuple[Any, Trained]:
                features = features_of(encoder, trained.meta_params, classes)
                return episodes(features, **sizes), Trained({"encoder": ()})

            # Built from images only to raise errors about the classes early.
            source = episodes(classes, **sizes)
            identity = {"images_sha256": data["images_sha256"], "part": part, **sizes}
            return HeldOut(source, identity, judge=judge, prepare=prepare, at_once=100)

        own = self.batches
        return Tasks(
            train=lambda: image_batches(
                dataset.train, own.batch_size, shift=own.shift, flip=own.flip, light=own.light
            ),
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{Path(self.images.dataset).name} · {self.image_network.network} · prototypes "
            f"of its features, {WAYS}-way {SHOTS}-shot",
            summary={
                "dataset": self.images.dataset,
                "ways": WAYS,
                "shots": SHOTS,
                "queries": _queries(dataset.test),
            },
            protocol={
                **dataset.protocol,
                "training_classes": len(dataset.train.names),
                "network": f"{self.image_network.network}, width {self.image_network.width}",
                "query_statistics": "none",
                "shuffled_labels": False,
                "judged_by": "prototypes of the frozen features",
            },
            data=data,
            classes=functools.partial(classes_of, dataset),
            calibration=lambda: self._calibration(dataset.train, training.seed),
        )

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.images.evaluation_changes(changes)

    def _calibration(self, classes: ClassImages, seed: int) -> Array:
        """Training images without augmentation, `[batches, batch_size, H, W, C]`."""
        images = classes.images
        size = min(self.batches.batch_size, len(images))
        count = max(1, min(CALIBRATION_IMAGES, len(images)) // size)
        rows = np.random.default_rng(seed).permutation(len(images))[: count * size]
        return scaled(jnp.asarray(images[rows].reshape(count, size, *images.shape[1:])))


def _queries(classes: ClassImages) -> int:
    """Query images per class: as many as the smallest class has left, at most 15.

    Raises:
      ValueError: a class has none left; there are fewer classes than a task has.
    """
    least = int(classes.counts.argmin())
    if classes.counts[least] <= SHOTS:
        raise ValueError(
            f"class {shown(classes.names[least])} has {classes.counts[least]} image; features are "
            f"validated and tested on tasks with {SHOTS + 1} or more of each class."
        )
    if len(classes.names) < WAYS:
        raise ValueError(
            f"{len(classes.names)} classes; features are validated and tested on tasks of {WAYS}: "
            "give data or a --split with as many classes in each part."
        )
    return min(QUERIES, int(classes.counts.min()) - SHOTS)
