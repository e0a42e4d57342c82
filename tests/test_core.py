"""The objectives by hand, and what `meta_learner` makes of its parts."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxmeta import Batch, Carry, Task, cross_entropy, masked_mean, meta_learner, squared_error


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]]))
    targets = jnp.array([0, 2, 1], jnp.int32)
    loss, metrics = cross_entropy(logits, targets)
    np.testing.assert_allclose(loss, -np.log([0.5, 0.8, 0.3]).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 2 / 3, rtol=1e-6)
    loss, metrics = cross_entropy(logits, targets, jnp.array([True, False, True]))
    np.testing.assert_allclose(loss, -np.log([0.5, 0.3]).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 1 / 2)


def test_cross_entropy_of_huge_logits_is_finite():
    loss, _ = cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    np.testing.assert_allclose(loss, 2e4)


@pytest.mark.parametrize(
    "targets", [jnp.zeros(3), jnp.zeros((3, 1), jnp.int32), jnp.zeros(2, jnp.int32)]
)
def test_cross_entropy_refuses_other_targets(targets):
    with pytest.raises(ValueError, match="integer targets of shape"):
        cross_entropy(jnp.zeros((3, 2)), targets)


def test_squared_error_by_hand():
    outputs = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    targets = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    assert float(squared_error(outputs, targets)[0]) == (4 + 9 + 16) / 4
    assert float(squared_error(outputs, targets, jnp.array([True, False]))[0]) == 2


def test_squared_error_never_broadcasts():
    with pytest.raises(ValueError, match=r"\(3, 1\) and \(3,\)"):
        squared_error(jnp.zeros((3, 1)), jnp.zeros(3))


@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.booleans()), min_size=1, max_size=6))
def test_masked_mean_is_the_mean_of_what_is_kept(rows):
    values, mask = np.array([value for value, _ in rows], np.float32), [keep for _, keep in rows]
    expected = values[mask].mean() if any(mask) else 0
    np.testing.assert_allclose(
        masked_mean(jnp.asarray(values), jnp.array(mask)), expected, rtol=1e-5, atol=1e-5
    )


def test_masked_rows_get_no_gradient_even_where_nothing_is_kept():
    values = jnp.arange(4.0).reshape(2, 2)
    kept = jax.grad(masked_mean)(values, jnp.array([True, False]))
    np.testing.assert_array_equal(kept, [[0.5, 0.5], [0, 0]])
    np.testing.assert_array_equal(jax.grad(masked_mean)(values, jnp.array([False, False])), 0)


def test_meta_learner_puts_its_parts_together():
    seen = {}

    def adapt(key, meta_params, support):
        seen["key"] = key
        return meta_params * support.targets.mean()

    learner = meta_learner(
        init=lambda key, task: jnp.ones(()),
        adapt=adapt,
        predict=lambda adapted, inputs, key=None: jnp.full(inputs.shape, adapted),
        objective=squared_error,
    )
    support = Batch(jnp.zeros((2, 1)), jnp.array([[1.0], [3.0]]))
    query = Batch(jnp.zeros((2, 1)), jnp.array([[5.0], [100.0]]), jnp.array([True, False]))
    key, carry = jax.random.key(3), Carry(jnp.zeros((), jnp.int32), slot=jnp.arange(3))
    grads, info, after = learner.grad(key, jnp.asarray(0.5), Task(support, query), carry)
    assert float(info.loss) == 16  # (0.5 · 2 − 5)², the masked example left out
    assert float(grads) == 2 * (0.5 * 2 - 5) * 2
    assert info.metrics == {}
    np.testing.assert_array_equal(after.slot, carry.slot)
    assert seen["key"] is key
    assert learner.trajectory is None
