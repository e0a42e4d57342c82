"""Acquisition rules: values worked out by hand, ties, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.active import bald, chance, entropy, highest, k_centre, margin, unlabelled_view

KEY = jax.random.key(0)


def view_at(points, labelled=()):
    points = jnp.asarray(points, float)
    given = jnp.zeros(len(points), bool).at[jnp.array(labelled, int)].set(True)
    return unlabelled_view(points)._replace(labelled_N=given, candidates_N=~given)


def test_entropy_and_margin_by_hand(x64):
    view = unlabelled_view(jnp.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [1 / 3] * 3]))
    np.testing.assert_allclose(
        entropy(KEY, view), [1.5 * np.log(2), 0.0, np.log(3)], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(margin(KEY, view), [-0.25, -1.0, 0.0], atol=1e-12)


def test_bald_by_hand(x64):
    """Members that are sure of different classes share a bit; unsure ones that agree none."""
    sure, other = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    even, leaning = jnp.array([0.5, 0.5]), jnp.array([0.75, 0.25])
    members = jnp.stack(
        [jnp.stack([sure, even, sure, leaning]), jnp.stack([other, even, sure, other])]
    )
    view = unlabelled_view(members[0])._replace(members_MNW=members)
    mixed = jnp.array([0.375, 0.625])
    of_leaning = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    last = -(mixed * jnp.log(mixed)).sum() - of_leaning / 2
    np.testing.assert_allclose(bald(KEY, view), [np.log(2), 0, 0, last], atol=1e-12)


@pytest.mark.parametrize("members", [0, 1])
def test_a_committee_has_two_members(members):
    view = unlabelled_view(jnp.eye(2))._replace(members_MNW=jnp.ones((members, 2, 2)) / 2)
    with pytest.raises(ValueError, match=f"a committee of {members}; give at least two"):
        bald(KEY, view)


def test_k_centre_is_the_distance_to_the_nearest_label(x64):
    points = [[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [3.0, 3.0]]
    np.testing.assert_allclose(k_centre(KEY, view_at(points, [0, 1])), [0, 0, 1, 1], atol=1e-9)
    # Before any label, the most central of the candidates is the highest.
    scores = k_centre(KEY, view_at([[0.0], [1.0], [5.0]]))
    np.testing.assert_allclose(scores, [-4.0, -1.0, -9.0], atol=1e-9)


def test_greedy_k_centre_covers_within_twice_the_best_radius(x64):
    """The guarantee of Gonzalez 1985, against the best of all choices of three centres."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(12, 2))
    chosen = [4]
    while len(chosen) < 3:
        chosen.append(int(k_centre(KEY, view_at(points, chosen)).argmax()))

    def radius(centres):
        apart = np.linalg.norm(points[:, None] - points[None, list(centres)], axis=2)
        return apart.min(axis=1).max()

    best = min(radius(own) for own in itertools.combinations(range(12), 3))
    assert radius(chosen) <= 2 * best + 1e-12


def test_ties_are_broken_at_random_among_candidates():
    scores = jnp.array([2.0, 1.0, 1.0, jnp.nan, 0.0])
    candidates = jnp.array([False, True, True, True, True])
    keys = jax.random.split(KEY, 200)
    drawn = jax.vmap(lambda key: highest(key, scores, candidates))(keys)
    counts = np.bincount(np.asarray(drawn), minlength=5)
    assert counts[[0, 3, 4]].sum() == 0
    assert min(counts[1:3]) > 60
    # NaN is the lowest, and still a candidate.
    only = jnp.array([False, False, False, True, False])
    assert int(highest(KEY, scores, only)) == 3


def test_chance_is_even():
    view = unlabelled_view(jnp.ones((4, 2)) / 2)
    keys = jax.random.split(KEY, 400)
    drawn = jax.vmap(lambda key: highest(key, chance(key, view), view.candidates_N))(keys)
    assert np.bincount(np.asarray(drawn), minlength=4).min() > 60
