"""The contract battery: what every learner promises, tried on all of them (DESIGN, law 6).

No test is skipped for any learner. Where one promises something else, `EXCEPTIONS` says why, and
the test asserts that it is so.
"""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxmeta import Info
from jaxmeta.training.update import chunk_of, meta_update

# test, learner: why it is otherwise
EXCEPTIONS = {
    ("gradient", "first-order-maml"): "inner gradients are constants: straight through them",
    ("gradient", "reptile"): "the way back from the adapted parameters: of half its square",
    ("gradient", "reptile-minibatches"): "the way back from the adapted parameters",
    ("padding", "maml-batch"): "batch statistics count every row",
    ("padding", "maml-support"): "the support's statistics count every row",
    ("padding", "reptile-minibatches"): "minibatches are drawn from all rows",
    ("trajectory", "prototypical"): "takes no inner steps",
    ("trajectory", "prototypical-cosine"): "takes no inner steps",
}

assert_close = partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-12)


def straight_through(setting, objective):
    """`φ' ↦ L(φ' + (θ_K − φ))`: the inner displacement is a constant."""
    learner, key, meta_params, task, _ = setting
    adapted = learner.adapt(key, meta_params, task.support)
    displacement = jax.tree.map(jnp.subtract, adapted.params, meta_params)

    def loss(moved):
        params = jax.tree.map(jnp.add, moved, displacement)
        outputs = learner.predict(adapted._replace(params=params), task.query.inputs)
        return objective(outputs, task.query.targets)[0]

    return loss


def squared_distance(setting, objective):
    """`φ' ↦ ½ ‖φ' − θ_K‖²`: the adapted parameters are a constant."""
    learner, key, meta_params, task, _ = setting
    adapted = learner.adapt(key, meta_params, task.support).params

    def loss(moved):
        squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum() / 2, moved, adapted)
        return sum(jax.tree.leaves(squares))

    return loss


SURROGATES = {
    "first-order-maml": straight_through,
    "reptile": squared_distance,
    "reptile-minibatches": squared_distance,
}


@functools.cache
def mapped(learner):
    return jax.jit(jax.vmap(learner.grad, in_axes=(0, None, 0, None)))


def several(case, prepare, count=8):
    settings = [prepare(case, seed) for seed in range(count)]
    tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s.task for s in settings])
    return jnp.stack([s.key for s in settings]), tasks


def test_shapes_and_types(case, prepare):
    learner, key, meta_params, task, carry = prepare(case)
    adapted = jax.eval_shape(learner.adapt, key, meta_params, task.support)
    outputs = jax.eval_shape(learner.predict, adapted, task.query.inputs)
    loss, info = jax.eval_shape(learner.loss, key, meta_params, task)
    slotted = carry._replace(slot={"of this place": key})
    grads, grad_info, slot = jax.eval_shape(learner.grad, key, meta_params, task, slotted)
    value, metrics = jax.eval_shape(case.objective, outputs, task.query.targets)

    assert outputs.shape[0] == task.query.targets.shape[0]
    assert isinstance(info, Info)
    assert loss == info.loss == value
    assert dict(info.metrics) == metrics
    assert info == grad_info
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, meta_params)
    chex.assert_trees_all_equal_shapes_and_dtypes(slot, slotted.slot)
    chex.assert_shape([loss, *metrics.values()], ())
    chex.assert_type(jax.tree.leaves((outputs, info, grads)), jnp.float32)


def test_init_needs_shapes_only(case, prepare):
    learner, key, _, task, _ = prepare(case)
    init = jax.jit(learner.init)
    meta_params = init(key, task)
    chex.assert_trees_all_equal(meta_params, init(key, jax.tree.map(jnp.zeros_like, task)))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(meta_params, init(jax.random.key(9), task))


def test_pure(case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(case)
    with jax.checking_leaks():
        program = jax.make_jaxpr(learner.grad)(key, meta_params, task, carry)
    assert not program.effects  # nothing is printed, called back or written
    grad = jax.jit(learner.grad)
    first = grad(key, meta_params, task, carry)
    other = prepare(case, seed=5)
    between = grad(other.key, other.meta_params, other.task, carry)
    chex.assert_trees_all_equal(first, grad(key, meta_params, task, carry))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(first, between)


def test_jit_changes_nothing(case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(case)
    compiled = jax.jit(learner.grad)(key, meta_params, task, carry)
    assert_close(compiled, learner.grad(key, meta_params, task, carry))
    loss, info = learner.loss(key, meta_params, task)
    assert_close((loss, info), (info.loss, compiled[1]))


def test_vmap_changes_nothing(case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(case)
    keys, tasks = several(case, prepare)
    together = mapped(learner)(keys, meta_params, tasks, carry)
    for index in (0, 5):
        place = partial(jax.tree.map, lambda leaf, index=index: leaf[index])
        alone = jax.jit(learner.grad)(keys[index], meta_params, place(tasks), carry)
        assert_close(place(together), alone)


def test_traced_once(case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(case)
    chex.clear_trace_counter()  # chex knows functions by their names
    grad = jax.jit(chex.assert_max_traces(learner.grad, n=1))
    for seed in range(3):
        _, key, _, task, _ = prepare(case, seed)
        grads, _, _ = grad(key, meta_params, task, carry)
        meta_params = jax.tree.map(jnp.subtract, meta_params, grads)
        carry = carry._replace(step=carry.step + 1)


def test_gradient_is_that_of_the_loss_or_of_the_surrogate(case, prepare, assert_gradient):
    learner, key, meta_params, task, carry = setting = prepare(case)
    grads, _, _ = jax.jit(learner.grad)(key, meta_params, task, carry)
    of_loss = partial(
        assert_gradient, grads, lambda moved: learner.loss(key, moved, task)[0], meta_params
    )
    if ("gradient", case.name) in EXCEPTIONS:
        assert_gradient(grads, SURROGATES[case.name](setting, case.objective), meta_params)
        with pytest.raises(AssertionError):
            of_loss()
    else:
        of_loss()


def test_learns_a_small_task(case):
    learner = case.build()
    update = meta_update(learner, case.outer, task_batch=8)
    keys = jax.random.split(jax.random.key(11), 100)

    @jax.jit
    def held_out_loss(meta_params):
        loss = lambda key: learner.loss(key, meta_params, case.sample(key))[0]  # noqa: E731
        return jax.vmap(loss)(keys).mean()

    state = jax.jit(update.init)(jax.random.key(0), case.sample)
    before = held_out_loss(state.meta_params)
    state, _ = chunk_of(update.update)(state, case.sample, 200)
    after = held_out_loss(state.meta_params)
    print(case.name, before, after)
    assert after < 0.7 * before


def test_sharded_equals_unsharded(case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(case)
    keys, tasks = several(case, prepare)
    mesh = jax.make_mesh((4,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:4])
    everywhere, by_task = PartitionSpec(), PartitionSpec("tasks")
    mean = partial(jax.tree.map, lambda leaf: leaf.mean(axis=0))

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
        grads, info, _ = mapped(learner)(keys, meta_params, tasks, carry)
        return jax.lax.pmean(mean((grads, info)), "tasks")

    grads, info, _ = mapped(learner)(keys, meta_params, tasks, carry)
    assert_close(sharded(meta_params, keys, tasks), mean((grads, info)))


def pad(batch, rows):
    """`rows` examples of nonsense behind the real ones, masked out."""
    count = batch.targets.shape[0]

    def longer(leaf):
        nonsense = jnp.arange(rows * leaf[0].size).reshape(rows, *leaf.shape[1:]) % 3
        return jnp.concatenate([leaf, nonsense.astype(leaf.dtype)])

    return jax.tree.map(longer, batch)._replace(mask=jnp.arange(count + rows) < count)


def test_padding_changes_nothing(case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(case)
    padded = task._replace(support=pad(task.support, 2), query=pad(task.query, 3))
    grad = jax.jit(learner.grad)
    same = partial(
        assert_close, grad(key, meta_params, task, carry), grad(key, meta_params, padded, carry)
    )
    if ("padding", case.name) in EXCEPTIONS:
        with pytest.raises(AssertionError):
            same()
    else:
        same()


def test_trajectory_is_what_fewer_steps_would_give(case, prepare, x64):
    learner, key, meta_params, task, _ = prepare(case)
    if ("trajectory", case.name) in EXCEPTIONS:
        assert learner.trajectory is None
        return
    path = jax.jit(learner.trajectory)(key, meta_params, task.support, task.query.inputs)
    steps = path.shape[0] - 1
    assert steps > 1
    for taken in (0, 1, steps):
        shorter = case.build(steps=taken)

        @jax.jit
        def predictions(meta_params, task, shorter=shorter):
            adapted = shorter.adapt(key, meta_params, task.support)
            return shorter.predict(adapted, task.query.inputs)

        np.testing.assert_allclose(path[taken], predictions(meta_params, task), rtol=1e-9)
