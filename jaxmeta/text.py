"""The vocabulary of text: tokens with a mask, and the sizes of a BERT."""

from typing import Any, NamedTuple

from jaxmeta.core import Array


class Tokens(NamedTuple):
    """Sentences as token numbers, padded to one length; the leading axis is the example axis.

    Attributes:
      ids: int32 `[sentences, length]`, numbers of the tokens in the vocabulary.
      mask: bool `[sentences, length]`, False for padding.
    """

    ids: Array
    mask: Array


class BertConfig(NamedTuple):
    """The sizes of a BERT, as in its `config.json`.

    Attributes:
      vocabulary: number of tokens, `vocab_size`.
      width: D, the size of a token's state, `hidden_size`.
      layers: number of layers, `num_hidden_layers`.
      heads: heads of the attention, `num_attention_heads`; the width is a multiple of them.
      hidden: width of the hidden layer of each MLP, `intermediate_size`.
      activation: of the hidden layers, `hidden_act`: `gelu` (exact), `gelu_new` or
        `gelu_pytorch_tanh` (both approximated by tanh), or `relu`.
      epsilon: added to the variance of layer norms, `layer_norm_eps`.
      positions: largest number of tokens of a sentence, `max_position_embeddings`.
      types: kinds of sentences, `type_vocab_size`; all tokens are of the first kind.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    activation: str = "gelu"
    epsilon: float = 1e-12
    positions: int = 512
    types: int = 2


ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
"""The activations that a `BertConfig` may name."""


def check_config(config: BertConfig) -> BertConfig:
    """The config, if a BERT of these sizes exists.

    Raises:
      ValueError: a size below 1, a width that is not a multiple of the heads, an epsilon that is
        not positive, or an unknown activation.

    >>> check_config(BertConfig(vocabulary=9, width=8, layers=1, heads=3, hidden=8))
    Traceback (most recent call last):
    ...
    ValueError: a BERT with a width of 8 and 3 heads; the width must be a multiple of the heads.
    """
    sizes: dict[str, Any] = config._asdict()
    for name in ("vocabulary", "width", "layers", "heads", "hidden", "positions", "types"):
        if type(sizes[name]) is not int or sizes[name] < 1:
            raise ValueError(
                f"a BERT with {name} = {sizes[name]!r}; give an integer of at least 1."
            )
    if config.width % config.heads:
        raise ValueError(
            f"a BERT with a width of {config.width} and {config.heads} heads; the width must be a "
            "multiple of the heads."
        )
    if not config.epsilon > 0:
        raise ValueError(f"a BERT with epsilon = {config.epsilon}; give a positive number.")
    if config.activation not in ACTIVATIONS:
        raise ValueError(
            f"a BERT with the activation {config.activation!r}; known are {', '.join(ACTIVATIONS)}."
        )
    return config
