"""Generators of images: `python -m experiments.generate [LEARNER]`.

A generator is trained on the training classes, and judged on test classes: by the bound of a
variational autoencoder, by the Fréchet distance in the features of a frozen network, and by the
distance of its samples to the nearest training images.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp

from jaxmeta.core import Batch, Task
from jaxmeta.data import image_pairs
from jaxmeta.data.images.dataset import classes_of
from jaxmeta.learners.generative.vae import no_objective
from jaxmeta.models import conv4
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Tasks, Training, domain
from jaxmeta.recipes.frozen import frozen_network
from jaxmeta.recipes.generation_report import Judged
from jaxmeta.recipes.images import Images, data_identity
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count


@dataclass(frozen=True)
class Generation:
    """The batches and the networks."""

    batch_size: Count = 64
    """Pairs of images per batch, the two of a class."""
    width: Count = 32
    """Channels of the first convolution of each network."""
    pretrained: Annotated[str | None, AT_TEST, PLACE] = None
    """Run folder or name of a network trained on the training classes, in whose features the
    Fréchet distance is measured. Defaults to pixels."""
    generated_images: Annotated[Count, AT_TEST] = 1000
    """Generated images for the Fréchet distance."""


@domain("generate", kind="generation")
@dataclass(frozen=True)
class Generate(Domain):
    """Train a generator of images on the training classes, and judge it on the test classes."""

    images: Images = field(default_factory=Images)
    generation: Generation = field(default_factory=Generation)

    default_learner: ClassVar[str] = "vae"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 3000,
                "task_batch": 1,
                "eval_tasks": 200,
                "validation_tasks": 20,
                "checkpoint_every": 500,
                "chunk": 10,
            },
        ),
    )

    def label(self) -> str:
        return Path(self.images.dataset).name

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.images.evaluation_changes(changes)

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        size, width = self.generation.batch_size, self.generation.width
        batch = Batch(jnp.zeros((size, *data["image_shape"])), jnp.zeros((size,), jnp.int32))
        return Problem(
            kind="generation",
            train=train,
            example=Task(batch, batch),
            objective=no_objective,
            network=lambda constants, outputs: conv4(
                outputs, width=width, downsampling="stride", query_statistics="none"
            ),
            support=size,
            steps=training.steps,
            data={**data, "width": width},
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset, own = self.images.load(training.seed, seen=needs.seen), self.generation
        data = data_identity(dataset)
        frozen = frozen_network(own.pretrained, data["images_sha256"])
        judged = Judged(frozen, dataset.train, own.generated_images)

        def held_out(part: str) -> HeldOut:
            source = image_pairs(dataset.parts[part], own.batch_size)
            identity = {"images_sha256": data["images_sha256"], "batch_size": own.batch_size}
            return HeldOut(source, {**identity, "part": part}, at_once=1)

        return Tasks(
            train=lambda: image_pairs(dataset.train, own.batch_size),
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            keeps_last=True,
            title=f"{Path(self.images.dataset).name} · generator",
            summary={"dataset": self.images.dataset},
            protocol={**dataset.protocol, "width": own.width, "query_statistics": "none"},
            data=data,
            classes=functools.partial(classes_of, dataset),
            report=judged.results,
            draw=judged.draw,
            extra_lines=_lines,
        )


def _lines(results: Mapping[str, Any]) -> list[str]:
    found = results["frechet"]
    distances = ", ".join(
        f"{name} {value:.3g}" for name, value in found.items() if isinstance(value, float)
    )
    return [f"Fréchet distance to test images: {distances}"]
