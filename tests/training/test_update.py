"""One update for every learner: what it averages, what it carries, and in which order."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Carry, Info, Task, meta_learner, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.learners import maml
from jaxmeta.models import mlp
from jaxmeta.training.update import chunk_of, meta_update

SAMPLE = sinusoids(shots=4, queries=4)
LEARNER = maml(mlp((4,), 1), squared_error, optax.sgd(0.01), inner_steps=1)
OUTER = optax.adam(1e-2)


def with_its_own(learner):
    """The same gradients, as of a method that takes them its own way."""
    return learner._replace(grad=lambda *given: learner.grad(*given))


def started(learner=LEARNER, **options):
    init, update = meta_update(learner, OUTER, task_batch=6, **options)
    return jax.jit(init)(jax.random.key(0), SAMPLE), jax.jit(update)


def test_an_update_is_one_step_along_the_mean_gradient():
    state, update = started()
    after, info = update(state, SAMPLE)

    @jax.jit
    def of_one_task(key):
        sample_key, learn_key = jax.random.split(key)
        carry = Carry(state.step)
        grads, info, _ = LEARNER.grad(learn_key, state.meta_params, SAMPLE(sample_key), carry)
        return grads, info.loss

    keys = jax.random.split(jax.random.fold_in(state.key, 0), 6)
    grads, loss = jax.tree.map(lambda *leaves: sum(leaves) / 6, *map(of_one_task, keys))
    updates, _ = OUTER.update(grads, state.optimizer_state, state.meta_params)
    expected = optax.apply_updates(state.meta_params, updates)
    chex.assert_trees_all_close(after.meta_params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    assert int(after.step) == 1
    assert (jax.random.key_data(after.key) == jax.random.key_data(state.key)).all()


def test_weights_that_tasks_share_have_one_gradient_in_memory():
    learner = maml(mlp((128, 128), 1), squared_error, optax.sgd(0.01), inner_steps=0)

    def compiled(learner):
        init, update = meta_update(learner, OUTER, task_batch=64)
        state = jax.jit(init)(jax.random.key(0), SAMPLE)
        step = jax.jit(update).lower(state, SAMPLE).compile()
        return step(state, SAMPLE), step.memory_analysis().temp_size_in_bytes

    (after, info), together = compiled(learner)
    (expected, expected_info), of_each = compiled(with_its_own(learner))
    chex.assert_trees_all_close(after.meta_params, expected.meta_params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(info, expected_info, rtol=1e-5)
    assert together < of_each - 50 * 128 * 128 * 4


@pytest.mark.full
@pytest.mark.parametrize("learner", [LEARNER, with_its_own(LEARNER)], ids=["loss", "own"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_tasks_in_groups_give_the_same_step(at_once, learner):
    state, update = started()
    _, grouped = started(learner, tasks_at_once=at_once)
    together, info = update(state, SAMPLE)
    apart, apart_info = grouped(state, SAMPLE)
    chex.assert_trees_all_close(together.meta_params, apart.meta_params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(info, apart_info, rtol=1e-5)


def test_a_sampler_is_any_function():
    state, update = started()
    _, plain = meta_update(LEARNER, OUTER, task_batch=6)
    after, _ = jax.jit(lambda state: plain(state, lambda key: SAMPLE(key)))(state)
    expected, _ = update(state, SAMPLE)
    chex.assert_trees_all_close(after.meta_params, expected.meta_params, rtol=1e-5, atol=1e-7)


def test_a_chunk_is_its_updates_one_by_one():
    state, update = started()
    one_by_one, losses = state, []
    for _ in range(3):
        one_by_one, info = update(one_by_one, SAMPLE)
        losses.append(info.loss)
    assert len(set(map(float, losses))) == 3  # every step sees tasks of its own
    _, plain = meta_update(LEARNER, OUTER, task_batch=6)
    chunk = chunk_of(plain)
    at_once, infos = chunk(state, SAMPLE, length=3)
    assert int(at_once.step) == 3
    chex.assert_trees_all_close(at_once.meta_params, one_by_one.meta_params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(infos.loss, losses, rtol=1e-4)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.meta_params))  # donated


def counting(key, meta_params, task, carry):
    """A gradient of its own: it says what it was given, and counts its visits in its slot."""
    visits = carry.slot["visits"] + 1
    loss = carry.step * 100.0 + carry.shared["bonus"] + carry.slot["place"]
    carry = carry._replace(slot={**carry.slot, "visits": visits})
    return meta_params * 0 - loss, Info(loss, {"visits": visits}), carry


@pytest.mark.parametrize("at_once", [None, 2])
def test_step_shared_and_slots_reach_the_learner(at_once):
    learner = meta_learner(
        init=lambda key, task: jnp.zeros(()),
        adapt=lambda key, meta_params, support: meta_params,
        predict=lambda adapted, inputs, key=None: jnp.full(inputs.shape, adapted),
        objective=squared_error,
    )._replace(grad=counting)
    init, update = meta_update(learner, optax.sgd(1.0), task_batch=4, tasks_at_once=at_once)
    empty = Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    sample = jax.tree_util.Partial(lambda key: Task(empty, empty))
    state = init(jax.random.key(0), sample)._replace(
        shared={"bonus": jnp.asarray(7.0)},
        slots={"place": jnp.array([0.0, 10.0, 20.0, 30.0]), "visits": jnp.array([0.0, 1, 2, 3])},
    )
    state, first = update(state, sample)
    state, second = update(state, sample)
    assert float(first.loss) == 7 + 15
    assert float(second.loss) == 100 + 7 + 15
    assert float(state.meta_params) == float(first.loss + second.loss)
    np.testing.assert_array_equal(state.slots["visits"], [2, 3, 4, 5])
    np.testing.assert_array_equal(state.slots["place"], [0, 10, 20, 30])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"task_batch": 0}, "task batch 0"),
        ({"task_batch": 4, "tasks_at_once": 0}, "tasks at once 0"),
        ({"task_batch": 4, "tasks_at_once": 3}, "number that divides 4"),
    ],
)
def test_impossible_groups_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        meta_update(LEARNER, OUTER, **sizes)
