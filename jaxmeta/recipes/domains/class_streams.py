"""Streams of classes: `python -m experiments.class_streams [LEARNER]`.

A learner sees the examples of one new class after another, each once, and then has to tell all of
them apart. Meta-training is on other classes. The rate of the online steps at test is chosen on
validation classes, for each length of the stream.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Task, cross_entropy
from jaxmeta.data import class_streams, episodes
from jaxmeta.data.images.dataset import classes_of
from jaxmeta.learners import online
from jaxmeta.models import on_features, strided_convolutions
from jaxmeta.models.layers import NormalisationKind
from jaxmeta.recipes import (
    ACCURACY,
    Domain,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    domain,
)
from jaxmeta.recipes.class_streams_report import (
    FrozenFeatures,
    compared,
    draw_accuracies,
    rate_chooser,
    rival_lines,
)
from jaxmeta.recipes.images import Images, data_identity
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count, Positive, option
from jaxmeta.training.feed import Source
from jaxmeta.training.update import Trained

_EACH_ALONE = ("layer", "group", "none")


@dataclass(frozen=True)
class Network:
    """The network."""

    strides: tuple[Count, ...] = (2, 2, 2, 1)
    """Strides of the convolutions."""
    width: Count = 32
    """Channels of each convolution."""
    query_statistics: NormalisationKind = "group"
    """Each example is normalised alone: layer, group or none."""

    def check(self) -> None:
        if self.query_statistics not in _EACH_ALONE:
            raise ValueError(
                f"{option('query_statistics', self.query_statistics)}: a stream has one example at "
                f"a time; choose from {', '.join(_EACH_ALONE)}."
            )

    def build(self, outputs: int | None) -> Model:
        return strided_convolutions(
            outputs,
            strides=self.strides,
            width=self.width,
            query_statistics=self.query_statistics,
        )


@dataclass(frozen=True)
class Stream:
    """The streams."""

    train_ways: AtLeastTwo = 3
    """Classes of a training stream."""
    train_shots: Count = 5
    """Examples of each class in a training stream."""
    train_queries: Count = 3
    """Other examples of each class of the stream in the meta-loss."""
    remembered: Count = 48
    """Examples of all training classes in the meta-loss."""
    lengths: Annotated[tuple[AtLeastTwo, ...], AT_TEST] = (10, 50, 100, 200)
    """Classes of the test streams, one test for each."""
    shots: Annotated[Count, AT_TEST] = 15
    """Examples of each class in a test stream."""
    queries: Annotated[Count, AT_TEST] = 5
    """Other examples of each class that are classified after the stream."""
    validation_length: AtLeastTwo = 50
    """Classes of the validation streams."""
    eval_rates: Annotated[tuple[Positive, ...], AT_TEST] = (0.001, 0.003, 0.01, 0.03, 0.1)
    """Rates of the online steps, of which validation chooses one for each test."""
    rate_streams: Annotated[Count, AT_TEST] = 3
    """Validation streams by which a rate is chosen."""
    replayed: Annotated[Count, AT_TEST] = 8
    """Earlier examples that replay repeats at each step."""

    def check(self) -> None:
        if not self.lengths or not self.eval_rates or len({*self.lengths}) < len(self.lengths):
            raise ValueError(
                f"{option('lengths', self.lengths)} {option('eval_rates', self.eval_rates)}: give "
                "at least one rate, and lengths that differ."
            )


@domain("class-streams", kind="class-stream")
@dataclass(frozen=True)
class ClassStreams(Domain):
    """Meta-train a learner to learn one class after another and evaluate it on new classes.

    The split of omniglot is background by default.
    """

    images: Images = field(default_factory=lambda: Images("omniglot"))
    stream: Stream = field(default_factory=Stream)
    image_network: Network = field(default_factory=Network)

    default_learner: ClassVar[str] = "oml"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 3000,
                "task_batch": 1,
                "outer_rate": 3e-3,
                "outer_schedule": "cosine",
                "checkpoint_every": 1000,
                "validation_tasks": 10,
                "eval_tasks": 20,
            },
        ),
        # The sizes of Javed, White 2019, for a GPU.
        Preset(
            "omniglot-published",
            {
                "image_size": 84,
                "strides": (2, 1, 2, 1, 2, 2),
                "width": 256,
                "query_statistics": "none",
                "steps": 700_000,
                "task_batch": 1,
                "outer_rate": 1e-4,
                "checkpoint_every": 10_000,
                "validation_tasks": 10,
                "eval_tasks": 50,
            },
        ),
    )

    def resolved(self) -> "ClassStreams":
        if (self.images.dataset, self.images.split) != ("omniglot", None):
            return self
        return dataclasses.replace(
            self, images=dataclasses.replace(self.images, split="background")
        )

    def label(self) -> str:
        return Path(self.images.dataset).name

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.images.evaluation_changes(changes)

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        own, classes = self.stream, data["classes"]["train"]

        def batch(rows: int) -> Batch:
            images = jnp.zeros((rows, *data["image_shape"]))
            return Batch(images, jnp.zeros((rows,), jnp.int32))

        return Problem(
            kind="class-stream",
            train=train,
            example=Task(
                batch(own.train_ways * own.train_shots),
                batch(own.train_ways * own.train_queries + own.remembered),
            ),
            objective=cross_entropy,
            network=lambda constants, outputs: self.image_network.build(outputs),
            outputs=classes,
            ways=classes if train else own.lengths[0],
            trained_ways=classes,
            support=own.train_ways * own.train_shots,
            steps=training.steps,
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        own, network = self.stream, self.image_network
        dataset = self.images.load(training.seed, seen=needs.seen)
        data = data_identity(dataset)
        of_test = self.problem(training, needs, data, train=False)
        examples = {"shots": own.shots, "queries": own.queries, "rotations": "none"}

        frozen = FrozenFeatures(dataset.parts)

        @functools.cache  # so that all validations use the same compiled programs
        def encoder_of(recipe: Any) -> Model:
            return recipe.encoder(of_test)

        @functools.cache
        def chooser(recipe: Any, ways: int) -> Any:
            learner = recipe.at_test(of_test._replace(ways=ways))
            return rate_chooser(recipe, learner, own.eval_rates, own.rate_streams)

        def streams(part: str, ways: int, recipe: Any, trained: Trained) -> tuple[Source, int]:
            """The streams of a part, of features if the recipe's are frozen, and their ways."""
            classes = dataset.parts[part]
            if recipe.freezes_features:
                classes = frozen.of(part, encoder_of(recipe), trained)
            ways = min(ways, len(classes.names))
            return episodes(classes, ways=ways, **examples), ways

        def held_out(part: str, ways: int) -> HeldOut:
            on_frozen = online(on_features(), cross_entropy, of_test.trained_ways, ways=ways)
            key = jax.random.fold_in(jax.random.key(training.seed), ways)

            def prepare(recipe: Any, trained: Trained) -> tuple[Source, Trained]:
                given = recipe.for_test(trained)
                validation, chosen_ways = streams("validation", ways, recipe, trained)
                rate = chooser(recipe, chosen_ways)(given, validation, key)
                return streams(part, ways, recipe, trained)[0], recipe.at_rate(given, rate)

            def judge(
                key: Key, learner: MetaLearner, trained: Trained, task: Task
            ) -> tuple[Array, Mapping[str, Array]]:
                """The loss after the stream; if the features are frozen, of a head on these."""
                given = trained.meta_params
                learner = learner if jax.tree.leaves(given.encoder) else on_frozen
                loss, info = learner.loss(key, given, task)
                return loss, {**info.metrics, "rate": given.rate}

            # Built from images only to raise errors about the classes early.
            source = episodes(dataset.parts[part], ways=ways, **examples)
            identity = {"images_sha256": data["images_sha256"], "part": part, "ways": ways}
            problem = of_test._replace(ways=ways)
            return HeldOut(
                source, {**identity, **examples}, problem, judge=judge, prepare=prepare, at_once=1
            )

        tests = {f"{ways} classes": held_out("test", ways) for ways in own.lengths}
        lengths = dict(zip(tests, own.lengths, strict=True))

        def report(made: Report) -> dict[str, Any]:
            return compared(
                made,
                lambda part, test: streams(part, lengths[test], made.recipe, made.trained),
                own.eval_rates,
                own.rate_streams,
                own.replayed,
            )

        return Tasks(
            train=lambda: class_streams(
                dataset.train,
                ways=own.train_ways,
                shots=own.train_shots,
                queries=own.train_queries,
                remembered=own.remembered,
            ),
            validation=lambda: held_out("validation", own.validation_length),
            tests=tests,
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{self.label()} · streams of classes",
            summary={"dataset": self.images.dataset, "lengths": list(own.lengths)},
            protocol={
                **dataset.protocol,
                **dataclasses.asdict(own),
                "network": f"convolutions of strides {' '.join(map(str, network.strides))}, "
                f"width {network.width}",
                "query_statistics": network.query_statistics,
                "order": "class by class, each example once",
                "rate_chosen_on": f"{own.rate_streams} validation streams of each length",
            },
            data=data,
            classes=functools.partial(classes_of, dataset),
            report=report,
            draw=draw_accuracies,
            extra_lines=rival_lines,
        )
