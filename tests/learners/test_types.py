"""NumPy's arrays are as good as JAX's, and floats of any type as good as another."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Carry, cross_entropy, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.learners import maml
from jaxmeta.learners.optimizers import lstm_optimizer, mlp_optimizer, optimizer_learner
from jaxmeta.models import conv4, mlp
from jaxmeta.training import meta_update
from jaxmeta.training.update import chunk_of
from tests.learners.conftest import patterns

KEY = jax.random.key(0)


def in_type(tree, dtype):
    real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if real(leaf) else leaf, tree)


def problem(case, **options):
    """A learner, meta-parameters and a task, all of them NumPy's arrays."""
    learner, task = case.build(**options), case.sample(KEY)
    shapes = jax.eval_shape(learner.init, KEY, task)
    meta_params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)
    return learner, meta_params, jax.tree.map(np.asarray, task)


def carry_of(learner, meta_params, task):
    slot = () if learner.slot is None else learner.slot(KEY, meta_params, task)
    return Carry(np.zeros((), np.int32), slot=jax.tree.map(np.asarray, slot))


def test_numpy_arrays_serve_beside_traced_ones(long_case):
    options = {}
    if "inner_batch" in inspect.signature(long_case.build).parameters:
        options = {"inner_batch": 2}
    learner, meta_params, task = problem(long_case, **options)
    carry = carry_of(learner, meta_params, task)

    def outputs(key):  # the key alone is traced
        adapted = learner.adapt(key, meta_params, task.support)
        found = [learner.predict(adapted, task.query.inputs)]
        if learner.trajectory is not None:
            found.append(learner.trajectory(key, meta_params, task.support, task.query.inputs)[-1])
        return found

    found = jax.eval_shape(outputs, KEY)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(found)} == {len(task.query.targets)}
    grads, _, _ = jax.eval_shape(lambda params: learner.grad(KEY, params, task, carry), meta_params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, meta_params)


@pytest.mark.parametrize(("of_params", "of_task"), [("float64", "float64"), ("float32", "float64")])
def test_floats_of_any_types(long_case, of_params, of_task, x64):
    learner, meta_params, task = problem(long_case)
    meta_params, task = in_type(meta_params, of_params), in_type(task, of_task)
    grads, info, _ = jax.eval_shape(
        learner.grad, KEY, meta_params, task, carry_of(learner, meta_params, task)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(of_params)}
    if of_params == of_task:
        assert info.loss.dtype == jnp.float64


@pytest.mark.parametrize("rule", [lstm_optimizer(hidden=2), mlp_optimizer(hidden=2)])
@pytest.mark.parametrize("of_task", ["float32", "float64"])
def test_learned_optimizers_in_mixed_types(rule, of_task, x64):
    learner = optimizer_learner(mlp((2,), 1), squared_error, rule, 2)
    task = in_type(sinusoids(shots=3, queries=3)(KEY), of_task)
    shapes = jax.eval_shape(learner.init, KEY, task)
    meta_params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), shapes)
    grads, _, _ = jax.eval_shape(learner.grad, KEY, meta_params, task, Carry(jnp.zeros((), int)))
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float64")}


@pytest.mark.full
@pytest.mark.parametrize("of_task", ["float32", "float64"])
def test_training_a_network_of_images_in_float64(of_task, x64):
    """The README's example: the images are float32, and initializers make float64."""
    draw = patterns()
    sample = jax.tree_util.Partial(lambda key: in_type(draw(key), of_task))
    learner = maml(
        conv4(3, width=4, downsampling="stride"), cross_entropy, optax.sgd(0.4), inner_steps=1
    )
    init, update = meta_update(learner, optax.adam(1e-3), task_batch=2)
    state = jax.eval_shape(init, KEY, sample)
    after, infos = jax.eval_shape(lambda state: chunk_of(update)(state, sample, length=2), state)
    assert after == state
    assert infos.loss.shape == (2,)
