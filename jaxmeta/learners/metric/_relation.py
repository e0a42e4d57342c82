"""Relation networks: learn the comparison of a query with a class as well as the embedding."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    fill_padding,
    masked_mean,
)
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.keys import split_key
from jaxmeta.learners.metric._prototypical import class_members, known_classes
from jaxmeta.learners.ways import check_ways
from jaxmeta.objectives import class_indices, or_nan

_OF_NONE = -1e-6  # score of a class without an example: below all others, and almost 0


class RelationParams(NamedTuple):
    """Meta-parameters of a relation network.

    Attributes:
      encoder: parameters of the network that embeds examples.
      comparator: parameters of the network that compares two embeddings.
    """

    encoder: PyTree
    comparator: PyTree


class ClassMaps(NamedTuple):
    """The adapted state of a relation network.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      maps_W: float `[ways, ...]`, the sum of each class' embedded examples.
      known_W: bool `[ways]`, which classes have an example.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: RelationParams
    maps_W: Array
    known_W: Array
    reference: PyTree


def relation(encoder: Model, comparator: Model, objective: Objective, ways: int) -> MetaLearner:
    """Relation networks: a second network compares each query with each class.

        C_w = Σ f(x_s) over the support examples s of class w
        r_w(x) = σ(g([C_w, f(x)])),   loss = Σ_w (r_w(x) − [y = w])²

    Args:
      encoder: f, maps inputs to feature maps `[examples, H, W, C]` or features `[examples, C]`.
      comparator: g, maps `(maps_W, maps_Q)`, the maps of classes and queries, to a number for each
        pair, `[examples, ways]`; `jaxmeta.models.pairwise` makes one from any network.
      objective: an objective of scores r in (0, 1), `[examples, ways]`, such as
        `one_hot_squared_error`.
      ways: classes of a task; the meta-parameters do not depend on it.

    A class without a (valid) support example has a score just below 0 and is never predicted.

    Raises:
      ValueError: fewer than two ways.

    Source: Sung, Yang, Zhang, Xiang, Torr, Hospedales 2018, "Learning to compare: relation network
    for few-shot learning", section 3.

    >>> from jaxmeta.models import comparator, conv_maps
    >>> learner = relation(conv_maps(width=8), comparator(width=8), one_hot_squared_error, ways=5)
    """
    check_ways("relation", ways)

    def init(key: Key, task: Task) -> RelationParams:
        encoder_key, key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        maps = jax.eval_shape(encoder.apply, params, task.support.inputs)
        maps_1 = jnp.zeros((1, *maps.shape[1:]), maps.dtype)
        return RelationParams(params, comparator.init(key, (maps_1, maps_1)))

    def adapt(key: Key, meta_params: RelationParams, support: Batch) -> ClassMaps:
        maps_S = encoder.apply(meta_params.encoder, support.inputs, key=key)
        members_SW = class_members(support, ways, maps_S.dtype)
        maps_W = jnp.tensordot(members_SW.T, maps_S, axes=1)
        return ClassMaps(meta_params, maps_W, known_classes(support, ways), support.inputs)

    def predict(adapted: ClassMaps, inputs: PyTree, *, key: Key | None = None) -> Array:
        meta_params, maps_W, known_W, reference = adapted
        encoder_key, key = split_key(key)
        maps_Q = encoder.apply(meta_params.encoder, inputs, reference=reference, key=encoder_key)
        pairs = (maps_W, maps_Q)
        scores_QW = jax.nn.sigmoid(comparator.apply(meta_params.comparator, pairs, key=key))
        return jnp.where(known_W[None] | ~known_W.any(), scores_QW, _OF_NONE)

    return plain_learner(init, adapt, predict, objective)


def one_hot_squared_error(
    outputs: Array, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The squared distance of scores to the one-hot targets, with the accuracy as a metric.

        loss = mean_i Σ_w (outputs_iw − [targets_i = w])²

    Args:
      outputs: scores `[examples, ways]`, between 0 and 1.
      targets: int `[examples]`, each in `[0, ways)`.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the targets are not integers, or one is out of range. If targets are traced, loss
        and accuracy are NaN for one out of range.

    >>> loss, metrics = one_hot_squared_error(jnp.array([[0.5, 0.0]]), jnp.array([0]))
    >>> float(loss), float(metrics["accuracy"])
    (0.25, 1.0)
    """
    chex.assert_rank([outputs, targets], [2, 1])
    is_class = class_indices("one_hot_squared_error", targets, outputs.shape[1], mask)
    outputs, targets = fill_padding((outputs, targets), mask)
    wanted = jax.nn.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
    losses = jnp.square(outputs - wanted).sum(axis=1)
    correct = (outputs.argmax(axis=1) == targets).astype(outputs.dtype)
    accuracy = masked_mean(or_nan(correct, is_class), mask)
    return masked_mean(or_nan(losses, is_class), mask), {"accuracy": accuracy}
