"""What the default way of differentiating keeps in memory: parameters, and no activation."""

import contextlib

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxmeta import cross_entropy
from jaxmeta.inner import reverse_mode, second_order, unroll
from jaxmeta.models import conv4

KEY = jax.random.key(0)


@pytest.mark.slow
def test_twenty_steps_take_hardly_more_memory_than_two():
    """The default way keeps the parameters of every step and no activation: conv4, 5-way 1-shot."""
    images = jax.random.uniform(KEY, (80, 28, 28, 1))
    labels = jnp.tile(jnp.arange(5, dtype=jnp.int32), 16)
    support, query = (images[:5], labels[:5]), (images[5:], labels[5:])
    model = conv4(5)
    params = model.init(KEY, images[:5])

    def loss(key, params, batch):
        return cross_entropy(model.apply(params, batch[0]), batch[1])[0]

    def compiled(steps, way):
        inner = unroll(loss, optax.sgd(0.05), steps, differentiation=way)
        meta_gradient = jax.grad(lambda p: loss(KEY, inner(KEY, p, support).params, query))
        return jax.jit(meta_gradient).lower(params).compile()

    with _optimised():
        two, twenty = (compiled(steps, second_order) for steps in (2, 20))
        taken = [c.memory_analysis().temp_size_in_bytes for c in (two, twenty)]
        assert taken[1] <= 1.2 * taken[0]
        exact = compiled(20, reverse_mode)(params)
    found = twenty(params)
    difference = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), found, exact)
    size = jax.tree.map(lambda a: jnp.square(a).sum(), exact)
    total = lambda tree: float(jnp.sqrt(sum(jax.tree.leaves(tree))))  # noqa: E731
    assert total(difference) <= 1e-5 * total(size)


@contextlib.contextmanager
def _optimised():
    """Compiles as users do; the tests' own setting leaves most optimisations out."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
