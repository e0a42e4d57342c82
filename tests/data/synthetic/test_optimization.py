"""Families of problems for learned optimizers."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.images.digits import digits
from jaxmeta.data.synthetic.optimization import ACTIVATIONS, classifiers, quadratics

KEY = jax.random.key(0)
DIGITS = partial(classifiers, digits(), ways=10, shots=4, queries=2)


def test_quadratics_have_what_their_equation_says():
    family = quadratics(5)
    task = family.sample(KEY)
    chex.assert_trees_all_equal(task.support, task.query)
    theta = family.model.init(KEY, task.support.inputs)
    loss, _ = family.objective(family.model.apply(theta, task.support.inputs), task.support.targets)
    matrix, vector = map(np.asarray, task.support[:2])
    np.testing.assert_allclose(
        loss, np.square(matrix @ np.asarray(theta) - vector).mean(), rtol=1e-5
    )
    assert not np.array_equal(matrix, family.sample(jax.random.key(1)).support.inputs)
    with pytest.raises(ValueError, match="0 dimensions"):
        quadratics(0)


def test_the_digits_are_all_there():
    classes = digits()
    assert classes.images.shape == (1797, 8, 8, 1)
    assert classes.images.dtype == np.uint8
    assert classes.images.max() == 255
    assert classes.counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_task_draws_width_activation_and_scale():
    family = DIGITS(widths=(2, 6), activations=("relu", "tanh"), scales=(0.5, 2.0))
    tasks = jax.jit(jax.vmap(family.sample))(jax.random.split(KEY, 200))
    inputs = tasks.support.inputs
    widths = np.asarray(inputs["units"][:, 0].sum(axis=-1))
    assert set(widths.astype(int)) == {2, 3, 4, 5, 6}
    assert set(np.asarray(inputs["activation"][:, 0]).tolist()) == {0, 1}
    scales = np.asarray(inputs["scale"][:, 0])
    assert 0.5 <= scales.min() < 0.6
    assert 1.8 < scales.max() <= 2.0
    assert 0.9 < np.median(scales) < 1.1  # log-uniform
    # Of all examples alike, in the support set and the query set.
    for name in ("units", "activation", "scale"):
        rows = inputs[name]
        assert (rows == rows[:, :1]).all()
        assert (tasks.query.inputs[name][:, 0] == rows[:, 0]).all()


@pytest.mark.full
def test_a_narrow_network_is_a_wide_one_with_units_masked():
    family = DIGITS(widths=(3, 8), activations=("tanh",), scales=(1.0, 1.0))
    task = family.sample(KEY)
    inputs = task.support.inputs
    width = int(inputs["units"][0].sum())
    inputs["units"] = jnp.broadcast_to((jnp.arange(8) < 5).astype(jnp.float32), (40, 8))
    params = family.model.init(KEY, inputs)
    hidden = np.tanh(np.asarray(inputs["images"]) @ np.asarray(params["hidden"]["kernel"])[:, :5])
    expected = hidden @ np.asarray(params["head"]["kernel"])[:5]
    np.testing.assert_allclose(family.model.apply(params, inputs), expected, rtol=2e-4, atol=1e-5)
    assert 3 <= width <= 8


def test_every_activation_is_its_own():
    for index, (name, function) in enumerate(ACTIVATIONS.items()):
        family = DIGITS(widths=(4, 4), activations=tuple(ACTIVATIONS), scales=(1.0, 1.0))
        task = family.sample(KEY)
        inputs = {**task.support.inputs, "activation": jnp.full((40,), index, jnp.int32)}
        alone = DIGITS(widths=(4, 4), activations=(name,), scales=(1.0, 1.0))
        params = family.model.init(KEY, inputs)
        outputs = family.model.apply(params, inputs)
        only = alone.model.apply(params, {**inputs, "activation": jnp.zeros((40,), jnp.int32)})
        chex.assert_trees_all_close(outputs, only, rtol=1e-6)
        assert function(jnp.zeros(())) == outputs.dtype.type(function(jnp.zeros(())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations": ("swish",)}, "choose from relu"),
        ({"activations": ()}, "choose from relu"),
        ({"widths": (4, 2)}, r"widths \(4, 2\)"),
        ({"scales": (0.0, 1.0)}, r"scales \(0.0, 1.0\)"),
        ({"shots": 200}, "shots"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DIGITS(**options)


def test_a_batch_as_large_as_the_support_set_is_all_of_it():
    assert DIGITS(problem_batch=64).problem_batch is None
    assert DIGITS(problem_batch=39).problem_batch == 39
