"""Predictions for tables, averaged over members that see the table in other ways."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Objective, PyTree, cross_entropy
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process._prior_fitted import column_ranks, sorted_columns
from jaxmeta.objectives import class_indices, valid_mask


class Members(NamedTuple):
    """The adapted state of an average over members.

    Attributes:
      adapted: the learner's state of each member, with a leading axis.
      orders: int32 `[members, classes]`, the number that each class has for each member.
      ordered: float `[S, C]`, each column's known values in ascending order, then infinity.
    """

    adapted: PyTree
    orders: Array
    ordered: Array


def members_of_tables(
    learner: MetaLearner, classes: int, members: int, *, objective: Objective = cross_entropy
) -> MetaLearner:
    """A classifier of tables whose predictions are averaged over several views of a table.

        p(y | x) = mean over members m of q_θ(order_m(y) | view_m(x), support in the same view)

    Each member has another random order of the classes 0, …, k − 1 of the support, since the
    network does not treat all numbers alike. Every second member sees normal scores in place of
    the values: Φ⁻¹((rank + 1) / 2), with the rank from −1 to 1 among the n support values of the
    column, cut at ±(1 − 1/n).

    Args:
      learner: with the outputs logits `[Q, classes]`, such as `prior_fitted`.
      classes: its number of outputs.
      members: number of predictions that are averaged; with 1 it is the learner itself, with its
        own objective.
      objective: of the logarithms of the averages, which are the outputs.

    Raises:
      ValueError: less than one member; a target that is no class.

    Source: Hollmann et al. 2023, "TabPFN", section 5 (ensembles).

    >>> from jaxmeta import Batch, Task, prior_fitted
    >>> network = prior_fitted(classes=3, width=8, layers=1, heads=2)
    >>> learner = members_of_tables(network, classes=3, members=2)
    >>> rows = Batch(jnp.arange(10.0).reshape(5, 2), jnp.array([0, 1, 2, 0, 1]))
    >>> params = jax.jit(learner.init)(jax.random.key(0), Task(rows, rows))
    >>> adapted = jax.jit(learner.adapt)(jax.random.key(1), params, rows)
    >>> jax.jit(learner.predict)(adapted, jnp.ones((4, 2))).shape
    (4, 3)
    """
    if members < 1:
        raise ValueError(f"members_of_tables: {members} members; give at least 1.")
    if members == 1:
        return learner

    def scored() -> Array:
        """Which members see the normal scores."""
        return jnp.arange(members) % 2 == 1

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Members:
        inputs, targets, mask = support
        is_class_S = class_indices("members_of_tables", targets, classes, mask)
        valid_S = valid_mask(mask, inputs.shape[0])
        seen = jnp.where(valid_S, targets, -1).max() + 1
        ordered_SC = sorted_columns(inputs, valid_S)
        scores = _normal_scores(inputs, ordered_SC)

        def one(given: tuple[Key, Array]) -> tuple[PyTree, Array]:
            own, is_scored = given
            order_key, learn_key = jax.random.split(own)
            order_W = _order(order_key, classes, seen)
            # What is no class stays so, for the learner to refuse.
            numbers_S = jnp.where(is_class_S, order_W[targets], targets)
            viewed = Batch(jnp.where(is_scored, scores, inputs), numbers_S, mask)
            return learner.adapt(learn_key, meta_params, viewed), order_W

        adapted, orders_MW = jax.lax.map(one, (jax.random.split(key, members), scored()))
        return Members(adapted, orders_MW, ordered_SC)

    def predict(adapted: Members, inputs: Array, *, key: Key | None = None) -> Array:
        scores = _normal_scores(inputs, adapted.ordered)

        def one(given: tuple[PyTree, Array, Array]) -> Array:
            own, order_W, is_scored = given
            logits_QW = learner.predict(own, jnp.where(is_scored, scores, inputs))
            return jax.nn.log_softmax(logits_QW)[:, order_W]

        each = jax.lax.map(one, (adapted.adapted, adapted.orders, scored()))
        return jax.nn.logsumexp(each, axis=0) - jnp.log(members)

    return plain_learner(learner.init, adapt, predict, objective)


def _order(key: Key, classes: int, seen: Array) -> Array:
    """New numbers of the classes: those below `seen` in random order, the others as they are."""
    numbers_W = jnp.arange(classes)
    places_W = jnp.where(numbers_W < seen, jax.random.uniform(key, (classes,)), 1 + numbers_W)
    return jnp.argsort(jnp.argsort(places_W)).astype(jnp.int32)


def _normal_scores(inputs_NC: Array, ordered_SC: Array) -> Array:
    """The quantiles of a normal distribution at the ranks of the values; missing ones stay NaN."""
    counts_C = jnp.maximum(jnp.isfinite(ordered_SC).sum(axis=0), 1)
    most_C = 1 - 1 / counts_C.astype(inputs_NC.dtype)
    ranks_NC = jnp.clip(column_ranks(inputs_NC, ordered_SC), -most_C[None], most_C[None])
    scores_NC = jax.scipy.special.ndtri((ranks_NC + 1) / 2)
    return jnp.where(jnp.isnan(inputs_NC), jnp.nan, scores_NC)
