"""The posterior of a Gaussian process, whatever stands in points that are not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch
from jaxmeta.data.synthetic.gaussian_processes import Kernel, posterior


@pytest.mark.parametrize("nonsense", [jnp.nan, jnp.inf])
def test_points_that_are_not_there_change_nothing(nonsense):
    places, values = jnp.array([[0.0], [0.7]]), jnp.array([[1.0], [-0.5]])

    @jax.jit
    def judged(length, support):
        def total(length):
            kernel = Kernel("matern", length, 1.0, 0.1)
            mean, std = posterior(kernel, support, jnp.array([[0.3]]))
            return mean.sum() + std.sum()

        return jax.value_and_grad(total)(length)

    longer = lambda rows: jnp.pad(rows, ((1, 1), (0, 0)), constant_values=nonsense)  # noqa: E731
    mask = jnp.array([False, True, True, False])
    padded = Batch(longer(places), longer(values), mask)
    expected = judged(0.5, Batch(places, values))
    np.testing.assert_allclose(judged(0.5, padded), expected, rtol=1e-5)
