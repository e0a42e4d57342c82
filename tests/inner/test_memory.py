"""What the default way of differentiating keeps in memory: parameters, and no activation."""

import contextlib

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta import cross_entropy
from jaxmeta.inner import reverse_mode, second_order, unroll
from jaxmeta.models import conv4

KEY = jax.random.key(0)


@pytest.mark.slow
def test_twenty_steps_take_hardly_more_memory_than_two():
    """The default way keeps the parameters of every step and no activation: conv4, 5-way 1-shot."""
    with _optimised():
        taken = [_meta_gradient(steps)[0].memory_analysis() for steps in (2, 20)]
    assert taken[1].temp_size_in_bytes <= 1.2 * taken[0].temp_size_in_bytes
    # In float64: twenty steps amplify float32's rounding to some 1e-3 in either way.
    with jax.enable_x64(True):
        compiled, params = _meta_gradient(20)
        found = ravel_pytree(compiled(params))[0]
        compiled, params = _meta_gradient(20, reverse_mode)
        exact = ravel_pytree(compiled(params))[0]
        assert jnp.linalg.norm(found - exact) <= 1e-5 * jnp.linalg.norm(exact)


def _meta_gradient(steps, way=second_order):
    images = jax.random.uniform(KEY, (80, 28, 28, 1), float)
    labels = jnp.tile(jnp.arange(5, dtype=jnp.int32), 16)
    support, query = (images[:5], labels[:5]), (images[5:], labels[5:])
    model = conv4(5)
    params = jax.tree.map(lambda leaf: leaf.astype(float), model.init(KEY, images[:5]))

    def loss(key, params, batch):
        return cross_entropy(model.apply(params, batch[0]), batch[1])[0]

    inner = unroll(loss, optax.sgd(0.05), steps, differentiation=way)
    gradient = jax.grad(lambda params: loss(KEY, inner(KEY, params, support).params, query))
    return jax.jit(gradient).lower(params).compile(), params


@contextlib.contextmanager
def _optimised():
    """Compiles as users do; the tests' own setting leaves most optimisations out."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
