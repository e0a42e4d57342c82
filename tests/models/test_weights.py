"""Parameters as a file, and parameters of another network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import check_alike, mlp, pack, resnet12, unpack

KEY = jax.random.key(0)


def test_what_is_packed_is_what_comes_back():
    params = jax.jit(resnet12(3, width=2).init)(KEY, jnp.zeros((1, 16, 16, 3)))
    found = unpack(pack(params))
    chex.assert_trees_all_equal(found, jax.device_get(params))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}


def test_a_damaged_file_is_an_error():
    data = pack(mlp((4,), 2).init(KEY, jnp.zeros((1, 3))))
    for broken in (b"", data[:100], data.replace(b"hidden_0", b"hidden_X")[:-30]):
        with pytest.raises(ValueError, match="not a file of parameters, or a damaged one"):
            unpack(broken)


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "bad.npz", a=np.array([{"b": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a file of parameters"):
        unpack((tmp_path / "bad.npz").read_bytes())


def test_another_network_is_an_error():
    params = mlp((4,), 2).init(KEY, jnp.zeros((1, 3)))
    check_alike(params, mlp((4,), 2).init(jax.random.key(1), jnp.zeros((1, 3))))
    other = mlp((4, 4), 2).init(KEY, jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"hidden_1/bias is missing, expected \(4,\)"):
        check_alike(params, other)
    with pytest.raises(ValueError, match=r"hidden_1/bias is \(4,\), expected no array"):
        check_alike(other, params)
