"""Learned optimizers: the rules, their use through optax, and that they learn to optimize."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Model, Task, squared_error
from jaxmeta.learners.evolution import evolve, persistent_es
from jaxmeta.learners.optimizers import (
    lstm_optimizer,
    mlp_optimizer,
    optimizer_learner,
    windows,
)
from jaxmeta.learners.truncation import truncated_backpropagation
from jaxmeta.training import meta_update
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)
RULES = {"lstm": lstm_optimizer, "mlp": mlp_optimizer}
# θ is what is sought: W θ = y.
SYSTEM = Model(
    lambda key, inputs: jax.random.normal(key, inputs.shape[-1:]),
    lambda params, inputs, reference=None, key=None: inputs @ params,
)


@pytest.fixture(params=RULES.values(), ids=RULES)
def rule(request):
    return request.param


def systems(size=4):
    def sample(key):
        matrix_key, vector_key = jax.random.split(key)
        batch = Batch(
            jax.random.normal(matrix_key, (size, size)), jax.random.normal(vector_key, (size,))
        )
        return Task(batch, batch)

    return jax.tree_util.Partial(sample)


@pytest.mark.full
def test_a_rule_is_an_optax_transformation(rule):
    optimizer = rule()
    transformation = optimizer.transformation(optimizer.init(KEY))
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    grads = {"w": jnp.full((3, 2), 1e-3), "b": jnp.array([-1.0, 0.0])}
    chained = optax.chain(optax.clip_by_global_norm(1.0), transformation, optax.scale(0.5))
    updates, state = jax.jit(chained.update)(grads, chained.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, state)))
    update = jax.jit(transformation.update)
    first, state = update(grads, transformation.init(params), params)
    second, _ = update(grads, state, params)
    with pytest.raises(AssertionError):  # it remembers
        chex.assert_trees_all_close(first, second)


def test_the_lstm_treats_every_coordinate_alike():
    optimizer = lstm_optimizer(hidden=5)
    transformation = optimizer.transformation(optimizer.init(KEY))
    params, grads = jnp.zeros(3), jnp.array([0.5, -2.0, 1e-6])
    updates, _ = transformation.update(grads, transformation.init(params), params)
    order = jnp.array([2, 0, 1])
    permuted, _ = transformation.update(grads[order], transformation.init(params), params)
    chex.assert_trees_all_close(permuted, updates[order], rtol=1e-6)


@pytest.mark.full
def test_the_perceptron_does_not_mind_the_unit_of_the_loss():
    """But for log √v, which alone tells it: without that feature updates would be the same."""
    optimizer = mlp_optimizer()
    meta_params = optimizer.init(KEY)
    kernel = meta_params["hidden_0"]["kernel"]
    meta_params["hidden_0"]["kernel"] = kernel.at[11].set(0.0)  # its place among the features
    transformation = optimizer.transformation(meta_params)
    params, grads = jnp.array([0.3, -0.2]), jnp.array([0.5, -2.0])
    one, thousand = (
        transformation.update(unit * grads, transformation.init(params), params)[0]
        for unit in (1.0, 1000.0)
    )
    chex.assert_trees_all_close(one, thousand, rtol=1e-4)


def test_the_meta_loss_is_the_mean_of_the_query_losses_after_every_step(x64):
    """By hand, with a rule whose rate is all that is learned."""
    from jaxmeta.learners.optimizers import LearnedOptimizer

    by_rate = LearnedOptimizer(lambda key: jnp.asarray(0.1), optax.sgd)
    learner = optimizer_learner(SYSTEM, squared_error, by_rate, 3)
    task = jax.tree.map(lambda leaf: leaf.astype(float), systems()(KEY))
    rate = jnp.asarray(0.1)

    def by_hand(rate, start):
        theta, losses = start, []
        matrix, targets = task.support[:2]
        for _ in range(3):
            gradient = 2 * matrix.T @ (matrix @ jax.lax.stop_gradient(theta) - targets) / 4
            theta = theta - rate * gradient
            losses.append(jnp.square(matrix @ theta - targets).mean())
        return sum(losses) / 3, losses[-1]

    start = SYSTEM.init(jax.random.split(KEY)[0], task.support.inputs)
    (loss, last), gradient = jax.value_and_grad(by_hand, has_aux=True)(rate, start)
    value, info = learner.loss(KEY, rate, task)
    np.testing.assert_allclose(value, loss, rtol=1e-10)
    np.testing.assert_allclose(info.metrics["final_loss"], last, rtol=1e-10)
    np.testing.assert_allclose(
        jax.grad(learner.loss, 1, has_aux=True)(KEY, rate, task)[0], gradient
    )


@pytest.mark.parametrize(
    "training",
    [
        pytest.param("truncated", marks=pytest.mark.slow),
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("persistent", marks=pytest.mark.slow),
        pytest.param("evolution", marks=pytest.mark.slow),
    ],
)
def test_it_learns_to_optimize(training):
    rule = lstm_optimizer(hidden=8, scale=0.1)
    learner = optimizer_learner(SYSTEM, squared_error, rule, 20)
    parts = windows(SYSTEM, squared_error, rule, 20, 5)
    trained = {
        "full": lambda: learner,
        "truncated": lambda: truncated_backpropagation(learner, parts),
        "evolution": lambda: evolve(learner, std=0.05, pairs=8),
        "persistent": lambda: persistent_es(learner, parts, std=0.05, pairs=8),
    }[training]()
    sample = systems()
    init, update = meta_update(trained, optax.adam(1e-2), task_batch=8)
    state = init(KEY, sample)
    keys = jax.random.split(jax.random.key(1), 64)

    @jax.jit
    def judged(meta_params):
        return jax.vmap(lambda key: learner.loss(key, meta_params, sample(key))[0])(keys).mean()

    before = judged(state.meta_params)
    state, _ = chunk_of(update)(state, sample, length=200)
    assert judged(state.meta_params) < 0.6 * before


def test_windows_must_divide_the_steps(rule):
    build = partial(windows, SYSTEM, squared_error, rule())
    with pytest.raises(ValueError, match="windows of 7 steps don't divide a horizon of 20"):
        build(20, 7)
    with pytest.raises(ValueError, match="horizon 0"):
        optimizer_learner(SYSTEM, squared_error, rule(), 0)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_rule_works_in_float32_at_least(rule, dtype):
    """A quadratic over 3,000 steps: momenta and mean squares in bfloat16 end in NaN."""
    optimizer = rule()
    transformation = optimizer.transformation(optimizer.init(KEY))
    params = {"w": jnp.ones((), dtype), "wide": jnp.ones(2)}

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = transformation.update(params, state, params)
            chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, transformation.init(params)), length=3000)[0]

    ended, state = run(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((ended, state)))
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype.name for leaf in floats} == {"float32"}


def test_a_parameter_without_a_gradient_stays(rule):
    optimizer = rule()
    transformation = optimizer.transformation(optimizer.init(KEY))
    params = {"w": jnp.array([1.0, 2.0, 3.0]), "unused": jnp.ones(2)}
    state, update = transformation.init(params), jax.jit(transformation.update)
    tiny = {"w": jnp.array([0.0, 1e-25, 1.0]), "unused": jnp.zeros(2)}
    for grads in (tiny, jax.tree.map(jnp.zeros_like, tiny)):
        updates, state = update(grads, state, params)
        assert (updates["unused"] == 0).all()
        assert (updates["w"] != 0).tolist() == [False, True, True]  # once is enough


def test_what_update_lacks_is_said(rule):
    transformation = rule().transformation(rule().init(KEY))
    grads = jnp.ones(2)
    with pytest.raises(ValueError, match=r"_optimizer: update requires the parameters"):
        transformation.update(grads, transformation.init(grads))


def test_a_metric_cannot_be_named_as_the_last_loss():
    def objective(outputs, targets, mask=None):
        loss, _ = squared_error(outputs, targets, mask)
        return loss, {"final_loss": loss}

    learner = optimizer_learner(SYSTEM, objective, mlp_optimizer(), horizon=1)
    task = systems()(KEY)
    with pytest.raises(ValueError, match="'final_loss', which means something else"):
        jax.eval_shape(learner.loss, KEY, jax.eval_shape(learner.init, KEY, task), task)
