"""Arrays of another rank are refused, where broadcasting would give wrong numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import Batch
from jaxmeta.data import class_images, episodes
from jaxmeta.data._episodes import drawn_classes, weighted
from jaxmeta.data.synthetic._sinusoids import sinusoid_parameters
from jaxmeta.data.synthetic.gaussian_processes import Kernel, cholesky, covariance, posterior

POINTS = jnp.zeros((3, 1))
KERNEL = Kernel("rbf", 1.0, 1.0, 0.1)
CLASSES = class_images(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) // 2, tuple("abc"))
SAMPLE = episodes(CLASSES, ways=2, shots=1, queries=1)
KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: covariance(KERNEL, POINTS[:, 0], POINTS),
        lambda: covariance(KERNEL, POINTS, POINTS[None]),
        lambda: covariance(KERNEL._replace(length=jnp.ones((2,))), POINTS, POINTS),
        lambda: cholesky(jnp.eye(3)[None]),
        lambda: posterior(KERNEL, Batch(POINTS, POINTS[:, 0]), POINTS),
        lambda: posterior(KERNEL, Batch(POINTS, POINTS), POINTS[:, 0]),
        lambda: weighted(SAMPLE, jnp.ones((4,))),
        lambda: weighted(SAMPLE, jnp.ones((3, 1))),
        lambda: drawn_classes(SAMPLE, KEYS),
        lambda: sinusoid_parameters(KEYS),
    ],
)
def test_another_rank_is_refused(call):
    with pytest.raises(AssertionError, match=r"rank|shape"):
        call()
