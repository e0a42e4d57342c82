"""Searches of a small space whose accuracies are known."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Task
from jaxmeta.architecture import SearchSpace
from jaxmeta.learners import metaqnn, random_search, regularised_evolution
from jaxmeta.learners.architecture import epsilons, q_update, random_architecture
from jaxmeta.training import alternating_update

KEY = jax.random.key(0)
OPTIONS, DECISIONS = 3, 4
WEIGHTS = np.array([[0.1, 0.2, 0.0], [0.0, 0.25, 0.1], [0.2, 0.0, 0.05], [0.0, 0.1, 0.3]])
METHODS = {
    "random": random_search,
    "evolution": partial(regularised_evolution, population=8, sample=4),
    "metaqnn": partial(metaqnn, rate=0.1, replays=16),
}


def accuracy(key, architecture, task):
    return jnp.asarray(WEIGHTS)[jnp.arange(DECISIONS), architecture].sum()


def space(allowed=None):
    every = np.ones((OPTIONS + 1, OPTIONS), bool)
    return SearchSpace(DECISIONS, ("a", "b", "c"), every if allowed is None else allowed, accuracy)


def searched(learner, steps, key=KEY):
    init, update = alternating_update(learner, optax.identity())
    sample = lambda key: Task(jnp.zeros(()), jnp.zeros(()))  # noqa: E731
    run = lambda key: jax.lax.scan(  # noqa: E731
        lambda state, _: update(state, sample), init(key, sample), length=steps
    )
    return jax.jit(run)(key)[0].shared.history


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_search_sees_new_architectures_and_keeps_the_best(name):
    learner = METHODS[name](space(), budget=40)
    history = searched(learner, 40)
    seen = np.asarray(history.architectures)
    assert int(history.seen) == len({tuple(row) for row in seen}) == 40
    values = WEIGHTS[np.arange(DECISIONS), seen].sum(axis=1)
    np.testing.assert_allclose(history.accuracies, values, rtol=1e-5)
    assert history.best.tolist() == seen[values.argmax()].tolist()


@pytest.mark.parametrize("name", ["evolution", "metaqnn"])
def test_a_search_is_better_than_random(name):
    """Mean accuracy of the last ten of 40 architectures, over 20 searches."""

    def late(method):
        learner = METHODS[method](space(), budget=40)
        histories = jax.vmap(lambda key: searched(learner, 40, key).accuracies[-10:])
        return float(histories(jax.random.split(KEY, 20)).mean())

    assert late(name) > late("random") + 0.03


@pytest.mark.parametrize("name", sorted(METHODS))
def test_forbidden_options_are_never_proposed(name):
    """No b after an a, and no c at the beginning."""
    allowed = np.ones((OPTIONS + 1, OPTIONS), bool)
    allowed[0, 1] = allowed[OPTIONS, 2] = False
    seen = np.asarray(searched(METHODS[name](space(allowed), budget=30), 30).architectures)
    assert not ((seen[:, :-1] == 0) & (seen[:, 1:] == 1)).any()
    assert not (seen[:, 0] == 2).any()


def test_nothing_changes_after_the_budget():
    learner = random_search(space(), budget=4)
    history = searched(learner, 7)
    assert int(history.seen) == 4
    np.testing.assert_array_equal(history.architectures, searched(learner, 4).architectures)


def test_negative_and_missing_accuracies_have_a_best():
    """Entries to come do not count; an accuracy that is NaN counts as 0."""
    values = jnp.array([-0.5, -0.2, jnp.nan])
    own = SearchSpace(1, ("a", "b", "c"), np.ones((4, 3), bool), lambda k, a, t: values[a[0]])
    history = searched(random_search(own, budget=5), 2)
    known = np.nan_to_num(np.asarray(values))[np.asarray(history.architectures)[:2, 0]]
    assert float(history.best_accuracy) == pytest.approx(known.max())
    assert not np.isnan(history.accuracies).any()


def test_an_exhausted_space_is_seen_again():
    small = SearchSpace(1, ("a", "b"), np.ones((3, 2), bool), lambda *_: jnp.ones(()))
    history = searched(random_search(small, budget=4), 4)
    assert int(history.seen) == 4
    assert set(np.asarray(history.architectures).ravel().tolist()) == {0, 1}


def test_q_values_by_hand():
    """Two architectures in turn; α = 1/2, γ = 1, Q = 1/2 before."""
    values = jnp.full((2, 3, 2), 0.5)
    values = q_update(values, jnp.array([0, 1]), jnp.array(0.9), 0.5, 1.0)
    # Q₂(0, 1) = .25 + .45 = .7, then Q₁(start, 0) = .25 + .5 max(.5, .7) = .6
    assert float(values[1, 0, 1]) == pytest.approx(0.7)
    assert float(values[0, 2, 0]) == pytest.approx(0.6)
    values = q_update(values, jnp.array([0, 0]), jnp.array(0.1), 0.5, 1.0)
    # Q₂(0, 0) = .25 + .05 = .3, then Q₁(start, 0) = .3 + .5 max(.3, .7) = .65
    assert float(values[1, 0, 0]) == pytest.approx(0.3)
    assert float(values[0, 2, 0]) == pytest.approx(0.65)
    untouched = np.full((2, 3, 2), 0.5)
    untouched[1, 0], untouched[0, 2, 0] = (0.3, 0.7), 0.65
    np.testing.assert_allclose(values, untouched, rtol=1e-6)


def test_ending_early_is_worth_the_accuracy_of_the_network_that_ends():
    """The value of ending after `a`, or after `b`, is learned from networks that do so."""
    allowed = np.ones((4, 3), bool)
    allowed[2] = [False, False, True]  # nothing follows the end
    values = jnp.broadcast_to(jnp.where(allowed, 0.5, -jnp.inf), (3, 4, 3))
    learned = jax.jit(q_update)
    for _ in range(200):
        for first, accuracy in ((0, 0.9), (1, 0.1)):
            values = learned(values, jnp.array([first, 2, 2]), jnp.array(accuracy), 0.1, 1.0)
    assert float(values[1, 0, 2]) == pytest.approx(0.9, abs=1e-3)
    assert float(values[1, 1, 2]) == pytest.approx(0.1, abs=1e-3)
    assert float(values[0, 3, 0]) == pytest.approx(0.9, abs=1e-3)
    assert float(values[2, 2, 2]) == 0.5  # no decision


def test_the_discount_shrinks_what_earlier_decisions_learn():
    values = q_update(jnp.zeros((2, 3, 2)), jnp.array([0, 1]), jnp.array(1.0), 1.0, 0.5)
    assert (float(values[1, 0, 1]), float(values[0, 2, 0])) == (1.0, 0.5)


def test_the_published_schedule():
    found = epsilons(2700)
    assert [int((found == np.float32(own)).sum()) for own in (1.0, 0.9, 0.7, 0.6, 0.1)] == [
        *(1500, 100, 100, 150, 150)
    ]
    assert (np.diff(found) <= 0).all()


def test_evolution_changes_one_decision_of_a_parent():
    learner = regularised_evolution(space(), budget=30, population=5, sample=5)
    history = jax.device_get(searched(learner, 30))
    for child in range(5, 30):
        recent = history.architectures[max(0, child - 5) : child]
        distances = (recent != history.architectures[child]).sum(axis=1)
        assert 1 in distances or 0 in distances  # 0: no unseen neighbour was found


def test_random_architectures_are_uniform():
    drawn = jax.vmap(lambda key: random_architecture(key, space()))(jax.random.split(KEY, 3000))
    shares = [(np.asarray(drawn) == option).mean(axis=0) for option in range(OPTIONS)]
    np.testing.assert_allclose(shares, 1 / OPTIONS, atol=0.03)
    assert len({*map(tuple, drawn.tolist())}) == len([*itertools.product(range(3), repeat=4)])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: random_search(space(), budget=0), "budget of 0"),
        (lambda: random_search(space(np.ones((3, 3), bool)), budget=5), "give .4, 3. with"),
        (lambda: random_search(space(np.zeros((4, 3), bool)), budget=5), "at least one allowed"),
        (lambda: metaqnn(space(), budget=5, rate=2.0), "rate 2.0"),
        (lambda: metaqnn(space(), budget=5, replays=0), "0 replays"),
        (lambda: regularised_evolution(space(), budget=5, population=3, sample=4), "sample 4"),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()
