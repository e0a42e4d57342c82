"""Chains in a buffer against the same layers without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import ChainLayer, chain_network
from jaxmeta.ops import convolve, max_pool

KEY = jax.random.key(0)
LAYERS = (
    ChainLayer("end", "identity"),
    ChainLayer("conv3-4", "convolution", 3, 4),
    ChainLayer("conv5-2", "convolution", 5, 2),
    ChainLayer("pool", "pool"),
)
IMAGES = jax.random.normal(jax.random.key(1), (3, 10, 10, 2))


def plain(params, images, architecture):
    """The layers one after the other, in arrays of their own sizes."""
    x = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, 2)))
    for place, chosen in enumerate(architecture):
        layer = LAYERS[chosen]
        if layer.kind == "pool":
            x = max_pool(x)
        elif layer.kind == "convolution":
            kernel = params["kernels"][str(layer.window)][place][..., : layer.filters]
            y = convolve(x, kernel)
            mean, variance = (f(y, axis=(1, 2, 3), keepdims=True) for f in (jnp.mean, jnp.var))
            y = jax.nn.relu((y - mean) / jnp.sqrt(variance + 1e-5))
            x = jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, 4 - layer.filters)))
    return x.mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"][None]


def test_every_chain_in_one_program():
    chain = chain_network(LAYERS, decisions=4, outputs=3)
    params = chain.init(KEY)
    apply = jax.jit(chain.apply)
    for architecture in ([1, 3, 2, 3], [2, 1, 0, 0], [1, 3, 1, 2], [1, 1, 3, 0]):
        found = apply(params, IMAGES, jnp.array(architecture))
        np.testing.assert_allclose(found, plain(params, IMAGES, architecture), rtol=2e-4, atol=1e-5)
    assert apply._cache_size() == 1


def test_the_gradient_reaches_only_the_chosen_kernels():
    chain = chain_network(LAYERS, decisions=2, outputs=3)
    params = chain.init(KEY)
    loss = lambda params: jnp.square(chain.apply(params, IMAGES, jnp.array([2, 3]))).sum()  # noqa: E731
    grads = jax.grad(loss)(params)["kernels"]
    assert jnp.abs(grads["5"][0, ..., :2]).max() > 0
    assert not grads["3"].any() and not grads["5"][1].any() and not grads["5"][0, ..., 2:].any()


def test_an_image_of_one_pixel_is_not_pooled():
    chain = chain_network(LAYERS, decisions=6, outputs=3)
    params = chain.init(KEY)
    often = chain.apply(params, IMAGES, jnp.array([1, 3, 3, 3, 3, 3]))
    thrice = chain.apply(params, IMAGES, jnp.array([1, 3, 3, 3, 0, 0]))  # 10, 5, 2, 1 pixels
    assert jnp.isfinite(often).all()
    np.testing.assert_array_equal(often, thrice)


@pytest.mark.parametrize(
    ("layers", "images", "match"),
    [
        (LAYERS[:1], IMAGES, "0 sizes of convolutions"),
        ((ChainLayer("even", "convolution", 4, 2),), IMAGES, "a window of 4"),
        ((ChainLayer("none", "convolution", 3, 0),), IMAGES, "0 filters"),
        (LAYERS, IMAGES[:, :8], "give square ones"),
        (LAYERS, jnp.ones((1, 4, 4, 5)), "at most 4 channels"),
    ],
)
def test_errors(layers, images, match):
    with pytest.raises(ValueError, match=match):
        chain = chain_network(layers, decisions=2, outputs=3)
        chain.apply(chain.init(KEY), images, jnp.array([1, 0]))
