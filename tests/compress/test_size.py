"""The bytes that are stated are those of arrays that can be written and read again."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.compress import in_bfloat16, pruned, quantised, stored_bytes


def packed(array: np.ndarray) -> tuple[bytes, bytes]:
    """Nonzero values, and a bit for each number."""
    mask = array != 0
    return array[mask].tobytes(), np.packbits(mask).tobytes()


@pytest.mark.parametrize("sparsity", [0.6, 0.8, 0.95])
def test_pruned_weights_are_values_and_bits(sparsity):
    kernel = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(11)}
    small = pruned(params, sparsity)
    values, bits = packed(np.asarray(small["kernel"]))
    # They are enough to restore the weights.
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=77).astype(bool)
    restored = np.zeros(77, np.float32)
    restored[mask] = np.frombuffer(values, np.float32)
    np.testing.assert_array_equal(restored.reshape(7, 11), small["kernel"])
    assert stored_bytes(small) == len(values) + len(bits) + 11 * 4


def test_dense_where_that_is_smaller():
    kernel = jnp.ones((8, 8)).at[0, 0].set(0.0)  # a bit per number costs more than one zero saves
    assert stored_bytes({"kernel": kernel, "bias": jnp.zeros(100)}) == 64 * 4 + 400


def test_fewer_bits():
    params = {"kernel": jnp.arange(1.0, 65.0).reshape(16, 4), "bias": jnp.ones(4)}
    assert stored_bytes(params) == 64 * 4 + 16
    assert stored_bytes(in_bfloat16(params)) == 64 * 2 + 16
    assert stored_bytes(quantised(params)) == 64 + 4 * 4 + 16
    # Pruned and then in eight bits: 6 values of a byte, 64 bits, four scales and the bias.
    assert stored_bytes(quantised(pruned(params, 0.9))) == 6 + 8 + 16 + 16
