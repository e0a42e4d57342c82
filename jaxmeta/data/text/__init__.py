"""Labelled sentences, few-shot tasks drawn from them, and trained encoders."""

import difflib
import os

from jaxmeta.data.text._corpus import (
    Corpus,
    corpus,
    read_corpus,
    read_sentences,
    text_classes,
    unseen_text,
)
from jaxmeta.data.text._intents import INTENTS, SPLITS, intents
from jaxmeta.data.text.arsc import Arsc, Reviews, ReviewTask, load_arsc
from jaxmeta.data.text.conll import Tagged, read_conll
from jaxmeta.data.text.encoder import Encoder, load_encoder
from jaxmeta.data.text.entities import Entities, EntityPart, load_entities, word_episodes
from jaxmeta.data.text.episodes import Padded, Ragged, ragged, sentence_episodes, taken
from jaxmeta.data.text.reviews import (
    FixedTask,
    ReviewPools,
    Sentiment,
    load_sentiment,
    review_episodes,
    review_stream,
)
from jaxmeta.data.text.spans import span_counts, span_f1
from jaxmeta.text import BertConfig, Tokens

__all__ = [
    "INTENTS",
    "SPLITS",
    "Arsc",
    "BertConfig",
    "Corpus",
    "Encoder",
    "Entities",
    "EntityPart",
    "FixedTask",
    "Padded",
    "Ragged",
    "ReviewPools",
    "ReviewTask",
    "Reviews",
    "Sentiment",
    "Tagged",
    "Tokens",
    "corpus",
    "intents",
    "load_arsc",
    "load_encoder",
    "load_entities",
    "load_sentiment",
    "load_text",
    "ragged",
    "read_conll",
    "read_corpus",
    "read_sentences",
    "review_episodes",
    "review_stream",
    "sentence_episodes",
    "span_counts",
    "span_f1",
    "taken",
    "text_classes",
    "unseen_text",
    "word_episodes",
]


def load_text(name: str | os.PathLike[str], *, split: str | None = None, seed: int = 0) -> Corpus:
    """Loads labelled sentences, ready for `sentence_episodes`.

    Args:
      name: `banking77`, `hwu64` or `clinc150`, see `intents`; or the path of a TSV or CSV file of
        labels and sentences, see `read_corpus`, which a `Path` always is.
      split: 1 to 5 for the named sets; numbers of training, validation and test classes, such as
        `40/10/14`, for a file.
      seed: of the random split of a file.

    Raises:
      ValueError: an unknown name, an unknown split, or damaged data.
      OSError: files are missing, or can't be read.

    >>> load_text("banking78")
    Traceback (most recent call last):
    ...
    ValueError: unknown dataset 'banking78': no file, nor a set of jaxmeta; nearest: banking77
    """
    if not isinstance(name, os.PathLike) and name in INTENTS:
        return intents(name, split=split)
    path = os.path.expanduser(name)
    if os.path.exists(path) or not isinstance(name, str) or os.sep in name:
        return read_corpus(path, split=split, seed=seed)
    near = difflib.get_close_matches(name, INTENTS) or sorted(INTENTS)
    raise ValueError(
        f"unknown dataset {name!r}: no file, nor a set of jaxmeta; nearest: {', '.join(near)}"
    )
