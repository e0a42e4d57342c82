"""The statistics of a convolution that is not made, in float64."""

import jax
import numpy as np

from jaxmeta.ops import convolve
from jaxmeta.ops.cpu.block import convolution_moments


def test_moments_are_those_of_the_outputs(x64):
    images = jax.random.normal(jax.random.key(0), (12, 6, 7, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    convolved = convolve(images, kernel)
    mean, variance = convolution_moments(images, kernel)
    np.testing.assert_allclose(mean[0, 0, 0], convolved.mean((0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(variance[0, 0, 0], convolved.var((0, 1, 2)), rtol=1e-10)
