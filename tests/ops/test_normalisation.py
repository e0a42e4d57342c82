"""Standardisation, by values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.ops import standardise


def test_standardise_by_its_own_and_by_other_statistics():
    values = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    ours = standardise(values, (0,), epsilon=0.0)
    np.testing.assert_allclose(ours, [[-1, -1], [1, 1]], rtol=1e-6)
    support = jnp.array([[0.0, 0.0], [2.0, 20.0], [4.0, 40.0]])
    deviation = np.std([0, 2, 4])
    np.testing.assert_allclose(
        standardise(values, (0,), reference=support, epsilon=0.0),
        (np.array([[1.0, 1.0], [3.0, 3.0]]) - 2) / deviation,
        rtol=1e-6,
    )


def test_standardise_has_a_finite_gradient_where_all_values_are_equal():
    gradient = jax.grad(lambda x: standardise(x, (0,)).sum())(jnp.ones((3, 2)))
    assert np.isfinite(gradient).all()
