"""Inner Adam where an inner gradient is exactly zero."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.inner import DIFFERENTIATIONS, adam, truncated, unroll

EXACT = {name: way for name, way in DIFFERENTIATIONS.items() if name != "first-order"}


def half_dead(key, theta, batch):
    """The last two parameters are a dead unit: their gradient is exactly zero."""
    dead = jax.nn.relu(theta[1] - 10) * theta[2]
    return jnp.square(theta[0] + dead - batch)


def meta_gradient(optimizer, way):
    inner = unroll(half_dead, optimizer, 2, differentiation=way)
    loss = lambda theta: inner(jax.random.key(0), theta, jnp.ones(())).params.sum()  # noqa: E731
    return jax.jit(jax.grad(loss))(jnp.array([0.3, 0.5, 0.7]))


@pytest.mark.full
@pytest.mark.parametrize("optimizer", [adam(0.1), optax.adam(0.1)], ids=["ours", "optax"])
@pytest.mark.parametrize("way", [*EXACT.values(), truncated(1)], ids=[*EXACT, "truncated"])
def test_the_meta_gradient_is_finite(way, optimizer):
    found = meta_gradient(optimizer, way)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1:], 1)  # a parameter that does not move passes it on


def test_it_steps_as_adam_does():
    gradient = {"w": jnp.array([3.0, -0.2])}
    steps = []
    for optimizer in (adam(0.1), optax.adam(0.1)):
        updates, _ = optimizer.update(gradient, optimizer.init(gradient))
        steps.append(updates)
    chex.assert_trees_all_close(*steps, rtol=1e-5)
    chex.assert_trees_all_close(steps[0], {"w": jnp.array([-0.1, 0.1])}, rtol=1e-5)
