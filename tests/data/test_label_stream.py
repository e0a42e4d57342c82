"""Streams of images with the label of the one before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import cross_entropy
from jaxmeta.data import class_images, label_stream
from jaxmeta.data._label_stream import accuracy_by_instance

WAYS, INSTANCES, PIXELS = 3, 4, 4
SIZES = {"ways": WAYS, "instances": INSTANCES, "rotations": "none"}


@pytest.fixture(scope="module")
def classes():
    """Six classes of ten images, each of one grey value of its own."""
    values = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    return class_images(np.broadcast_to(values, (60, 2, 2, 1)), np.arange(60) // 10, "abcdef")


@pytest.mark.parametrize("labels", ["one-hot", "strings"])
def test_an_image_comes_with_the_label_of_the_one_before(classes, labels):
    sample = jax.jit(label_stream(classes, **SIZES, labels=labels))
    orders, names = set(), set()
    for seed in range(6):
        inputs, targets, mask = jax.device_get(sample(jax.random.key(seed)).query)
        assert mask is None
        values = np.round(inputs[:, 0] * 255).astype(int)
        assert len(set(values.tolist())) == WAYS * INSTANCES  # no image twice
        # A label is that of the image's class, the same all through the stream.
        named = {value // 10: target.tolist() for value, target in zip(values, targets)}
        assert [named[value // 10] for value in values] == targets.tolist()
        assert sorted(np.unique(values // 10, return_counts=True)[1]) == [INSTANCES] * WAYS

        told = inputs[:, PIXELS:]
        assert not told[0].any()
        if labels == "strings":
            assert targets.max() < 5
            assert len({str(name) for name in named.values()}) == WAYS
            expected = np.eye(5)[targets].reshape(len(targets), 25)
        else:
            expected = np.eye(WAYS)[targets]
        np.testing.assert_array_equal(told[1:], expected[:-1])
        orders.add(str((values // 10).tolist()))
        names.add(str(sorted(named.items())))
    assert len(orders) == 6
    assert len(names) > 3, "which label is which class' is drawn anew"


def test_distortions_change_the_images_alone(classes):
    plain, changed = (
        jax.jit(label_stream(classes, **SIZES, distortions=distortions))(jax.random.key(0)).query
        for distortions in (False, True)
    )
    assert changed.inputs.shape == plain.inputs.shape
    assert not np.allclose(changed.inputs[:, :PIXELS], plain.inputs[:, :PIXELS])
    told = changed.inputs[1:, PIXELS:]
    np.testing.assert_array_equal(told.argmax(axis=1), changed.targets[:-1])


def test_accuracy_is_counted_class_by_class():
    targets = jnp.array([0, 1, 0, 2, 0, 1])  # instances 1, 1, 2, 1, 3, 2
    outputs = 9 * jnp.eye(3)[jnp.array([0, 2, 0, 2, 1, 1])]  # right: + − + + − +
    loss, metrics = accuracy_by_instance((1, 2, 3))(outputs, targets)
    found = [metrics[name] for name in ("accuracy", "accuracy_1", "accuracy_2", "accuracy_3")]
    np.testing.assert_allclose(found, [4 / 6, 2 / 3, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(loss, cross_entropy(outputs, targets)[0], rtol=1e-6)
    # Without the first step: what was the second instance of class 0 is the first.
    mask = jnp.arange(6) > 0
    _, metrics = accuracy_by_instance((1, 2, 3))(outputs, targets, mask)
    found = [metrics[name] for name in ("accuracy", "accuracy_1", "accuracy_2", "accuracy_3")]
    np.testing.assert_allclose(found, [3 / 5, 2 / 3, 1 / 2, 0], rtol=1e-6)


@pytest.mark.full
def test_a_string_is_right_if_every_letter_is():
    targets = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 3], [0, 1, 2, 3, 4]])
    logits = 2.0 * jnp.eye(5)[targets]
    logits = logits.at[2, 4].set(logits[0, 0])  # an a for the last e
    loss, metrics = accuracy_by_instance((1, 2))(logits.reshape(3, 25), targets)
    found = [metrics[name] for name in ("accuracy", "accuracy_1", "accuracy_2")]
    np.testing.assert_allclose(found, [2 / 3, 1, 0], rtol=1e-6)
    right, wrong = -np.log(np.exp([2.0, 0.0]) / (np.exp(2.0) + 4))
    np.testing.assert_allclose(loss, (14 * right + wrong) / 15, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"instances": 1}, {"labels": "words"}, {"ways": 7}], ids=lambda value: str(value)
)
def test_errors_name_the_value(classes, options):
    with pytest.raises(ValueError, match=r"give |7-way tasks require 7 classes"):
        label_stream(classes, **{**SIZES, **options})
