"""Few-shot classification of sentences: `python -m experiments.text [LEARNER]`.

Sentences are read by a BERT, of which the learner adapts the last parts; what lies below is frozen
and computed once for each sentence.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from jaxmeta.core import PyTree
from jaxmeta.data import numbered
from jaxmeta.data.text import Corpus, sentence_episodes, text_classes
from jaxmeta.data.transformed import in_random_order
from jaxmeta.models import on_features
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
    UserTask,
    domain,
)
from jaxmeta.recipes.sentence_baselines import compared, lines_of
from jaxmeta.recipes.sentences import (
    SentenceNetwork,
    Sentences,
    learned_embeddings,
    user_sentences,
)
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count
from jaxmeta.text import BertConfig
from jaxmeta.training.update import Trained


@dataclass(frozen=True)
class Episode:
    """The tasks (episodes)."""

    ways: Annotated[AtLeastTwo, AT_TEST] = 5
    """Classes per test task."""
    shots: Annotated[Count, AT_TEST] = 1
    """Support examples per class of a test task."""
    also_shots: Annotated[tuple[Count, ...], AT_TEST] = ()
    """Other numbers of support examples per class, each for a test of its own."""
    queries: Annotated[Count, AT_TEST] = 5
    """Query examples per class."""
    train_ways: AtLeastTwo | None = None
    """Classes per training task. Defaults to the test value."""
    train_shots: Count | None = None
    """Support examples per class of a training task. Defaults to the test value."""
    shuffle_labels: Annotated[bool, AT_TEST] = False
    """A control: shuffle the labels of every task, so that accuracy is at chance."""

    def sizes(self, train: bool) -> dict[str, int]:
        """Ways, shots and queries of a training or a test task."""
        ways = self.train_ways if train and self.train_ways else self.ways
        shots = self.train_shots if train and self.train_shots else self.shots
        return {"ways": ways, "shots": shots, "queries": self.queries}


@domain("text", kind="classification")
@dataclass(frozen=True)
class Text(Domain):
    """Meta-train a few-shot classifier of sentences and evaluate it on unseen classes."""

    sentences: Sentences = field(default_factory=Sentences)
    episode: Episode = field(default_factory=Episode)
    network: SentenceNetwork = field(default_factory=SentenceNetwork)

    default_learner: ClassVar[str] = "prototypical"
    presets: ClassVar[tuple[Preset, ...]] = (
        # The tasks of Dopierre et al. 2021: 600 test tasks with five queries per class. Few steps
        # at small rates: there are few training classes, and the encoder knows much already.
        Preset(
            "default",
            {
                "steps": 200,
                "task_batch": 4,
                "outer_rate": 1e-4,
                "outer_schedule": "cosine",
                "also_shots": (5,),
                "eval_tasks": 600,
                "validation_tasks": 200,
                "checkpoint_every": 50,
            },
            wall_time="3 min on 2 CPU cores, most of them for the embeddings",
        ),
        # The last two layers of the encoder are learned, too.
        Preset(
            "layers",
            {
                "adapts": "layers",
                "steps": 100,
                "task_batch": 1,
                "outer_rate": 5e-5,
                "outer_schedule": "cosine",
                "also_shots": (5,),
                "eval_tasks": 600,
                "validation_tasks": 100,
                "checkpoint_every": 50,
                "chunk": 10,
            },
            wall_time="5 min on a CPU core",
        ),
    )

    def resolved(self) -> "Text":
        sizes = self.episode.sizes(True)
        own = dataclasses.replace(
            self.episode, train_ways=sizes["ways"], train_shots=sizes["shots"]
        )
        return dataclasses.replace(self, episode=own)

    def label(self) -> str:
        episode, name = self.episode, Path(self.sentences.dataset).stem
        split = f"-{self.sentences.split}" if self.sentences.split else ""
        return f"{name}{split}-{episode.ways}w{episode.shots}s".replace("/", "-")

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.sentences.evaluation_changes(changes)

    def constants(self, data: Mapping[str, Any]) -> PyTree:
        return self.network.constants(self.sentences)

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        sizes = self.episode.sizes(train)
        network = self.network
        if needs.embeds and not train:  # it is tested on embeddings, which are computed once
            network = dataclasses.replace(network, dropout=0.0)
        problem = network.problem(
            data, self.sentences.tokens, self.episode.sizes(True), train=train
        )
        return problem._replace(
            ways=sizes["ways"], support=sizes["ways"] * sizes["shots"], steps=training.steps
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        if needs.folded:
            raise ValueError(
                "this learner adapts a pre-trained network of images and does not support "
                "sentences; choose another one."
            )
        given = self.sentences.load(training.seed, needs.seen)
        encoder = self.sentences.loaded_encoder()
        tokens = self.sentences.tokens
        features = self.network.features(encoder, given.sentences, tokens)
        data = {
            "sentences_sha256": given.protocol["sentences_sha256"],
            "classes": given.protocol["classes"],
            "encoder": encoder.config._asdict(),
            "encoder_sha256": encoder.sha256,
        }
        identity = {
            "sentences_sha256": data["sentences_sha256"],
            **self.episode.sizes(False),
            "shuffle_labels": self.episode.shuffle_labels,
            "in_order": needs.in_order,
        }

        def source(inputs: Any, part: str, shots: int) -> Any:
            rows = given.parts[part]
            sample = sentence_episodes(
                inputs,
                given.starts[rows],
                given.counts[rows],
                **{**self.episode.sizes(part == "train"), "shots": shots},
                length=tokens,
                shuffle_labels=self.episode.shuffle_labels,
            )
            if needs.numbered and part == "train":
                return numbered(sample, needs.numbered)
            return in_random_order(sample) if needs.in_order else sample

        of_test = self.problem(training, needs, data, train=False)
        embed = self._embedded(encoder.config, data, given, features.inputs)

        def held_out(part: str, shots: int) -> HeldOut:
            problem = of_test._replace(support=self.episode.ways * shots)
            own = {**identity, "part": part, "shots": shots}
            test = HeldOut(source(features.inputs, part, shots), own, problem, trajectory_tasks=20)
            if not (needs.embeds and self.network.reads_weights):
                return test

            def prepare(recipe: Any, trained: Trained) -> tuple[Any, Trained]:
                embeddings, rest = embed(recipe, trained, part)
                return source(embeddings, part, shots), rest

            # The network embeds each sentence once, not once for each task.
            problem = problem._replace(network=lambda constants, outputs: on_features())
            return test._replace(problem=problem, prepare=prepare, at_once=100)

        shots = {"test": self.episode.shots}
        shots |= {f"{number}-shot": number for number in self.episode.also_shots}

        def report(made: Report) -> dict[str, Any]:
            frozen = {
                name: source(features.embeddings, "test", number) for name, number in shots.items()
            }
            return compared(made, frozen, self.episode.ways)

        sizes = self.episode.sizes(False)
        name = Path(self.sentences.dataset).stem
        return Tasks(
            train=lambda: source(features.inputs, "train", self.episode.sizes(True)["shots"]),
            validation=lambda: held_out("validation", self.episode.shots),
            tests={name: held_out("test", number) for name, number in shots.items()},
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{name} · {sizes['ways']}-way"
            + ("" if self.episode.also_shots else f" {sizes['shots']}-shot"),
            summary={"dataset": self.sentences.dataset, **sizes},
            protocol={
                "train_episode": self.episode.sizes(True),
                **given.protocol,
                "licence": given.licence,
                "encoder": encoder.name,
                "encoder_sha256": encoder.sha256,
                "tokens": tokens,
                "adapts": self.network.described(encoder.config),
                "query_statistics": "none",
                "transductive": False,
                "shuffled_labels": self.episode.shuffle_labels,
            },
            data=data,
            classes=partial(text_classes, given),
            report=report,
            extra_lines=lines_of,
        )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read labelled sentences from a table, and query sentences, one per line."""
        return user_sentences(self.sentences, self.network, support, query)

    def for_user_task(self, given: UserTask) -> "Text":
        episode = dataclasses.replace(self.episode, ways=len(given.names))
        return dataclasses.replace(self, episode=episode)

    def _embedded(
        self, config: BertConfig, data: Mapping[str, Any], given: Corpus, inputs: Any
    ) -> Callable[[Any, Trained, str], tuple[np.ndarray, Trained]]:
        """`embed(recipe, trained, part)`: the embeddings of the sentences of a part by a trained
        encoder, and the trained parameters without those of the encoder."""
        last: list[Any] = []  # tests with other shots share the embeddings

        def embed(recipe: Any, trained: Trained, part: str) -> tuple[np.ndarray, Trained]:
            params = trained.meta_params
            if not (last and last[0] is trained and last[1] == part):
                rows = given.rows(part)
                found = learned_embeddings(
                    self.network,
                    config,
                    self.constants(data),
                    recipe.encoder_params(params),
                    inputs,
                    rows,
                )
                last[:] = [trained, part, found]
            rest = recipe.with_encoder(params, lambda own: ())
            return last[2], trained._replace(meta_params=rest)

        return embed
