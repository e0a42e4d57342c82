"""Averages over members: against a loop, which numbers are exchanged, and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, ndtri
from scipy.stats import rankdata

from jaxmeta import Batch, Task, prior_fitted
from jaxmeta.learners.process import members_of_tables

CLASSES, MEMBERS = 5, 4


@pytest.fixture(scope="module")
def given():
    """A network with random weights, its parameters, a support set of three classes, a query."""
    network = prior_fitted(classes=CLASSES, width=8, layers=1, heads=2)
    inputs = jax.random.normal(jax.random.key(0), (8, 3)).at[2, 1].set(jnp.nan)
    support = Batch(inputs, jnp.array([0, 1, 2, 0, 1, 2, 0, 1]))
    params = jax.jit(network.init)(jax.random.key(1), Task(support, support))
    return network, params, support, inputs[::-1] + 0.1


def read(given, support=None, members=MEMBERS):
    network, params, own, asked = given
    learner = members_of_tables(network, CLASSES, members)
    adapted = jax.jit(learner.adapt)(jax.random.key(2), params, support or own)
    return adapted, np.asarray(jax.jit(learner.predict)(adapted, asked))


def test_the_average_is_that_of_a_loop(given):
    network, params, support, asked = given
    adapted, found = read(given)
    inputs, asked = np.asarray(support.inputs, float), np.asarray(asked, float)

    def scores(values, known):
        below = [(known < value).sum() + (known == value).sum() / 2 for value in values]
        ranks = 2 * np.array(below) / len(known) - 1
        most = 1 - 1 / len(known)
        return np.where(np.isnan(values), np.nan, ndtri((np.clip(ranks, -most, most) + 1) / 2))

    known = [column[~np.isnan(column)] for column in inputs.T]
    views = [
        np.stack([scores(column, own) for column, own in zip(rows.T, known)], axis=1)
        for rows in (inputs, asked)
    ]
    # The scores of a column without ties are those of its ranks 1, …, n.
    np.testing.assert_allclose(views[0][:, 0], ndtri((rankdata(inputs[:, 0]) - 0.5) / 8))
    each = []
    for order, scored in zip(np.asarray(adapted.orders), (False, True, False, True)):
        rows, queries = views if scored else (inputs, asked)
        own = Batch(jnp.asarray(rows, jnp.float32), jnp.asarray(order)[support.targets])
        state = network.adapt(jax.random.key(0), params, own)
        logits = np.asarray(network.predict(state, jnp.asarray(queries, jnp.float32)))
        each.append(log_softmax(logits, axis=1)[:, order])
    np.testing.assert_allclose(found, logsumexp(each, axis=0) - np.log(MEMBERS), atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)


def test_only_numbers_of_classes_in_the_support_are_exchanged(given):
    adapted, _ = read(given, members=16)
    orders = np.asarray(adapted.orders)
    assert (orders[:, 3:] == [3, 4]).all()
    assert {tuple(sorted(own)) for own in orders[:, :3].tolist()} == {(0, 1, 2)}
    assert len({tuple(own) for own in orders.tolist()}) > 1


@pytest.mark.full
def test_padding_does_not_matter(given):
    _, _, (inputs, targets, _), _ = given
    padded = Batch(
        jnp.concatenate([inputs, jnp.full((2, 3), 1e6)]),
        jnp.concatenate([targets, jnp.full(2, 4)]),
        jnp.arange(10) < 8,
    )
    np.testing.assert_allclose(read(given, padded)[1], read(given)[1], atol=1e-4)


def test_one_member_is_the_learner_and_none_is_refused(given):
    network = given[0]
    assert members_of_tables(network, CLASSES, 1) is network
    with pytest.raises(ValueError, match="0 members; give at least 1"):
        members_of_tables(network, CLASSES, 0)
