"""Equations are of one task: arrays of other ranks or sizes are refused, never broadcast."""

import jax.numpy as jnp
import pytest

from jaxmeta import Batch, binary_cross_entropy, cross_entropy, masked_mean, valid_mask
from jaxmeta.learners.gradient._maml_plus_plus import step_weights
from jaxmeta.learners.gradient._meta_curvature import preconditioned
from jaxmeta.learners.memory import addressing
from jaxmeta.learners.metric import one_hot_squared_error
from jaxmeta.learners.metric._prototypical import (
    class_means,
    class_members,
    squared_distances,
    unit,
)
from jaxmeta.learners.process import Gaussian
from jaxmeta.learners.process.conditional import beside, mean_of_real
from jaxmeta.learners.process.gaussian import gaussian_of, log_density
from jaxmeta.learners.process.latent import divergence

ones = jnp.ones
INTEGERS = jnp.zeros(3, jnp.int32)


@pytest.mark.parametrize(
    "call",
    [
        lambda: valid_mask(ones(2, bool), 3),
        lambda: masked_mean(ones((3, 2)), ones((3, 2), bool)),
        lambda: cross_entropy(ones(3), INTEGERS),
        lambda: binary_cross_entropy(ones(3), ones(3)),
        lambda: one_hot_squared_error(ones((3, 2)), ones(3)),
        lambda: class_means(ones((2, 3, 2)), Batch(None, INTEGERS), 2),
        lambda: class_members(Batch(None, ones(3)), 2),
        lambda: squared_distances(ones((3, 2)), ones((4, 1))),
        lambda: unit(ones(2)),
        lambda: preconditioned(ones((2, 3)), (jnp.eye(2), jnp.eye(2))),
        lambda: step_weights(3, ones(3)),
        lambda: gaussian_of(ones(2)),
        lambda: log_density(Gaussian(ones((3, 1)), ones((3, 1))), ones((1, 1))),
        lambda: divergence(Gaussian(ones(2), ones(2)), Gaussian(ones(1), ones(1))),
        lambda: beside(ones((3, 1)), ones((3, 2))),
        lambda: mean_of_real(ones(3), None),
        lambda: addressing.by_content(ones((3, 2)), ones(2), ones(1)),
        lambda: addressing.cosine(ones((3, 2)), ones(1)),
        lambda: addressing.interpolated(ones(3), ones(1), ones(())),
        lambda: addressing.shifted(ones((1, 3)), ones(3)),
        lambda: addressing.sharpened(ones(3), ones(3)),
        lambda: addressing.written(ones((3, 2)), ones(3), ones((1, 2)), ones((1, 2))),
        lambda: addressing.usage(ones(3), ones(3), ones(3), ones(1)),
        lambda: addressing.allocation(ones((1, 3))),
        lambda: addressing.linked(ones((3, 3)), ones(3), ones(1)),
        lambda: addressing.least_used(ones((1, 3)), 1),
    ],
)
def test_other_shapes_are_refused(call):
    with pytest.raises((AssertionError, ValueError)):
        call()
