"""Prior-fitted networks: a transformer that reads a table and predicts its other rows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Batch, Key, MetaLearner, Objective, PyTree, Task, cross_entropy
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process.transformer import layer_norm
from jaxmeta.objectives import class_indices, or_nan, valid_mask

_LARGEST = 8.0  # standardised values beyond it are cut
_FREQUENCIES = 4  # of the waves that a rank is read by: 1, 2, 4 and 8 in all of a column
_ABSENT = -1e9  # logit of a class that can't be


class ReadTable(NamedTuple):
    """The adapted state of a prior-fitted network: the support rows as each layer sees them.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      centre, scale: float `[C]`, the mean and standard deviation of each column.
      ordered: float `[S, C]`, each column's known values in ascending order, then infinity.
      known: bool `[C]`, the columns that have different values in the support rows.
      valid: bool `[S]`, which support rows are no padding.
      present: bool `[classes]`, the classes of the support rows.
      keys, values: float `[layers, S, C + 1, E]`, what query rows attend to; the last column is
        that of the targets.
    """

    meta_params: PyTree
    centre: Array
    scale: Array
    ordered: Array
    known: Array
    valid: Array
    present: Array
    keys: Array
    values: Array


def prior_fitted(
    *,
    classes: int = 10,
    width: int = 96,
    layers: int = 3,
    heads: int = 4,
    only_seen_classes: bool = False,
    objective: Objective = cross_entropy,
) -> MetaLearner:
    """A prior-fitted network: Bayesian prediction learned from tables that a prior draws.

        min over θ of E over tables [−log q_θ(y | x, support)]

    whose minimum is the posterior predictive distribution of the prior. Each cell of the table is a
    token; the targets are one more column, unknown in query rows. A layer is

        attention among the columns of a row;
        attention of each column's cells to those of the support rows;  an MLP,

    each with a residual branch. The prediction is read from the target's token. Query rows don't
    attend to each other. The orders of rows and of columns do not matter.

    Args:
      classes: largest number of classes; the outputs are logits `[Q, classes]`.
      width: E, the width of a token, a multiple of the heads.
      layers, heads: sizes of the transformer.
      only_seen_classes: give a class without a support row the probability 0, where a query has
        none of them.
      objective: an objective of the logits.

    Shapes: inputs float `[N, C]` with any number of columns, targets int32 `[N]`. NaN is a missing
    value; a column that is missing or constant in all support rows is not used, so that tables of
    fewer columns may be filled with NaN. Columns are standardised by the support rows alone.

    Raises:
      ValueError: a size below 1, a width that is not a multiple of the heads; a target that is no
        class. A traced target that is no class makes the predictions NaN.

    Source: Müller et al. 2022, "Transformers can do Bayesian inference", section 3; Hollmann et al.
    2025, "Accurate predictions on small data with a tabular foundation model" (attention of cells).

    >>> learner = prior_fitted(classes=3, width=8, layers=1, heads=2)
    >>> rows = Batch(jnp.arange(10.0).reshape(5, 2), jnp.array([0, 1, 2, 0, 1]))
    >>> params = jax.jit(learner.init)(jax.random.key(0), Task(rows, rows))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, rows)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((4, 2))).shape
    (4, 3)
    """
    if min(classes, width, layers, heads) < 1 or width % heads:
        raise ValueError(
            f"prior_fitted: {classes} classes, width {width}, {layers} layers, {heads} heads; give "
            "at least 1 each, and a width that is a multiple of the heads."
        )
    network = _Network(classes, width, layers, heads, only_seen_classes)

    def read(params: PyTree, *arguments: Any, method: Any) -> Any:
        return network.apply({"params": params}, *arguments, method=method)

    def init(key: Key, task: Task) -> PyTree:
        inputs, targets, mask = task.support
        return network.init(key, inputs, targets, mask)["params"]

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> ReadTable:
        inputs, targets, mask = support
        is_class_S = class_indices("prior_fitted", targets, classes, mask)
        known = read(meta_params, inputs, targets, mask, method=_Network.support)
        table = ReadTable(meta_params, *known)
        return table._replace(centre=or_nan(table.centre, is_class_S.all()))

    def predict(adapted: ReadTable, inputs: Array, *, key: Key | None = None) -> Array:
        return read(adapted.meta_params, inputs, adapted, method=_Network.query)

    return plain_learner(init, adapt, predict, objective)


class _Network(nn.Module):
    classes: int
    width: int
    layers: int
    heads: int
    only_seen: bool

    def setup(self) -> None:
        self.cell = nn.Dense(self.width)
        self.label = nn.Embed(self.classes, self.width)
        self.unknown = self.param("unknown", nn.initializers.normal(1.0), (self.width,))
        self.blocks = [_Block(self.width, self.heads) for _ in range(self.layers)]
        self.norm = layer_norm()
        self.hidden = nn.Dense(2 * self.width)
        self.head = nn.Dense(self.classes)

    def __call__(self, inputs: Array, targets: Array, mask: Array | None) -> Array:
        known = self.support(inputs, targets, mask)
        return self.query(inputs, ReadTable((), *known))

    def support(self, inputs_SC: Array, targets_S: Array, mask: Array | None) -> tuple[Any, ...]:
        """The fields of `ReadTable` after the first."""
        valid_S = valid_mask(mask, inputs_SC.shape[0])
        shown_SC = valid_S[:, None] & ~jnp.isnan(inputs_SC)
        counts_C = jnp.maximum(shown_SC.sum(axis=0), 1)
        least_C = jnp.where(shown_SC, inputs_SC, jnp.inf).min(axis=0)
        most_C = jnp.where(shown_SC, inputs_SC, -jnp.inf).max(axis=0)
        # Above the least value, so that a large offset costs no digits.
        origin_C = jnp.where(jnp.isfinite(least_C), least_C, 0)
        values_SC = jnp.where(shown_SC, inputs_SC - origin_C[None], 0)
        mean_C = values_SC.sum(axis=0) / counts_C
        squares_SC = jnp.where(shown_SC, (values_SC - mean_C[None]) ** 2, 0)
        variance_C = squares_SC.sum(axis=0) / counts_C
        known_C = (most_C > least_C) & (variance_C > 0)  # the square of a tiny spread is 0
        centre_C = origin_C + mean_C
        scale_C = jnp.sqrt(jnp.where(known_C, variance_C, 1))
        columns = centre_C, scale_C, sorted_columns(inputs_SC, valid_S)
        tokens = self._tokens(inputs_SC, *columns, self.label(targets_S))
        keys, values = [], []
        for block in self.blocks:
            tokens = block.columns(tokens, known_C)
            seen = block.seen(tokens)
            keys.append(seen[0])
            values.append(seen[1])
            tokens = block.rows(tokens, *seen, valid_S)
        counts_W = jnp.zeros(self.classes, jnp.int32).at[targets_S].add(valid_S.astype(jnp.int32))
        memory = jnp.stack(keys), jnp.stack(values)
        return *columns, known_C, valid_S, counts_W > 0, *memory

    def query(self, inputs_QC: Array, table: ReadTable) -> Array:
        """The logits of query rows."""
        unknown_QE = jnp.broadcast_to(self.unknown, (inputs_QC.shape[0], self.width))
        tokens = self._tokens(inputs_QC, table.centre, table.scale, table.ordered, unknown_QE)
        for layer, block in enumerate(self.blocks):
            tokens = block.columns(tokens, table.known)
            tokens = block.rows(tokens, table.keys[layer], table.values[layer], table.valid)
        logits = self.head(nn.relu(self.hidden(self.norm(tokens[:, -1]))))
        return jnp.where(table.present[None], logits, _ABSENT) if self.only_seen else logits

    def _tokens(
        self, inputs_NC: Array, centre_C: Array, scale_C: Array, ordered_SC: Array, label_NE: Array
    ) -> Array:
        """A token for each cell, of its standardised value and its rank, and one for the label."""
        missing_NC = jnp.isnan(inputs_NC)
        values_NC = (jnp.where(missing_NC, 0, inputs_NC) - centre_C[None]) / scale_C[None]
        values_NC = jnp.where(missing_NC, 0, jnp.clip(values_NC, -_LARGEST, _LARGEST))
        ranks_NC = jnp.where(missing_NC, 0, column_ranks(inputs_NC, ordered_SC))
        waves_F = jnp.pi * 2.0 ** jnp.arange(_FREQUENCIES)
        angles_NCF = ranks_NC[..., None] * waves_F[None, None]
        parts = [values_NC, ranks_NC, missing_NC.astype(values_NC.dtype)]
        features = [jnp.stack(parts, axis=-1), jnp.sin(angles_NCF), jnp.cos(angles_NCF)]
        cells_NCE = self.cell(jnp.concatenate(features, axis=-1))
        return jnp.concatenate([cells_NCE, label_NE[:, None]], axis=1)


def sorted_columns(inputs_SC: Array, valid_S: Array) -> Array:
    """Each column's known values in valid rows in ascending order, then infinity."""
    shown_SC = valid_S[:, None] & ~jnp.isnan(inputs_SC)
    return jnp.sort(jnp.where(shown_SC, inputs_SC, jnp.inf), axis=0)


def column_ranks(inputs_NC: Array, ordered_SC: Array) -> Array:
    """The rank of each value among the known ones of its column, from −1 to 1; ties are halved."""

    def below(values: Array, ordered: Array, side: str) -> Array:
        return jnp.searchsorted(ordered, values, side=side).astype(inputs_NC.dtype)

    both = [
        jax.vmap(below, in_axes=(1, 1, None), out_axes=1)(inputs_NC, ordered_SC, side)
        for side in ("left", "right")
    ]
    counts_C = jnp.maximum(jnp.isfinite(ordered_SC).sum(axis=0), 1)
    return jnp.clip((both[0] + both[1]) / counts_C[None] - 1, -1, 1)


class _Block(nn.Module):
    width: int
    heads: int

    def setup(self) -> None:
        self.norms = [layer_norm() for _ in range(3)]
        self.of_columns = [nn.Dense(self.width) for _ in range(4)]
        self.of_rows = [nn.Dense(self.width) for _ in range(4)]
        self.hidden = nn.Dense(2 * self.width)
        self.output = nn.Dense(self.width)

    def columns(self, tokens_NCE: Array, known_C: Array) -> Array:
        """Attention among the columns of each row: to known ones, and to that of the targets."""
        to_query, to_key, to_value, to_output = self.of_columns
        normed = self.norms[0](tokens_NCE)
        attended_C = jnp.append(known_C, True)
        read = _attention(
            to_query(normed), to_key(normed), to_value(normed), attended_C, self.heads
        )
        return tokens_NCE + to_output(read)

    def seen(self, tokens_SCE: Array) -> tuple[Array, Array]:
        """Keys and values of the support rows."""
        _, to_key, to_value, _ = self.of_rows
        normed = self.norms[1](tokens_SCE)
        return to_key(normed), to_value(normed)

    def rows(self, tokens_NCE: Array, keys_SCE: Array, values_SCE: Array, valid_S: Array) -> Array:
        """Attention of each column's cells to those of the support rows, then the MLP."""
        to_query, _, _, to_output = self.of_rows
        queries_CNE = to_query(self.norms[1](tokens_NCE)).swapaxes(0, 1)
        keys_CSE, values_CSE = keys_SCE.swapaxes(0, 1), values_SCE.swapaxes(0, 1)
        read_CNE = _attention(queries_CNE, keys_CSE, values_CSE, valid_S, self.heads)
        tokens_NCE = tokens_NCE + to_output(read_CNE.swapaxes(0, 1))
        hidden = nn.relu(self.hidden(self.norms[2](tokens_NCE)))
        return tokens_NCE + self.output(hidden)


def _attention(queries: Array, keys: Array, values: Array, attended_L: Array, heads: int) -> Array:
    """Attention of queries `[B, N, E]` to keys and values `[B, L, E]` where `attended` is true."""

    def by_head(array: Array) -> Array:
        return array.reshape(*array.shape[:2], heads, -1).swapaxes(1, 2)

    queries_BHNK, keys_BHLK, values_BHLK = map(by_head, (queries, keys, values))
    scores = jnp.einsum("bhnk,bhlk->bhnl", queries_BHNK, keys_BHLK)
    scores = scores / jnp.sqrt(queries_BHNK.shape[-1]).astype(scores.dtype)
    # The lowest number, not −inf: an empty support keeps finite gradients.
    scores = jnp.where(attended_L[None, None, None], scores, jnp.finfo(scores.dtype).min)
    read_BHNK = jnp.einsum("bhnl,bhlk->bhnk", jax.nn.softmax(scores), values_BHLK)
    return read_BHNK.swapaxes(1, 2).reshape(queries.shape)
