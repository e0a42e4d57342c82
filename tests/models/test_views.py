"""Networks averaged over several views of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Model
from jaxmeta.models import averaged_over_shifts, conv4

KEY = jax.random.key(0)
IDENTITY = Model(
    lambda key, x: {},
    lambda params, x, reference=None, key=None: x if reference is None else reference,
)


def test_the_mean_of_five_views_by_hand():
    image_HW = jnp.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    images = jnp.stack([image_HW, 10 * image_HW])[..., None]
    found = averaged_over_shifts(IDENTITY).apply({}, images)
    assert found.shape == images.shape
    # The corner 0 is itself three times (its row and its column are repeated), and 1, and 3.
    np.testing.assert_allclose(found[0, 0, 0], [(0 + 0 + 0 + 1 + 3) / 5])
    np.testing.assert_allclose(found[0, 1, 2], [(5 + 2 + 8 + 4 + 5) / 5], rtol=1e-6)
    np.testing.assert_allclose(found[1], 10 * found[0], rtol=1e-6)
    far = averaged_over_shifts(IDENTITY, pixels=2).apply({}, images)
    np.testing.assert_allclose(far[0, 1, 1], [(4 + 1 + 7 + 3 + 5) / 5], rtol=1e-6)
    np.testing.assert_allclose(far[0, 0, 0], [(0 + 0 + 0 + 2 + 6) / 5], rtol=1e-6)


@pytest.mark.full
def test_every_view_is_normalised_as_the_images_would_be():
    """By the support's statistics, which are those of the shifted support."""
    images, support = jax.random.normal(KEY, (2, 4, 28, 28, 1))
    network = conv4(width=2, downsampling="stride", query_statistics="support")
    params = network.init(KEY, images)
    found = averaged_over_shifts(network).apply(params, images, reference=support)
    total = 0.0
    for axis, move in ((1, 0), (1, -1), (1, 1), (2, -1), (2, 1)):

        def shifted(batch, axis=axis, move=move):
            place = np.clip(np.arange(28) + move, 0, 27)
            return jnp.take(batch, place, axis=axis)

        total += network.apply(params, shifted(images), reference=shifted(support))
    np.testing.assert_allclose(found, total / 5, rtol=1e-5, atol=1e-6)
    assert np.abs(found - network.apply(params, images, reference=support)).max() > 1e-3


def test_no_shift_is_refused():
    with pytest.raises(ValueError, match="0 pixels; give at least 1"):
        averaged_over_shifts(IDENTITY, pixels=0)
