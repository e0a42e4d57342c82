"""Searches at equal budgets, on a table that is worked out by hand."""

import jax
import numpy as np
import pytest

from experiments.searches import METHODS, accuracies_found
from jaxmeta.data.architectures import Tabulated
from jaxmeta.learners import random_search

# Nine architectures; the best of the searched accuracies is not the best of the test.
SEARCHED = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.6, 0.7, 0.8], np.float32)
TEST = np.array([0.5, 0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.95, 0.8], np.float32)
TABLE = Tabulated(2, ("a", "b", "c"), SEARCHED, {"images": TEST}, str)


def test_what_is_found_is_the_best_of_what_was_searched():
    found = accuracies_found(TABLE, random_search, 9, jax.random.split(jax.random.key(0), 20))
    np.testing.assert_allclose(found[:, -1], 0.7)  # the whole space was seen
    assert set(found[:, 0].round(2).tolist()) <= set(TEST.round(2).tolist())
    assert len(set(found[:, 0].tolist())) > 3
    # In the mean over searches, the first network is a random one.
    assert abs(found[:, 0].mean() - TEST.mean()) < 0.15


@pytest.mark.full
def test_every_method_runs():
    keys = jax.random.split(jax.random.key(1), 2)
    for make in METHODS.values():
        assert accuracies_found(TABLE, make, 3, keys).shape == (2, 3)
