"""BERT: a transformer that reads a whole sentence, in parts that can be frozen or adapted.

Parameters are nested dictionaries: `{"embeddings": ..., "layers": {"0": ..., "1": ...}}`, as
`jaxmeta.data.text.load_encoder` reads them, and `"head"` for a network with outputs.

- `embeddings` has `word`, `position` and `type`, each with an `embedding` `[rows, D]`, and `norm`;
- a layer has `query`, `key`, `value` and `mixed` for attention, `hidden` and `output` for the MLP,
  each with `kernel` `[in, out]` and `bias` `[out]`, and the layer norms `norm_0` and `norm_1`, each
  with `scale` and `bias` `[D]`.

Axes are N sentences, L tokens of a sentence, D width, H heads, K width of a head.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.models.adapters import from_linen
from jaxmeta.text import BertConfig, Tokens, check_config

Pooling = Literal["mean", "first", "none"]

_PLAIN = nn.initializers.normal(0.02)
_LOW_RANK = ("query", "value")  # the projections that `low_rank` updates


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=_PLAIN, name=name)


def _norm(config: BertConfig, name: str) -> nn.LayerNorm:
    # Flax's default variance, E[x²] − E[x]², loses precision by cancellation.
    return nn.LayerNorm(epsilon=config.epsilon, use_fast_variance=False, name=name)


def _activation(name: str, values: Array) -> Array:
    if name == "relu":
        return nn.relu(values)
    if name == "gelu":  # exact; erf is cheaper than the erfc of `nn.gelu`
        return 0.5 * values * (1 + jax.lax.erf(values * math.sqrt(0.5)))
    return nn.gelu(values, approximate=True)


class _Dropout(nn.Module):
    """Dropout that is off without a key."""

    rate: float

    @nn.compact
    def __call__(self, values: Array) -> Array:
        return nn.Dropout(self.rate)(values, deterministic=not self.has_rng("dropout"))


class _Embeddings(nn.Module):
    config: BertConfig
    dropout: float = 0.0

    @nn.compact
    def __call__(self, ids_NL: Array) -> Array:
        config = self.config

        def table(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, config.width, embedding_init=_PLAIN, name=name)

        word_NLD = table(config.vocabulary, "word")(ids_NL)
        position_LD = table(config.positions, "position").embedding[: ids_NL.shape[1]]
        first_D = table(config.types, "type").embedding[0]
        states_NLD = word_NLD + (position_LD + first_D[None])[None]
        return _Dropout(self.dropout)(_norm(config, "norm")(states_NLD))


class _Layer(nn.Module):
    """Attention among the tokens of each sentence, then an MLP, both added and then normalised."""

    config: BertConfig
    dropout: float = 0.0

    @nn.compact
    def __call__(self, states_NLD: Array, mask_NL: Array) -> Array:
        config = self.config
        mixed_NLD = _dense(config.width, "mixed")(self._attention(states_NLD, mask_NL))
        mixed_NLD = _Dropout(self.dropout)(mixed_NLD)
        states_NLD = _norm(config, "norm_0")(states_NLD + mixed_NLD)
        hidden = _activation(config.activation, _dense(config.hidden, "hidden")(states_NLD))
        output_NLD = _Dropout(self.dropout)(_dense(config.width, "output")(hidden))
        return _norm(config, "norm_1")(states_NLD + output_NLD)

    def _attention(self, states_NLD: Array, mask_NL: Array) -> Array:
        heads, width = self.config.heads, self.config.width
        split = (*states_NLD.shape[:2], heads, width // heads)
        # Heads before tokens, so that every product is one of plain matrices.
        query_NHLK, key_NHLK, value_NHLK = (
            _dense(width, name)(states_NLD).reshape(split).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores_NHLL = jnp.einsum("nhlk,nhmk->nhlm", query_NHLK, key_NHLK)
        # In float32 or wider, as every normalisation.
        scores_NHLL = scores_NHLL.astype(jnp.promote_types(scores_NHLL.dtype, jnp.float32))
        # The lowest number, not −inf: a sentence that is all padding keeps finite gradients.
        lowest = jnp.finfo(scores_NHLL.dtype).min
        scores_NHLL = jnp.where(
            mask_NL[:, None, None], scores_NHLL / math.sqrt(width // heads), lowest
        )
        weights_NHLL = jax.nn.softmax(scores_NHLL).astype(value_NHLK.dtype)
        weights_NHLL = _Dropout(self.dropout)(weights_NHLL)
        read_NHLK = jnp.einsum("nhlm,nhmk->nhlk", weights_NHLL, value_NHLK)
        return read_NHLK.swapaxes(1, 2).reshape(states_NLD.shape)


class _Layers(nn.Module):
    config: BertConfig
    names: tuple[str, ...]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, states_NLD: Array, mask_NL: Array) -> Array:
        for name in self.names:
            states_NLD = _Layer(self.config, self.dropout, name=name)(states_NLD, mask_NL)
        return states_NLD


class _Bert(nn.Module):
    config: BertConfig
    outputs: int | None
    pooling: Pooling
    dropout: float

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        config, mask_NL = self.config, tokens.mask
        _check_ids(config, tokens.ids)
        chex.assert_equal_shape([tokens.ids, mask_NL])
        states_NLD = _Embeddings(config, self.dropout, name="embeddings")(tokens.ids)
        names = tuple(map(str, range(config.layers)))
        states_NLD = _Layers(config, names, self.dropout, name="layers")(states_NLD, mask_NL)
        results = (
            states_NLD if self.pooling == "none" else pooled(states_NLD, mask_NL, self.pooling)
        )
        if self.outputs is None:
            return results
        return _dense(self.outputs, "head")(_Dropout(self.dropout)(results))


def _check_ids(config: BertConfig, ids_NL: Array) -> None:
    chex.assert_rank(ids_NL, 2)
    if ids_NL.shape[1] > config.positions:
        raise ValueError(
            f"bert: sentences of {ids_NL.shape[1]} tokens; this BERT reads at most "
            f"{config.positions}."
        )


def _apply(module: nn.Module, params: PyTree, key: Key | None, *inputs: Array) -> Any:
    rngs = {} if key is None else {"dropout": key}
    return module.apply({"params": params}, *inputs, rngs=rngs)


def bert_embeddings(
    config: BertConfig,
    embeddings: PyTree,
    ids_NL: Array,
    *,
    key: Key | None = None,
    dropout: float = 0.0,
) -> Array:
    """The states before the first layer, `[N, L, D]`.

        x = norm(word[id] + position[l] + type[0])

    Args:
      config: the sizes of the BERT.
      embeddings: the parameters, with `word`, `position`, `type` and `norm`.
      ids_NL: token numbers int32 `[N, L]`. A number outside the vocabulary gives NaN.
      key: for dropout. Defaults to none.
      dropout: the fraction of the results that is set to zero if there is a key.

    Raises:
      ValueError: more tokens than positions.

    Source: Devlin, Chang, Lee, Toutanova 2019, "BERT: pre-training of deep bidirectional
    transformers for language understanding", section 3.

    >>> import functools
    >>> config = BertConfig(vocabulary=9, width=4, layers=1, heads=2, hidden=8)
    >>> tokens = Tokens(jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]]))
    >>> params = jax.eval_shape(bert(config).init, jax.random.key(0), tokens)
    >>> read = functools.partial(bert_embeddings, config)
    >>> jax.eval_shape(read, params["embeddings"], tokens.ids).shape
    (1, 3, 4)
    """
    _check_ids(config, ids_NL)
    return _apply(_Embeddings(config, dropout), embeddings, key, ids_NL)


def bert_layers(
    config: BertConfig,
    layers: Mapping[str, PyTree],
    states_NLD: Array,
    mask_NL: Array,
    *,
    key: Key | None = None,
    dropout: float = 0.0,
) -> Array:
    """The states after some of the layers, `[N, L, D]`.

        x ← norm₀(x + mixed(attention(x))),  x ← norm₁(x + output(activation(hidden(x))))

    Attention reads valid tokens only: neither the number of padded tokens nor their contents
    change the states of the others. The states of padded tokens mean nothing.

    Args:
      config: the sizes of the BERT.
      layers: parameters of each layer by its number, such as `{"4": ..., "5": ...}`; they are
        applied in the order of their numbers.
      states_NLD: float `[N, L, D]`, from `bert_embeddings` or from the layers before.
      mask_NL: bool `[N, L]`, False for padding.
      key: for dropout. Defaults to none.
      dropout: the fraction of the attention, and of what is added, that is set to zero if there is
        a key.

    Source: Devlin et al. 2019, section 3; Vaswani et al. 2017, "Attention is all you need".

    >>> import functools
    >>> config = BertConfig(vocabulary=9, width=4, layers=2, heads=2, hidden=8)
    >>> tokens = Tokens(jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]]))
    >>> layers = jax.eval_shape(bert(config).init, jax.random.key(0), tokens)["layers"]
    >>> upper, apply = {"1": layers["1"]}, functools.partial(bert_layers, config)
    >>> jax.eval_shape(apply, upper, jnp.ones((1, 3, 4)), tokens.mask).shape
    (1, 3, 4)
    """
    chex.assert_rank([states_NLD, mask_NL], [3, 2])
    chex.assert_equal_shape_prefix([states_NLD, mask_NL], 2)
    names = tuple(sorted(layers, key=int))
    return _apply(_Layers(config, names, dropout), dict(layers), key, states_NLD, mask_NL)


def pooled(states_NLD: Array, mask_NL: Array, how: Literal["mean", "first"] = "mean") -> Array:
    """One vector per sentence, `[N, D]`: the mean of the valid tokens' states, or the first state.

    Zero for a sentence that is all padding, with the mean.

    Raises:
      ValueError: `how` is neither of the two.

    >>> states = jnp.array([[[1.0], [3.0], [9.0]]])
    >>> pooled(states, jnp.array([[True, True, False]])).tolist()
    [[2.0]]
    """
    if how not in ("mean", "first"):
        raise ValueError(f"pooled: unknown pooling {how!r}; give 'mean' or 'first'.")
    chex.assert_rank([states_NLD, mask_NL], [3, 2])
    if how == "first":
        return states_NLD[:, 0]
    wide = jnp.promote_types(states_NLD.dtype, jnp.float32)
    total_ND = jnp.where(mask_NL[..., None], states_NLD, 0).sum(axis=1, dtype=wide)
    count_N1 = jnp.maximum(mask_NL.sum(axis=1, keepdims=True), 1)
    return (total_ND / count_N1).astype(states_NLD.dtype)


def low_rank(key: Key, layers: Mapping[str, PyTree], rank: int) -> PyTree:
    """Low-rank updates of the query and value projections that change nothing yet.

        A ~ N(0, 1/D), [D, rank],  B = 0, [rank, D]

    Args:
      key: for A.
      layers: the layers to update, by number.
      rank: the rank of each update.

    Returns:
      `{"4": {"query": {"down": A, "up": B}, "value": ...}, ...}`, for `with_updates`.

    Raises:
      ValueError: a rank below 1.

    Source: Hu, Shen, Wallis et al. 2022, "LoRA: low-rank adaptation of large language models",
    section 4.1.

    >>> layers = {"5": {name: {"kernel": jnp.ones((4, 4))} for name in ("query", "value")}}
    >>> low_rank(jax.random.key(0), layers, 2)["5"]["query"]["down"].shape
    (4, 2)
    """
    if rank < 1:
        raise ValueError(f"low_rank: the rank is {rank}; give at least 1.")

    def factors(key: Key, kernel: Array) -> dict[str, Array]:
        rows, columns = kernel.shape
        down = jax.random.normal(key, (rows, rank), kernel.dtype) / math.sqrt(rows)
        return {"down": down, "up": jnp.zeros((rank, columns), kernel.dtype)}

    def of_layer(key: Key, layer: PyTree) -> PyTree:
        keys = jax.random.split(key, len(_LOW_RANK))
        return {name: factors(own, layer[name]["kernel"]) for name, own in zip(_LOW_RANK, keys)}

    return {
        name: of_layer(jax.random.fold_in(key, int(name)), layer) for name, layer in layers.items()
    }


def with_updates(layers: Mapping[str, PyTree], updates: PyTree, *, scale: float = 1.0) -> PyTree:
    """The layers with low-rank updates added to their projections.

        W ← W + scale · A B

    Args:
      layers: parameters of layers by number; those without updates are returned as they are.
      updates: from `low_rank`.
      scale: α / rank in the paper.

    Raises:
      ValueError: updates of a layer that is not among the layers.

    Source: Hu et al. 2022, equation 3.

    >>> layers = {"5": {"query": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}}
    >>> update = {"down": jnp.array([[1.0], [2.0]]), "up": jnp.array([[3.0, 4.0]])}
    >>> with_updates(layers, {"5": {"query": update}})["5"]["query"]["kernel"].tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    if unknown := sorted(set(updates) - set(layers)):
        raise ValueError(
            f"with_updates: updates of layer {', '.join(unknown)}, but the layers are "
            f"{', '.join(sorted(layers, key=int))}."
        )

    def updated(linear: PyTree, update: PyTree) -> PyTree:
        return {**linear, "kernel": linear["kernel"] + scale * update["down"] @ update["up"]}

    return {
        name: {
            **layer,
            **{own: updated(layer[own], update) for own, update in updates.get(name, {}).items()},
        }
        for name, layer in layers.items()
    }


def bert(
    config: BertConfig,
    outputs: int | None = None,
    *,
    weights: PyTree = None,
    pooling: Pooling = "mean",
    dropout: float = 0.0,
) -> Model:
    """A whole BERT; inputs are `Tokens`.

        y = W pooled(layers(embeddings(ids))) + b

    Args:
      config: the sizes, such as those of `load_encoder`.
      outputs: width of the last layer, whose parameters are named `head`. Defaults to no head:
        outputs are the pooled states `[N, D]`.
      weights: `{"embeddings": ..., "layers": ...}` that `init` returns, such as those of a trained
        encoder. Defaults to random ones.
      pooling: `mean` of the valid tokens, the `first` token, or `none`, for outputs of every token
        `[N, L, ...]`.
      dropout: the fraction set to zero if `apply` has a key.

    Raises:
      ValueError: sizes that no BERT has, an unknown pooling, a dropout outside [0, 1), or sentences
        of more tokens than positions.

    Source: Devlin et al. 2019; see `bert_layers`.

    >>> model = bert(BertConfig(vocabulary=9, width=4, layers=1, heads=2, hidden=8), 3)
    >>> tokens = Tokens(jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]]))
    >>> params = jax.jit(model.init)(jax.random.key(0), tokens)
    >>> jax.jit(model.apply)(params, tokens).shape
    (1, 3)
    """
    check_config(config)
    if pooling not in get_args(Pooling):
        raise ValueError(f"bert: unknown pooling {pooling!r}; give one of {get_args(Pooling)}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"bert: the dropout is {dropout}; give a fraction from 0 to below 1.")
    model = from_linen(_Bert(config, outputs, pooling, dropout))
    if weights is None:
        return model

    def init(key: Key, inputs: PyTree, /) -> PyTree:
        return {**model.init(key, inputs), **jax.tree.map(jnp.asarray, weights)}

    return Model(init, model.apply)
