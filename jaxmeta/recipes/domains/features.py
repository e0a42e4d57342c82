"""Few-shot classification of frozen features: `python -m experiments.features [LEARNER]`.

A frozen network, pre-trained on the training classes (the base classes), embeds every image once.
Learners train a linear head for each task, on the features of the support set and on generated
ones.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Task, cross_entropy
from jaxmeta.data import episodes
from jaxmeta.data.images.dataset import classes_of
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
from jaxmeta.recipes.frozen import drawn_views, features_of, frozen_network, padded_classes
from jaxmeta.recipes.images import Images, data_identity
from jaxmeta.recipes.settings import AT_TEST, PLACE, AtLeastTwo, Count, Natural
from jaxmeta.training.update import Trained


@dataclass(frozen=True)
class Network:
    """The frozen network, and the views of each image."""

    pretrained: Annotated[str | None, PLACE] = None
    """Run folder of a network trained on the training classes (`experiments.pretrain`, or a learner
    such as prototypical), or the name of a shipped one. Defaults to pixels as features."""
    views: Natural = 0
    """Random views of each test image, for --view-count."""
    generator: Annotated[str | None, PLACE] = None
    """Run folder of `experiments.generate` that draws the views. Defaults to distortions."""


@dataclass(frozen=True)
class Episode:
    """The tasks (episodes)."""

    ways: Annotated[AtLeastTwo, AT_TEST] = 5
    """Classes per test task."""
    shots: Annotated[Count, AT_TEST] = 1
    """Support examples per class of a test task."""
    also_shots: Annotated[tuple[Count, ...], AT_TEST] = (5,)
    """Other numbers of support examples per class, each for a test of its own."""
    queries: Annotated[Count, AT_TEST] = 15
    """Query examples per class."""
    train_ways: AtLeastTwo = 20
    """Classes per training task, at most all of them."""
    train_shots: Count = 5
    """Support and query examples per class of a training task."""


@domain("features", kind="features")
@dataclass(frozen=True)
class Features(Domain):
    """Classify frozen features from a few examples, and from imagined ones."""

    images: Images = field(default_factory=Images)
    network: Network = field(default_factory=Network)
    episode: Episode = field(default_factory=Episode)

    default_learner: ClassVar[str] = "distribution-calibration"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {"task_batch": 1, "checkpoint_every": 100, "validation_tasks": 200},
            wall_time="5 min on a CPU core, most of them for the features",
        ),
    )

    def label(self) -> str:
        return f"{Path(self.images.dataset).name}-{self.episode.ways}w"

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.images.evaluation_changes(changes)

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        size, episode = data["features"], self.episode
        ways = min(episode.train_ways, data["classes"]["train"]) if train else episode.ways
        rows = ways * episode.train_shots
        batch = Batch(jnp.zeros((rows, 1, 1, size)), jnp.zeros((rows,), jnp.int32))
        base = (data["classes"]["train"], data["base_examples"])
        shapes = (
            jax.ShapeDtypeStruct((*base, size), jnp.float32),
            jax.ShapeDtypeStruct(base, bool),
        )
        return Problem(
            kind="features",
            train=train,
            example=Task(batch, batch),
            objective=cross_entropy,
            network=lambda constants, outputs: on_features(),
            outputs=ways,
            ways=ways,
            trained_ways=ways,
            support=rows,
            steps=training.steps,
            data=data,
            calibration=shapes,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset = self.images.load(training.seed, seen=needs.seen)
        own, episode = self.network, self.episode
        identity = data_identity(dataset)
        frozen = frozen_network(own.pretrained, identity["images_sha256"])
        draw, drawn_by = drawn_views(own.generator, identity["images_sha256"])
        features, known = features_of(frozen, dataset, own.views, draw, drawn_by)
        base, mask = padded_classes(features["train"])
        data = {
            **identity,
            "features": base.shape[-1],
            "features_of": known,
            "base_examples": base.shape[1],
        }

        def source(part: str, shots: int) -> Any:
            return episodes(features[part], ways=episode.ways, shots=shots, queries=episode.queries)

        def train() -> Any:
            ways = min(episode.train_ways, len(features["train"].names))
            number = episode.train_shots
            return episodes(features["train"], ways=ways, shots=number, queries=number)

        def held_out(part: str, shots: int) -> HeldOut:
            # Without what draws the views, so that learners with and without them are compared.
            of_images = {"images_sha256": identity["images_sha256"], "network": frozen.name}
            sizes = {"ways": episode.ways, "shots": shots, "queries": episode.queries}
            test = {**of_images, **sizes, "part": part}
            return HeldOut(source(part, shots), test, judge=judge, at_once=10)

        shots = {"test": episode.shots}
        shots |= {f"{number}-shot": number for number in episode.also_shots}
        name = Path(self.images.dataset).name
        return Tasks(
            train=train,
            validation=lambda: held_out("validation", episode.shots),
            tests={name: held_out("test", number) for name, number in shots.items()},
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{name} · {episode.ways}-way · frozen features",
            summary={
                "dataset": self.images.dataset,
                "ways": episode.ways,
                "shots": episode.shots,
                "queries": episode.queries,
            },
            protocol={
                **dataset.protocol,
                "features_of": frozen.name,
                "features": base.shape[-1],
                "views": own.views,
                "views_by": drawn_by if own.views else "none",
                "query_statistics": "none",
            },
            data=data,
            classes=functools.partial(classes_of, dataset),
            calibration=lambda: (jnp.asarray(base), jnp.asarray(mask)),
        )


def judge(
    key: Key, learner: MetaLearner, trained: Trained, task: Task
) -> tuple[Array, Mapping[str, Array]]:
    """Cross-entropy and accuracy on the query set, whatever the learner is trained by."""
    adapted = learner.adapt(key, trained.meta_params, task.support)
    outputs = learner.predict(adapted, task.query.inputs)
    return cross_entropy(outputs, task.query.targets, task.query.mask)
