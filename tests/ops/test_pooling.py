"""Max-pooling against XLA's `reduce_window`, in float64."""

import os
import subprocess
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxmeta.ops import max_pool


def reference(images, window):
    shape = (1, window, window, 1)
    return lax.reduce_window(images, -jnp.inf, lax.max, shape, shape, "VALID")


close = partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-10)


@pytest.mark.full
@settings(max_examples=4)
@given(height=st.integers(2, 7), width=st.integers(3, 7), window=st.integers(1, 3))
def test_values_and_derivatives(height, width, window):
    with jax.enable_x64(True):
        window = min(window, height)
        images = jax.random.normal(jax.random.key(0), (2, height, width, 3))
        tangent = jnp.cos(images)

        def derivatives(pool):
            loss = lambda x: jnp.sin(pool(x, window)).sum()  # noqa: E731
            gradient = jax.grad(loss)

            def curvature(x):
                return jax.jvp(gradient, (x,), (tangent,))[1]

            return jax.jit(lambda x: (loss(x), gradient(x), curvature(x)))(images)

        def by_reshape(images, window):  # `reduce_window` has no second derivative
            rows, columns = height // window, width // window
            return (
                images[:, : rows * window, : columns * window]
                .reshape(2, rows, window, columns, window, 3)
                .max(axis=(2, 4))
            )

        close(max_pool(images, window), reference(images, window))
        close(
            jax.grad(lambda x: jnp.sin(max_pool(x, window)).sum())(images),
            jax.grad(lambda x: jnp.sin(reference(x, window)).sum())(images),
        )
        close(derivatives(max_pool), derivatives(by_reshape))


def test_mapped_scanned_and_checkpointed(x64):
    images = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 2))

    def through(pool):
        @jax.checkpoint
        def step(x, _):
            return x - 0.1 * jax.grad(lambda x: jnp.square(pool(x, 2)).sum())(x), None

        last = lambda x: jnp.sin(lax.scan(step, x, length=2)[0]).sum()  # noqa: E731
        return jax.jit(jax.vmap(jax.grad(last)))(images)

    def by_hand(x, _):
        return x.reshape(2, 2, 2, 2, 2, 2).max(axis=(2, 4))

    close(through(max_pool), through(by_hand))


def test_ties_share_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, 0.25)
    two = jnp.array([1.0, 1.0, 0.0, -1.0]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool(x).sum())(two)
    np.testing.assert_array_equal(gradient.reshape(-1), [0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize("window", [0, 5])
def test_a_window_that_does_not_fit(window):
    with pytest.raises(ValueError, match=f"window of {window}"):
        max_pool(jnp.zeros((1, 4, 4, 1)), window)


@pytest.mark.slow
def test_a_maximum_that_is_rounded_otherwise_has_a_gradient():
    """Without fusion XLA computes the pooled images twice, and no entry equals the maximum."""
    program = """
import jax, jax.numpy as jnp
from jaxmeta.models import resnet12
network, images = resnet12(5, width=4), jax.random.uniform(jax.random.key(1), (10, 32, 32, 3))
params = jax.jit(network.init)(jax.random.key(0), images)
grads = jax.jit(jax.grad(lambda p: jnp.square(network.apply(p, images)).sum()))(params)
print(*[float(jnp.vdot(leaf, leaf)) for leaf in jax.tree.leaves(grads)])
"""
    flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    plain, otherwise = (
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for flags in ("", flags)
    )
    np.testing.assert_allclose(
        np.array(otherwise, float), np.array(plain, float), rtol=1e-3, atol=1e-12
    )
