"""What every objective owes to padding, and to targets that are no class or no bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import binary_cross_entropy, cross_entropy, squared_error
from jaxmeta.core import fill_padding
from jaxmeta.data._label_stream import accuracy_by_instance
from jaxmeta.learners import one_hot_squared_error
from jaxmeta.learners.process import Gaussian, gaussian_likelihood
from jaxmeta.objectives import check_metrics
from jaxmeta.training.hard_tasks import cross_entropy_and_worst_class

OF_CLASSES = {
    "cross-entropy": cross_entropy,
    "one-hot": one_hot_squared_error,
    "by-instance": accuracy_by_instance((1, 2)),
    "worst-class": cross_entropy_and_worst_class(3),
}
LOGITS = jnp.array([[0.3, -1.0, 0.5], [1.0, 0.2, 0.1]])
CLASSES = jnp.array([2, 1], jnp.int32)
BITS = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
ALL = {
    **{name: (objective, CLASSES) for name, objective in OF_CLASSES.items()},
    "bits": (binary_cross_entropy, BITS),
    "squared-error": (squared_error, BITS),
    "gaussian": (
        lambda outputs, *rest: gaussian_likelihood(
            Gaussian(outputs, jnp.ones_like(outputs)), *rest
        ),
        BITS,
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("nonsense", [jnp.nan, jnp.inf, -(10.0**6)])
def test_padding_changes_neither_value_nor_gradient(name, nonsense):
    objective, targets = ALL[name]
    integers = jnp.issubdtype(targets.dtype, jnp.integer)
    label = jnp.asarray(-7 if integers else nonsense, targets.dtype)

    def padded(rows, value):
        # In front, so that places count too, and behind.
        return jnp.pad(rows, ((1, 1), *((0, 0),) * (rows.ndim - 1)), constant_values=value)

    mask = jnp.array([False, True, True, False])
    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    expected, slope = run(LOGITS, targets)
    found, padded_slope = run(padded(LOGITS, nonsense), padded(targets, label), mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    np.testing.assert_allclose(padded_slope, padded(slope, 0.0), rtol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("label", [-1, 3, -100, 2**31 - 1])
def test_a_label_out_of_range_is_an_error_or_gives_nan(name, label):
    targets = CLASSES.at[1].set(label)
    with pytest.raises(ValueError, match=f"target {label} is not a class index from 0 to 2"):
        OF_CLASSES[name](LOGITS, targets)
    run = jax.jit(jax.value_and_grad(OF_CLASSES[name], has_aux=True))
    (loss, metrics), slope = run(LOGITS, targets)
    assert np.isnan(loss) and np.isnan(metrics["accuracy"]) and np.isnan(slope[1]).any()
    masked = jnp.array([True, False])
    (loss, _), slope = run(LOGITS, targets, masked)
    assert np.isfinite(loss) and np.isfinite(slope).all()
    assert np.isfinite(OF_CLASSES[name](LOGITS, targets, masked)[0])  # known, and masked out


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("targets", [jnp.array([2.0, 1.0]), jnp.array([True, False])])
def test_classes_are_integers(name, targets):
    with pytest.raises(ValueError, match="integer"):
        OF_CLASSES[name](LOGITS, targets)


@pytest.mark.parametrize("target", [0.3, 2.0, -1.0, np.nan])
def test_bits_are_never_rounded(target):
    targets = BITS.at[1, 1].set(target)
    with pytest.raises(ValueError, match="is not 0 or 1"):
        binary_cross_entropy(LOGITS, targets)
    loss, metrics = jax.jit(binary_cross_entropy)(LOGITS, targets)
    assert np.isnan(loss) and all(np.isnan(value) for value in metrics.values())


def test_small_types_hold_many_classes():
    loss, _ = jax.jit(cross_entropy)(jnp.zeros((1, 300)), jnp.array([255], jnp.uint8))
    np.testing.assert_allclose(loss, np.log(300), rtol=1e-6)


def test_padding_is_filled_by_the_first_valid_row_and_by_zeros_if_there_is_none():
    rows = jnp.array([[jnp.nan], [2.0], [3.0], [jnp.inf]])
    mask = jnp.array([False, True, True, False])
    np.testing.assert_array_equal(fill_padding(rows, mask)[:, 0], [2, 2, 3, 2])
    np.testing.assert_array_equal(fill_padding(rows, jnp.zeros(4, bool)), 0)
    assert fill_padding(rows, None) is rows


@pytest.mark.parametrize("name", ["loss", "steps", "test/accuracy", "accuracy_ci95"])
def test_metrics_have_names_of_their_own(name):
    check_metrics({"accuracy": 1.0}, "steps")
    with pytest.raises(ValueError, match=f"a metric is named '{name}'"):
        check_metrics({"accuracy": 1.0, name: 1.0}, "steps")
