"""Matching networks: classification by attention over labelled support examples."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import logsumexp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.metric._prototypical import class_members, unit
from jaxmeta.learners.ways import check_ways
from jaxmeta.models import from_linen
from jaxmeta.ops import varying_with

_OF_NONE = math.log(1e-12)  # the log-probability of a class without an example


class Memory(NamedTuple):
    """The adapted state of matching networks: the embedded support set.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      keys_SD: float `[support, features]`, g(x_i).
      labels_SW: float `[support, ways]`, one-hot, 0 for examples that are padding or unlabelled.
      real_S: bool `[support]`, False for the same examples.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: PyTree
    keys_SD: Array
    labels_SW: Array
    real_S: Array
    reference: PyTree


def matching(
    encoder: Model,
    objective: Objective,
    ways: int,
    *,
    full_context: bool = False,
    reads: int = 5,
    temperature: float = 10.0,
) -> MetaLearner:
    """Matching networks: classify by attention over the support examples.

        a_i(x) = softmax_i τ cos(f(x), g(x_i)),   P(w | x) = Σ_i a_i(x) [y_i = w]

    Outputs are log P. Without full context, f and g are the encoder; with it, f' and g' are and

        g(x_i) = g'(x_i) + →h_i + ←h_i        (LSTMs over the support, in its order)
        ĥ_k, c_k = LSTM([f'(x), r_{k−1}], h_{k−1}, c_{k−1}),  h_k = ĥ_k + f'(x)
        r_k = Σ_i softmax_i(h_k · g(x_i)) g(x_i),  h_0 = c_0 = 0,  f(x) = h_K

    Args:
      encoder: maps inputs to features `[examples, D]`.
      objective: an objective of log-probabilities `[examples, ways]`, such as cross-entropy.
      ways: classes of a task; the meta-parameters do not depend on it.
      full_context: condition the embedding of each support example on the other ones, and of each
        query example on the support set. The order of the support set then matters.
      reads: K, steps of the query's LSTM.
      temperature: the initial τ; its logarithm is learned. The paper's is 1, fixed.

    Raises:
      ValueError: fewer than two ways, fewer than 1 read, a temperature that is not positive.

    A class without a (valid) support example has the log-probability log 1e-12 and is never
    predicted.

    Source: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, "Matching networks for one
    shot learning", section 2.1 and appendix A.

    >>> import jaxmeta
    >>> identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = matching(identity, jaxmeta.cross_entropy, ways=2, temperature=1.0)
    >>> support = Batch(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1]))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> adapted = learner.adapt(jax.random.key(0), params, support)
    >>> probabilities = jnp.exp(learner.predict(adapted, jnp.array([[3.0, 0.0]])))
    >>> [f"{value:.3f}" for value in probabilities[0]]  # e / (e + 1), 1 / (e + 1)
    ['0.731', '0.269']
    """
    check_ways("matching", ways)
    if reads < 1 or not temperature > 0:
        raise ValueError(
            f"matching: {reads} reads, temperature {temperature}; give at least 1 read and a "
            "positive temperature."
        )

    def context_of(features: Array) -> tuple[Model, Model]:
        width = features.shape[-1]
        return from_linen(_SupportContext(width)), from_linen(_QueryContext(width, reads))

    def init(key: Key, task: Task) -> PyTree:
        encoder_key, support_key, query_key = jax.random.split(key, 3)
        params = {
            "encoder": encoder.init(encoder_key, task.support.inputs),
            "log_temperature": jnp.log(jnp.asarray(temperature)),
        }
        if full_context:
            features_SD = encoder.apply(params["encoder"], task.support.inputs)
            real_S = jnp.ones(features_SD.shape[:1], bool)
            of_support, of_query = context_of(features_SD)
            params["support"] = of_support.init(support_key, (features_SD, real_S))
            params["query"] = of_query.init(query_key, (features_SD, features_SD, real_S))
        return params

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Memory:
        keys_SD = encoder.apply(meta_params["encoder"], support.inputs, key=key)
        real_S = support.targets >= 0  # −1: no label
        if support.mask is not None:
            real_S &= support.mask
        labels_SW = class_members(support, ways, keys_SD.dtype)
        if full_context:
            of_support, _ = context_of(keys_SD)
            keys_SD = of_support.apply(meta_params["support"], (keys_SD, real_S))
        return Memory(meta_params, keys_SD, labels_SW, real_S, support.inputs)

    def predict(adapted: Memory, inputs: PyTree, *, key: Key | None = None) -> Array:
        meta_params, keys_SD, labels_SW, real_S, reference = adapted
        queries_QD = encoder.apply(meta_params["encoder"], inputs, reference=reference, key=key)
        if full_context:
            _, of_query = context_of(queries_QD)
            queries_QD = of_query.apply(meta_params["query"], (queries_QD, keys_SD, real_S))
        cosine_QS = unit(queries_QD) @ unit(keys_SD).T
        scores_QS = jnp.exp(meta_params["log_temperature"]) * cosine_QS
        # In logarithms, so that classes with a probability near 0 also have a gradient.
        known_W = labels_SW.sum(axis=0) > 0
        members_SW = (labels_SW > 0) | ~known_W[None]
        of_class_QW = logsumexp(scores_QS[:, :, None], axis=1, where=members_SW[None])
        of_all_Q1 = logsumexp(scores_QS, axis=1, where=real_S[None], keepdims=True)
        log_p_QW = jnp.where(known_W[None], of_class_QW - of_all_Q1, _OF_NONE)
        return log_p_QW + 0 * labels_SW.sum()  # NaN if a label is out of range

    return plain_learner(init, adapt, predict, objective)


def _softmax(scores_QS: Array, real_S: Array) -> Array:
    return jax.nn.softmax(scores_QS, axis=1, where=real_S[None])


class _SupportContext(nn.Module):
    """g: a bidirectional LSTM over the embedded support, added to it."""

    width: int

    @nn.compact
    def __call__(self, inputs: tuple[Array, Array]) -> Array:
        features_SD, _ = inputs

        def step(
            cell: nn.OptimizedLSTMCell, state: PyTree, example: tuple[Array, Array]
        ) -> tuple[PyTree, Array]:
            features_D, real = example
            after, output_D = cell(state, features_D)
            # Padding and unlabelled examples leave the state unchanged.
            return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, state), output_D

        total_SD = features_SD
        for name in ("forward", "backward"):
            cell = nn.OptimizedLSTMCell(self.width, name=name)
            state = varying_with(_zero_state(features_SD[0]), features_SD)
            scan = nn.scan(
                step,
                variable_broadcast="params",
                split_rngs={"params": False},
                reverse=name == "backward",
            )
            total_SD += scan(cell, state, inputs)[1]
        return total_SD


class _QueryContext(nn.Module):
    """f: an LSTM that repeatedly attends to the support, for each query example separately."""

    width: int
    reads: int

    @nn.compact
    def __call__(self, inputs: tuple[Array, Array, Array]) -> Array:
        features_QD, keys_SD, real_S = inputs
        cell = nn.OptimizedLSTMCell(self.width, name="cell")
        cells_QD, hidden_QD = _zero_state(features_QD)
        for _ in range(self.reads):
            read_QD = _softmax(hidden_QD @ keys_SD.T, real_S) @ keys_SD
            heard = jnp.concatenate([features_QD, read_QD], axis=1)
            (cells_QD, output_QD), _ = cell((cells_QD, hidden_QD), heard)
            hidden_QD = output_QD + features_QD
        return hidden_QD


def _zero_state(features: Array) -> tuple[Array, Array]:
    """The LSTM's cell state and output, in Flax's order."""
    return jnp.zeros_like(features), jnp.zeros_like(features)
