"""Features of words from a frozen encoder, the objective of their classes, and span F1."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Objective, PyTree, cross_entropy
from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.text import Encoder, Ragged
from jaxmeta.data.text.spans import span_counts, span_f1
from jaxmeta.models.bert import bert_embeddings, bert_layers
from jaxmeta.objectives import valid_mask
from jaxmeta.text import BertConfig

_AT_ONCE = 64  # sentences of one call of the encoder
_STEP = 8  # tokens by which the length of such a call grows


def word_features(
    encoder: Encoder, sentences: Sequence[Sequence[str]], length: int, *, layers: int
) -> Ragged:
    """The mean state of each word's tokens after some layers, float16, one word after another.

    Computed once and kept in the cache folder; the file depends on the encoder, the words and the
    settings. A word without a token, such as an invisible character, has the state 0.

    Args:
      encoder: the encoder; it reads all words of a sentence together.
      sentences: the words of each sentence.
      length: largest number of words that are kept of a sentence.
      layers: number of layers that are computed.
    """
    words = [[*own[:length]] for own in sentences]
    content = "\0".join([encoder.sha256, str(layers), *("\1".join(own) for own in words)])
    name = f"words-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    values = cached_arrays(name, lambda: {"values": _encoded(encoder, words, layers)})["values"]
    lengths = np.array([len(own) for own in words], np.int32)
    return Ragged(values, (np.cumsum(lengths) - lengths).astype(np.int32), lengths)


def _encoded(encoder: Encoder, sentences: list[list[str]], layers: int) -> np.ndarray:
    assert encoder.tokenise_words is not None
    ids_NL, mask_NL, words_NL = encoder.tokenise_words(sentences, encoder.config.positions)
    weights = jax.tree.map(jnp.asarray, encoder.weights)
    lower = {str(number): weights["layers"][str(number)] for number in range(layers)}
    starts = np.cumsum([0, *map(len, sentences)])
    sums = np.zeros((starts[-1], encoder.config.width), np.float32)
    pieces = np.zeros(starts[-1], np.int32)
    # Sentences of about the same length together, so that little padding is computed.
    order = np.argsort(mask_NL.sum(axis=1), kind="stable")
    for first in range(0, len(order), _AT_ONCE):
        rows = order[first : first + _AT_ONCE]
        longest = int(mask_NL[rows].sum(axis=1).max())
        cut = min(encoder.config.positions, -(-longest // _STEP) * _STEP)
        missing = ((0, _AT_ONCE - len(rows)), (0, 0))  # so that all batches have one shape
        ids, mask = (np.pad(array[rows, :cut], missing) for array in (ids_NL, mask_NL))
        states = np.asarray(_states(encoder.config, weights["embeddings"], lower, ids, mask))
        words = words_NL[rows, :cut]
        places = (starts[rows][:, None] + words)[words >= 0]
        np.add.at(sums, places, states[: len(rows)][words >= 0])
        np.add.at(pieces, places, 1)
    return (sums / np.maximum(pieces, 1)[:, None]).astype(np.float16)


@functools.partial(jax.jit, static_argnums=0)
def _states(config: BertConfig, embeddings: PyTree, layers: PyTree, ids: Any, mask: Any) -> Array:
    return bert_layers(config, layers, bert_embeddings(config, embeddings, ids), mask)


def entity_objective(length: int) -> Objective:
    """Cross-entropy over the words, with the span F1 of the entities as the metric `f1`.

    Outputs are logits `[sentences · length, classes]`, with the class 0 outside of entities, and
    targets int32 `[sentences · length]`, as in `word_episodes`; padding counts neither in the loss
    nor in the metrics. Words that are not whole sentences, such as those of an inner batch, have no
    `f1`.
    """

    def objective(
        outputs: PyTree, targets: PyTree, mask: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        loss, metrics = cross_entropy(outputs, targets, mask)
        if len(targets) % length:
            return loss, metrics
        rows = (-1, length)
        kept = valid_mask(mask, len(targets)).reshape(rows)
        found = span_counts(outputs.argmax(axis=-1).reshape(rows), targets.reshape(rows), kept)
        return loss, {**metrics, "f1": span_f1(found)}

    return objective
