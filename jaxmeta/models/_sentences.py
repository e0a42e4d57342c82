"""Networks of sentences: the parts of a pre-trained BERT that are learned, and a classifier."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.models.bert import (
    bert_embeddings,
    bert_layers,
    low_rank,
    pooled,
    with_updates,
)
from jaxmeta.text import BertConfig

Adapts = Literal["head", "layers", "all"]
_NORM = 6.0


def sentence_network(
    config: BertConfig,
    pretrained: PyTree,
    outputs: int | None = None,
    *,
    adapts: Adapts = "head",
    pooling: Literal["mean", "first"] = "mean",
    rank: int | None = None,
    dropout: float = 0.0,
) -> Model:
    """A network of sentences that starts from pre-trained weights and learns a part of them.

        z = 6 e / ‖e‖,  e = pool(BERT(x)),   y = W z + b

    With `adapts="head"`, e is the input, and z = 6 P e / ‖e‖ + p with a learned map P, which starts
    as the identity. Without `outputs`, the network returns z.

    Args:
      config: the sizes of the encoder.
      pretrained: the weights to start from, `{"layers": ...}`, and `"embeddings"` with
        `adapts="all"`; see `bert_layers`. Not read with `adapts="head"`.
      outputs: number of classes, of the layer `head`. Defaults to no head.
      adapts: which parameters the network has, and its inputs:
        `head`: P and the head; inputs are embeddings `[N, D]` of a frozen encoder;
        `layers`: the given layers, too; inputs are the states before the first of them and their
        mask, `([N, L, D], bool [N, L])`;
        `all`: all weights; inputs are token ids and their mask, `(int32 [N, L], bool [N, L])`.
      pooling: `mean` over the valid tokens, or the `first` token.
      rank: learn updates of this rank to the query and value projections of the layers, and keep
        the weights themselves. Defaults to learning the weights.
      dropout: rate in the learned layers, where a key is given.

    Padded tokens affect no output. The parameters are `{"layers", "embeddings", "head"}`, or
    `{"projection", "head"}` with `adapts="head"`.

    Raises:
      ValueError: a rank with `adapts="head"`, or below 1.

    Source: Devlin et al. 2019, "BERT"; Hu et al. 2022, "LoRA", section 4 (updates of low rank).

    >>> config = BertConfig(vocabulary=50, width=8, layers=1, heads=2, hidden=16)
    >>> model = sentence_network(config, {}, 5)
    >>> params = model.init(jax.random.key(0), jnp.ones((2, 8)))
    >>> model.apply(params, jnp.ones((3, 8))).shape
    (3, 5)
    """
    if rank is not None and (rank < 1 or adapts == "head"):
        raise ValueError(
            f"sentence_network: rank {rank} with adapts {adapts!r}; give a rank of 1 or more, with "
            "adapts 'layers' or 'all'"
        )

    def init(key: Key, inputs: PyTree) -> PyTree:
        head_key, key = jax.random.split(key)
        width = config.width
        params: dict[str, Any] = {}
        if adapts == "head":
            params["projection"] = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
        elif rank is None:
            params.update(jax.tree.map(jnp.asarray, pretrained))
        else:
            params["layers"] = low_rank(key, pretrained["layers"], rank)
        if outputs is not None:
            kernel = jax.nn.initializers.lecun_normal()(head_key, (width, outputs))
            params["head"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
        return params

    def embed(params: PyTree, inputs: PyTree, key: Key | None) -> Array:
        if adapts == "head":
            return _dense(params["projection"], _scaled(inputs))
        states, mask = inputs
        layers = params["layers"]
        if rank is not None:
            layers = with_updates(pretrained["layers"], layers)
        if adapts == "all":
            weights = params if rank is None else pretrained
            states = bert_embeddings(config, weights["embeddings"], states)
        states = bert_layers(config, layers, states, mask, key=key, dropout=dropout)
        return _scaled(pooled(states, mask, pooling))

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        z = embed(params, inputs, key)
        return z if outputs is None else _dense(params["head"], z)

    return Model(init, apply)


def _dense(params: PyTree, inputs: Array) -> Array:
    return inputs @ params["kernel"] + params["bias"][None]


def _scaled(embeddings: Array) -> Array:
    """Embeddings of one norm, so that squared distances are logits of a useful size."""
    square = jnp.square(embeddings).sum(axis=-1, keepdims=True)
    return _NORM * embeddings * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
