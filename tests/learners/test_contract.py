"""The contract battery: what every learner promises, tried on all of them (DESIGN, law 6).

No test is skipped for any learner. Where a learner promises something else, `SURROGATES` or
`UNPADDED` says what and why, and the exception is itself tested.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxmeta import Info
from jaxmeta.training.update import chunk_of, meta_update


def straight_through(setting, objective):
    """The query loss with the inner displacement taken as a constant, `φ' ↦ L(φ' + (θ_K − φ))`."""
    learner, key, meta_params, task, _ = setting
    adapted = learner.adapt(key, meta_params, task.support)
    displacement = jax.tree.map(jnp.subtract, adapted.params, meta_params)

    def loss(moved):
        params = jax.tree.map(jnp.add, moved, displacement)
        outputs = learner.predict(adapted._replace(params=params), task.query.inputs)
        return objective(outputs, task.query.targets)[0]

    return loss


def distance_to_adapted(setting, objective):
    """`φ' ↦ ½ ‖φ' − θ_K‖²`."""
    learner, key, meta_params, task, _ = setting
    adapted = learner.adapt(key, meta_params, task.support).params

    def loss(moved):
        squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum() / 2, moved, adapted)
        return sum(jax.tree.leaves(squares))

    return loss


# The learners whose `grad` is by design not that of `loss`: of what, and why.
SURROGATES = {
    "first-order-maml": (straight_through, "inner gradients are taken as constants"),
    "reptile": (distance_to_adapted, "moves towards the adapted parameters"),
    "reptile-minibatches": (distance_to_adapted, "moves towards the adapted parameters"),
}

# The learners that padded examples change, and why.
UNPADDED = {
    "maml-batch-norm": "batch statistics count every row",
    "maml-support-norm": "the support's statistics count every row",
    "reptile-minibatches": "minibatches are drawn from all rows",
}


def task_batch(case, prepare, count):
    keys = jax.random.split(jax.random.key(3), count)
    tasks = [prepare(case, key=key).task for key in keys]
    return keys, jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)


def test_shapes_and_types(case, prepare):
    learner, key, meta_params, task, carry = prepare(case)
    adapted = learner.adapt(key, meta_params, task.support)
    outputs = learner.predict(adapted, task.query.inputs)
    loss, info = learner.loss(key, meta_params, task)
    grads, grad_info, slot = learner.grad(key, meta_params, task, carry._replace(slot=key))

    assert outputs.shape[0] == task.query.targets.shape[0]
    chex.assert_shape(loss, ())
    chex.assert_type([outputs, loss, *jax.tree.leaves((grads, info))], jnp.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, meta_params)
    assert isinstance(info, Info)
    chex.assert_trees_all_equal_structs(info, grad_info)
    chex.assert_trees_all_close(info, grad_info, rtol=1e-5)
    assert loss == info.loss
    expected, metrics = case.objective(outputs, task.query.targets)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    chex.assert_trees_all_close(dict(info.metrics), metrics, rtol=1e-5)
    assert slot is key  # this place's slot comes back


def test_init_looks_at_shapes_only(case, prepare):
    learner, key, _, task, _ = prepare(case)
    blank = jax.tree.map(jnp.zeros_like, task)
    chex.assert_trees_all_equal(learner.init(key, task), learner.init(key, blank))
    different = learner.init(jax.random.key(9), task)
    assert not all(
        jax.tree.leaves(jax.tree.map(jnp.array_equal, learner.init(key, task), different))
    )


def test_pure(case, prepare):
    learner, key, meta_params, task, carry = prepare(case)
    grad = jax.jit(learner.grad)
    with jax.checking_leaks():
        first = grad(key, meta_params, task, carry)
    other = prepare(case, key=jax.random.key(5))
    grad(other.key, other.meta_params, other.task, carry)
    chex.assert_trees_all_equal(first, grad(key, meta_params, task, carry))
    program = jax.make_jaxpr(learner.grad)(key, meta_params, task, carry)
    assert not program.effects  # nothing is printed, called back or written


def test_jit_and_vmap_change_nothing(case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(case)
    keys, tasks = task_batch(case, prepare, 3)
    grad = partial(learner.grad, carry=carry)
    of_tasks = [
        (key, meta_params, jax.tree.map(lambda leaf, i=i: leaf[i], tasks))
        for i, key in enumerate(keys)
    ]
    compiled = [jax.jit(grad)(*arguments) for arguments in of_tasks]
    mapped = jax.vmap(grad, in_axes=(0, None, 0))(keys, meta_params, tasks)
    chex.assert_trees_all_close(compiled[0], grad(*of_tasks[0]), rtol=1e-9, atol=1e-12)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *compiled)
    chex.assert_trees_all_close(mapped, stacked, rtol=1e-9, atol=1e-12)


def test_traced_once(case, prepare):
    learner, *_ = prepare(case)
    grad = jax.jit(chex.assert_max_traces(learner.grad, n=1))
    learn = jax.jit(chex.assert_max_traces(learner.adapt, n=1))
    for step in range(3):
        _, key, meta_params, task, carry = prepare(case, key=jax.random.key(step))
        carry = carry._replace(step=carry.step + step)
        grads, _, _ = grad(key, meta_params, task, carry)
        moved = jax.tree.map(jnp.subtract, meta_params, grads)
        grad(key, moved, task, carry)
        learn(key, moved, task.support)


def test_gradient_is_that_of_the_loss_or_the_surrogate(case, prepare, assert_gradient):
    setting = prepare(case)
    learner, key, meta_params, task, carry = setting
    if case.name in SURROGATES:
        surrogate, _ = SURROGATES[case.name]
        function = surrogate(setting, case.objective)
    else:
        function = lambda moved: learner.loss(key, moved, task)[0]  # noqa: E731
    grads, _, _ = jax.jit(learner.grad)(key, meta_params, task, carry)
    assert_gradient(grads, function, meta_params)


@pytest.mark.parametrize("case", [pytest.param(name) for name in SURROGATES], indirect=True)
def test_surrogate_is_needed(case, prepare, assert_gradient):
    learner, key, meta_params, task, carry = prepare(case)
    grads, _, _ = jax.jit(learner.grad)(key, meta_params, task, carry)
    with pytest.raises(AssertionError):
        assert_gradient(grads, lambda moved: learner.loss(key, moved, task)[0], meta_params)


def test_learns_a_small_task(case, prepare):
    learner = case.build()
    update = meta_update(learner, case.outer, task_batch=8)
    sample = jax.tree_util.Partial(case.sample)
    keys = jax.random.split(jax.random.key(11), 100)

    @jax.jit
    def held_out_loss(meta_params):
        losses = jax.vmap(lambda key: learner.loss(key, meta_params, sample(key))[0])(keys)
        return losses.mean()

    state = update.init(jax.random.key(0), sample)
    before = held_out_loss(state.meta_params)
    state, _ = chunk_of(update.update)(state, sample, 200)
    after = held_out_loss(state.meta_params)
    print(case.name, before, after)
    assert after < 0.7 * before


def test_sharded_equals_unsharded(case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(case)
    keys, tasks = task_batch(case, prepare, 8)
    mesh = jax.make_mesh((4,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:4])
    everywhere, by_task = PartitionSpec(), PartitionSpec("tasks")

    def mean_gradient(meta_params, keys, tasks):
        grads, info, _ = jax.vmap(lambda key, task: learner.grad(key, meta_params, task, carry))(
            keys, tasks
        )
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), (grads, info))

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(everywhere, by_task, by_task),
        out_specs=everywhere,
        check_vma=True,
    )
    def sharded(meta_params, keys, tasks):
        # Without this JAX sums the inner gradients over the devices and mixes their tasks.
        meta_params = jax.lax.pcast(meta_params, "tasks", to="varying")
        return jax.lax.pmean(mean_gradient(meta_params, keys, tasks), "tasks")

    chex.assert_trees_all_close(
        sharded(meta_params, keys, tasks),
        jax.jit(mean_gradient)(meta_params, keys, tasks),
        rtol=1e-9,
        atol=1e-12,
    )


def pad(batch, rows):
    """`rows` examples of nonsense behind the real ones, masked out."""

    def longer(leaf):
        nonsense = jnp.arange(rows * leaf[0].size).reshape(rows, *leaf.shape[1:]) % 3
        return jnp.concatenate([leaf, nonsense.astype(leaf.dtype)])

    count = batch.targets.shape[0]
    padded = jax.tree.map(longer, batch)
    return padded._replace(mask=jnp.arange(count + rows) < count)


def test_padding_changes_nothing(case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(case)
    padded = task._replace(support=pad(task.support, 2), query=pad(task.query, 3))
    grad = jax.jit(learner.grad)
    compare = partial(
        chex.assert_trees_all_close,
        grad(key, meta_params, task, carry),
        grad(key, meta_params, padded, carry),
        rtol=1e-9,
        atol=1e-12,
    )
    if case.name in UNPADDED:
        with pytest.raises(AssertionError):
            compare()
    else:
        compare()


def test_trajectory_is_what_fewer_steps_would_give(case, prepare, x64):
    learner, key, meta_params, task, _ = prepare(case)
    if learner.trajectory is None:
        assert "steps" not in case.build.keywords
        return
    path = learner.trajectory(key, meta_params, task.support, task.query.inputs)
    steps = case.build.keywords["steps"]
    assert path.shape[0] == steps + 1
    for taken in range(steps + 1):
        shorter = case.build(steps=taken)
        adapted = shorter.adapt(key, meta_params, task.support)
        expected = shorter.predict(adapted, task.query.inputs)
        np.testing.assert_allclose(path[taken], expected, rtol=1e-9, atol=1e-12)
