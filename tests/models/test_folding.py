"""Population statistics folded into scale and shift."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import conv4, folded, mlp, resnet12, unfolded

KEY = jax.random.key(0)


def perceptron(outputs, width, **options):
    return mlp((width, width), outputs, **{"query_statistics": "batch", **options})


@pytest.mark.parametrize(
    "build", [conv4, perceptron, pytest.param(resnet12, marks=pytest.mark.slow)]
)
def test_of_one_batch_it_is_the_network_in_training(build, x64):
    """Where the set is the batch, its own statistics and the folded ones are the same."""
    images = jax.random.normal(KEY, (6, 16, 16, 3), float)
    network = build(3, width=2)
    params = jax.tree.map(lambda leaf: leaf.astype(float), network.init(KEY, images))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.3 * random.normal(size=p.shape), params)
    frozen = folded(network, params, images[None])
    outputs = build(3, width=2, query_statistics="training").apply(frozen, images)
    chex.assert_trees_all_close(outputs, network.apply(params, images), rtol=1e-8, atol=1e-10)


def test_statistics_are_those_of_all_batches():
    """A network of one layer by hand: the variance between batches counts."""
    batches = jnp.array([[[0.0], [2.0]], [[10.0], [12.0]]])[..., None, None]
    network = conv4(width=1, downsampling="stride")
    params = network.init(KEY, batches[0])
    frozen = folded(network, params, batches)
    center = params["conv_0"]["kernel"][1, 1, 0, 0]  # of one pixel, all that meets it
    values = np.array([0.0, 2.0, 10.0, 12.0]) * float(center)
    scale = 1 / np.sqrt(values.var() + 1e-5)
    np.testing.assert_allclose(frozen["norm_0"]["scale"], [scale], rtol=1e-5)
    np.testing.assert_allclose(frozen["norm_0"]["bias"], [-values.mean() * scale], rtol=1e-5)
    assert params["norm_0"]["scale"] == 1  # not written over


@pytest.mark.parametrize(
    "build", [conv4, perceptron, pytest.param(resnet12, marks=pytest.mark.slow)]
)
def test_unfolding_is_the_opposite_of_folding(build, x64):
    """Where the set is one batch, whose statistics are then the same in both networks."""
    images = jax.random.normal(KEY, (6, 16, 16, 3), float)
    network, fixed = build(3, width=2), build(3, width=2, query_statistics="training")
    params = jax.tree.map(lambda leaf: leaf.astype(float), network.init(KEY, images))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.3 * random.normal(size=p.shape), params)
    again = unfolded(fixed, folded(network, params, images[None]), images[None])
    chex.assert_trees_all_close(again, params, rtol=1e-8, atol=1e-10)


def test_layers_that_cannot_be_seen_are_an_error():
    images, network = jnp.ones((1, 2, 4)), mlp((3,), 2)
    with pytest.raises(ValueError, match="normalisation layers of the model"):
        folded(network, network.init(KEY, images[0]), images)
