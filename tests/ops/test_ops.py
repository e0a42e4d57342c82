"""Convolution, pooling and normalisation against XLA's own operations, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxmeta.ops import convolve, max_pool, standardise


def reference(images, kernel, stride):
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), ours, theirs)


@settings(max_examples=8)
@given(
    height=st.integers(3, 7),
    width=st.integers(3, 7),
    window=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2]),
    channels=st.sampled_from([1, 3]),
)
def test_convolution_equals_xlas(height, width, window, stride, channels):
    with jax.enable_x64(True):
        images = normal(0, 2, height, width, channels)
        kernel = normal(1, window, window, channels, 4)
        close(convolve(images, kernel, stride=stride), reference(images, kernel, stride))


@pytest.mark.parametrize("stride", [1, 2])
def test_first_to_third_derivatives_of_convolution(stride, x64):
    images, kernel = normal(0, 2, 5, 6, 2), normal(1, 3, 3, 2, 3)

    def derivatives(convolution):
        def loss(images, kernel):
            return jnp.sin(convolution(images, kernel)).sum()

        def curvature(images, kernel):  # forward over reverse, as mixed mode needs it
            tangents = (jnp.cos(images), jnp.cos(kernel))
            _, products = jax.jvp(jax.grad(loss, (0, 1)), (images, kernel), tangents)
            return sum(jnp.square(product).sum() for product in products)

        def all_three(images, kernel):
            first = jax.grad(loss, (0, 1))(images, kernel)
            return first, jax.value_and_grad(curvature, (0, 1))(images, kernel)

        return jax.jit(all_three)(images, kernel)

    close(
        derivatives(lambda images, kernel: convolve(images, kernel, stride=stride)),
        derivatives(lambda images, kernel: reference(images, kernel, stride)),
    )


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_convolution_mapped_over_either_operand_or_both(axes, x64):
    images, kernels = normal(0, 3, 2, 5, 5, 2), normal(1, 3, 3, 3, 2, 4)
    operands = [value if axis == 0 else value[0] for value, axis in zip((images, kernels), axes)]
    mapped = jax.vmap(lambda i, k: convolve(i, k, stride=2), in_axes=axes)(*operands)
    for index in range(3):
        one = [value[index] if axis == 0 else value for value, axis in zip(operands, axes)]
        close(mapped[index], reference(*one, 2))


def test_convolution_refuses_other_channels():
    with pytest.raises(ValueError, match="2 channels"):
        convolve(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 4)))


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_max_pool_and_its_gradient(size, x64):
    images = normal(0, 2, *size, 3)

    def theirs(images):
        return lax.reduce_window(images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    close(max_pool(images), theirs(images))
    ours_gradient = jax.grad(lambda x: jnp.square(max_pool(x)).sum())(images)
    close(ours_gradient, jax.grad(lambda x: jnp.square(theirs(x)).sum())(images))


def test_max_pool_shares_the_gradient_of_ties():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient, 0.25)


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
