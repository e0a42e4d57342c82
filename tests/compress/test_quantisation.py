"""Eight and sixteen bits: the error bounds, and what is left as it is."""

import hypothesis
import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from jaxmeta.compress import Quantised, dequantised, in_bfloat16, pruned, quantised

FLOATS = strategies.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SHAPES = arrays.array_shapes(min_dims=2, max_dims=4, max_side=5)


@pytest.mark.full
@hypothesis.given(arrays.arrays(np.float32, SHAPES, elements=FLOATS))
def test_the_error_is_at_most_half_a_step_of_the_channel(weight):
    small = quantised({"w": weight})["w"]
    assert isinstance(small, Quantised)
    assert small.values.dtype == jnp.int8 and small.values.shape == weight.shape
    assert small.scale.shape == (*(1,) * (weight.ndim - 1), weight.shape[-1])
    error = np.abs(weight - np.asarray(dequantised(small)))
    assert (error <= np.asarray(small.scale) / 2 * (1 + 1e-4)).all()
    assert (np.asarray(small.values)[weight == 0] == 0).all()


def test_a_channel_has_its_own_step():
    """Else the small channel would be rounded to nothing."""
    weight = jnp.array([[1000.0, 0.001], [-500.0, -0.0005]])
    small = quantised({"w": weight})["w"]
    assert small.values.tolist() == [[127, 127], [-64, -64]]
    np.testing.assert_allclose(small.scale, [[1000 / 127, 0.001 / 127]], rtol=1e-6)
    np.testing.assert_allclose(dequantised({"w": small})["w"], weight, rtol=0.01)


def test_the_largest_weight_is_127_of_either_sign():
    small = quantised(jnp.array([[-2.0, 3.0], [1.0, -3.0]]))
    assert small.values.tolist() == [[-127, 127], [64, -127]]


def test_bfloat16_weights_stay_within_127_and_half_a_step():
    weight = jax.random.normal(jax.random.key(0), (64, 200)).astype(jnp.bfloat16)
    small = quantised({"kernel": weight})["kernel"]
    assert int(small.values.min()) >= -127
    step = small.scale.astype(jnp.float32)
    error = jnp.abs(weight.astype(jnp.float32) - step * small.values)
    assert float((error / step).max()) <= 0.5 + 1e-5


def test_all_but_weights_is_left_as_it_is():
    params = {
        "kernel": jnp.ones((2, 2)),
        "bias": jnp.array([0.3, 0.7]),
        "rate": jnp.asarray(0.1),
        "order": jnp.arange(4).reshape(2, 2),
    }
    for compress in (quantised, in_bfloat16):
        small = compress(params)
        for name in ("bias", "rate", "order"):
            assert small[name] is params[name]
        assert jax.tree.map(jnp.shape, dequantised(small)) == jax.tree.map(jnp.shape, params)
        with pytest.raises(ValueError, match="no float array with two axes or more"):
            compress({"bias": jnp.ones(3)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_weights_returns(dtype, x64):
    weight = jnp.asarray([[1.0, 2.0]], dtype)
    assert dequantised(quantised(weight)).dtype == dtype


def test_expanding_within_a_compiled_program():
    params = {"kernel": jnp.array([[0.5, 2.0], [1.0, -1.0]]), "bias": jnp.ones(2)}
    small = quantised(params)
    apply = lambda p, x: x @ p["kernel"] + p["bias"][None]  # noqa: E731
    inputs = jnp.ones((3, 2))
    within = jax.jit(lambda small, x: apply(dequantised(small), x))(small, inputs)
    np.testing.assert_allclose(within, apply(dequantised(small), inputs), rtol=1e-6)


@hypothesis.given(arrays.arrays(np.float32, SHAPES, elements=FLOATS))
def test_bfloat16_has_eight_bits_of_precision(weight):
    small = in_bfloat16({"w": weight})["w"]
    assert small.dtype == jnp.bfloat16
    found = np.asarray(dequantised({"w": small})["w"])
    assert found.dtype == np.float32
    assert (np.abs(found - weight) <= 2.0**-8 * np.abs(weight)).all()


@pytest.mark.parametrize("change", [quantised, lambda params: pruned(params, 0.5), in_bfloat16])
def test_quantised_parameters_are_not_transformed_again(change):
    small = quantised({"kernel": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="the parameters are quantised"):
        change(small)
