"""The first block against its operations one after the other, in float64."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxmeta.ops import convolve, max_pool, pooled_block, standardise
from jaxmeta.training.parallel import TASKS, task_mesh, vary

close = partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-10)


def one_after_the_other(images, kernel, scale, bias, *, references=None):
    convolved = convolve(images, kernel)
    standardised = standardise(convolved, (0, 1, 2), reference=convolved[:references])
    affine = standardised * scale[None, None, None] + bias[None, None, None]
    return max_pool(jax.nn.relu(affine))


def arguments(count=12, size=(6, 7), channels=1, features=5):
    """Rising and falling lines, an odd column that pooling leaves out."""
    keys = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(keys[0], (count, *size, channels)),
        jax.random.normal(keys[1], (3, 3, channels, features)),
        jnp.where(jnp.arange(features) % 2 == 0, 1.5, -0.5),
        jax.random.normal(keys[2], (features,)),
    )


CASES = {
    "in groups": ({"count": 20}, None),
    "all at once": ({"count": 7}, None),
    "colour": ({"count": 8, "channels": 3}, None),
    "support": ({"count": 12}, 5),
}


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("colour", "support") else pytest.param(name, marks=pytest.mark.slow)
        for name in CASES
    ],
)
def test_values_and_derivatives(name, x64):
    sizes, references = CASES[name]
    given = arguments(**sizes)

    def derivatives(block):
        loss = lambda *given: jnp.sin(block(*given, references=references)).sum()  # noqa: E731
        gradient = jax.grad(loss, (0, 1, 2, 3))

        def all_of(*given):
            return (
                block(*given, references=references),
                gradient(*given),
                jax.jvp(gradient, given, gradient(*given))[1],
                jax.grad(lambda *given: jnp.vdot(gradient(*given)[1], given[1]))(*given),
            )

        return jax.jit(all_of)(*given)

    close(derivatives(pooled_block), derivatives(one_after_the_other))


@pytest.mark.full
def test_under_vmap_and_scan_and_shard_map(x64):
    images, kernel, scale, bias = arguments(count=8)
    kernels = jnp.stack([kernel, 2 - kernel, kernel**2, -kernel])

    def gradient(block, kernel):
        return jax.grad(lambda kernel: jnp.sin(block(images, kernel, scale, bias)).sum())(kernel)

    expected = jnp.stack([gradient(one_after_the_other, kernel) for kernel in kernels])
    of_one = partial(gradient, pooled_block)
    close(jax.jit(jax.vmap(of_one))(kernels), expected)
    close(jax.jit(lambda kernels: jax.lax.map(of_one, kernels))(kernels), expected)

    def on_one_device(images, scale, bias, kernels):
        images, scale, bias = vary((images, scale, bias))

        def loss(kernel):
            return jnp.sin(pooled_block(images, kernel, scale, bias)).sum()

        return jax.lax.map(jax.grad(loss), kernels)

    shared = jax.shard_map(
        on_one_device,
        mesh=task_mesh(4),
        in_specs=(P(), P(), P(), P(TASKS)),
        out_specs=P(TASKS),
    )
    close(jax.jit(shared)(images, scale, bias, kernels), expected)


def test_more_channels_than_patches_are_kept_of(x64):
    given = arguments(channels=4)
    close(pooled_block(*given), one_after_the_other(*given))


def test_ranks():
    images, kernel, scale, bias = arguments()
    with pytest.raises(AssertionError, match="rank"):
        pooled_block(images, kernel, scale[None], bias)
