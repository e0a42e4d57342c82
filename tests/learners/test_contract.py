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
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, PartitionSpec

from jaxmeta import Batch, Carry, Info, Task
from jaxmeta.learners import MetaSGDParams, meta_sgd
from jaxmeta.learners.evolution import moved, noise_like
from jaxmeta.learners.memory import lstm_machine, run
from jaxmeta.models import mlp
from jaxmeta.training.update import chunk_of, meta_update

CURVE = mlp((16,), 1)  # the model of `conftest`'s curves
ASKING_MACHINE = lstm_machine(8, 3 + 1)  # that of its streams

# test, learner: why it is otherwise
EXCEPTIONS = {
    ("gradient", "first-order-maml"): "inner gradients are constants: straight through them",
    ("gradient", "reptile"): "the way back from the adapted parameters: that of half its square",
    ("gradient", "meta-transfer"): "the pre-trained parameters are frozen: constants",
    ("gradient", "oml"): "the rate of the online steps is a constant",
    ("gradient", "anml"): "the rate of the online steps is a constant",
    ("gradient", "imaml"): "implicit: that of where the inner loop would end, from where it ended",
    ("gradient", "maml-plus-plus"): "the losses after every step, weighted",
    ("gradient", "evolve"): "an estimate: the differences along a few directions",
    ("gradient", "truncated-backpropagation"): "of the loss of one window",
    ("gradient", "persistent-es"): "an estimate, of the loss of one window",
    ("gradient", "maml-rl"): "of a surrogate, on the episodes gathered at the meta-parameters",
    ("gradient", "promp"): "of a surrogate, on the episodes gathered at the meta-parameters",
    ("gradient", "rl-squared"): "of a surrogate, on the episodes gathered at the meta-parameters",
    ("gradient", "active-one-shot"): "of the difference to a target, a constant: Q-learning",
    ("gradient", "sparse-maml"): "the derivative of its binary mask is taken as 1",
    ("info", "evolve"): "the mean over the perturbed losses",
    ("info", "truncated-backpropagation"): "of one window, by its loss alone",
    ("info", "persistent-es"): "of one window, by its loss alone",
    ("start", "optimizer-learner"): "a run has at least one step",
    ("start", "truncated-backpropagation"): "a run has at least one step",
    ("start", "persistent-es"): "a run has at least one step",
    ("trajectory", "supervised"): "takes no inner steps",
    ("padding", "maml-plus-plus"): "batch statistics would count every row: refused",
    ("padding", "first-order-maml"): "batch statistics would count every row: refused",
    ("padding", "anil"): "the support's statistics would count every row: refused",
    ("padding", "prototypical"): "the support's statistics would count every row: refused",
    ("query", "first-order-maml"): "its model takes the query's batch statistics: transductive",
    ("query", "maml-plus-plus"): "its model takes the query's batch statistics: transductive",
    ("trajectory", "skeleton"): "does not tell its inner steps",
    ("trajectory", "skeleton-of-images"): "does not tell its inner steps",
    ("padding", "skeleton-of-images"): "the support's statistics would count every row: refused",
    ("trajectory", "oml"): "a stream has a step for each of its examples",
    ("trajectory", "anml"): "a stream has a step for each of its examples",
    ("trajectory", "online"): "a stream has a step for each of its examples",
    ("trajectory", "r2d2"): "takes no inner steps",
    ("trajectory", "prototypical"): "takes no inner steps",
    ("trajectory", "prototypical-cosine"): "takes no inner steps",
    ("trajectory", "prototypical-mahalanobis"): "takes no inner steps",
    ("trajectory", "matching"): "takes no inner steps",
    ("trajectory", "matching-full-context"): "takes no inner steps",
    ("trajectory", "siamese"): "takes no inner steps",
    ("trajectory", "mann"): "takes no inner steps",
    ("trajectory", "snail"): "takes no inner steps",
    ("trajectory", "active-one-shot"): "takes no inner steps",
    ("query", "active-one-shot"): "the query is one sequence, in which what was before matters",
    ("trajectory", "ntm"): "takes no inner steps",
    ("trajectory", "dnc"): "takes no inner steps",
    ("trajectory", "lstm"): "takes no inner steps",
    ("query", "ntm"): "the query is one sequence, in which what was before matters",
    ("query", "dnc"): "the query is one sequence, in which what was before matters",
    ("query", "lstm"): "the query is one sequence, in which what was before matters",
    ("trajectory", "alpaca"): "takes no inner steps",
    ("trajectory", "moca"): "takes no inner steps",
    ("trajectory", "sliding-window"): "takes no inner steps",
    ("trajectory", "bayesian-last-layer"): "takes no inner steps",
    ("trajectory", "bayesian-last-layer-classifier"): "takes no inner steps",
    ("trajectory", "conditional-neural-process"): "takes no inner steps",
    ("trajectory", "conditional-neural-process-classifier"): "takes no inner steps",
    ("trajectory", "neural-process"): "takes no inner steps",
    ("trajectory", "attentive-neural-process"): "takes no inner steps",
    ("trajectory", "prior-fitted"): "takes no inner steps",
    ("trajectory", "transformer-neural-process"): "takes no inner steps",
    ("trajectory", "rl-squared"): "takes no inner steps",
    ("trajectory", "decision-pretrained"): "takes no inner steps",
    ("trajectory", "relation"): "takes no inner steps",
    ("trajectory", "distribution-calibration"): "does not tell its inner steps",
    ("trajectory", "noise-augmented"): "does not tell its inner steps",
    ("trajectory", "vae-augmented"): "does not tell its inner steps",
    ("trajectory", "vae"): "takes no inner steps",
    ("trajectory", "gan-augmented"): "takes no inner steps",
    ("trajectory", "augmented"): "takes no inner steps",
    ("trajectory", "semi-supervised-prototypical"): "refines prototypes, not parameters",
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
        squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum() / 2, moved.initial, adapted)
        return sum(jax.tree.leaves(squares))

    return loss


def implicit(setting, objective):
    """`φ' ↦ v·φ'` with (I + H/λ) v = ∇L(θ_K; query), the Hessian written out and inverted."""
    learner, key, meta_params, task, _ = setting
    theta, unravel = ravel_pytree(learner.adapt(key, meta_params, task.support).params)

    def loss(batch):
        outputs = lambda theta: CURVE.apply(unravel(theta), batch.inputs)  # noqa: E731
        return lambda theta: objective(outputs(theta), batch.targets)[0]

    hessian = jax.hessian(loss(task.support))(theta)
    at_query = jax.grad(loss(task.query))(theta)
    solution = jnp.linalg.solve(jnp.eye(theta.size) + hessian / 5.0, at_query)
    return lambda moved: solution @ ravel_pytree(moved)[0]


def every_step(setting, objective):
    """The mean of the losses after every step: the weights at the beginning."""
    learner, key, _, task, _ = setting

    def loss(moved):
        path = learner.trajectory(key, moved, task.support, task.query.inputs)
        return jax.vmap(lambda outputs: objective(outputs, task.query.targets)[0])(path)[1:].mean()

    return loss


def frozen(setting, objective):
    """The loss with the pre-trained parameters where they are."""
    learner, key, meta_params, task, _ = setting
    return lambda moved: learner.loss(key, moved._replace(frozen=meta_params.frozen), task)[0]


def at_a_constant_rate(setting, objective):
    """The loss with the rate of the steps where it is."""
    learner, key, meta_params, task, _ = setting
    return lambda moved: learner.loss(key, moved._replace(rate=meta_params.rate), task)[0]


def with_a_linear_mask(setting, objective):
    """`(φ', m') ↦ L` with the rates α (1[m ≥ 0] + m' − m), which are those of Meta-SGD."""
    _, key, meta_params, task, _ = setting
    learner = meta_sgd(CURVE, objective, 2)

    def loss(moved):
        rates = jax.tree.map(
            lambda m, at_first: 0.02 * ((at_first >= 0) + m - at_first),
            moved.mask,
            meta_params.mask,
        )
        return learner.loss(key, MetaSGDParams(moved.initial, rates), task)[0]

    return loss


def along_differences(loss, meta_params, noise_key):
    """`φ' ↦ ḡ·φ'` with the estimate ḡ = 1/(2σn) Σ_i [L(φ + σε_i) − L(φ − σε_i)] ε_i."""
    std, pairs = 0.1, 4  # of `conftest`
    grads = jax.tree.map(jnp.zeros_like, meta_params)
    for key in jax.random.split(noise_key, pairs):
        noise = noise_like(key, meta_params)
        above, below = (loss(moved(meta_params, way * std, noise)) for way in (1, -1))
        slope = (above - below) / (2 * std * pairs)
        grads = jax.tree.map(lambda g, e, slope=slope: g + slope * e, grads, noise)
    products = partial(jax.tree.map, lambda g, leaf: (g * leaf).sum(), grads)
    return lambda point: sum(jax.tree.leaves(products(point)))


def evolution(setting, objective):
    learner, key, meta_params, task, _ = setting
    learn_key, noise_key = jax.random.split(key)
    return along_differences(
        lambda point: learner.loss(learn_key, point, task)[0], meta_params, noise_key
    )


def first_window(task, params, objective):
    """The loss after one step of gradient descent, as a function of the rule's parameters."""

    def loss(params, batch):
        return objective(CURVE.apply(params, batch.inputs), batch.targets)[0]

    grads = jax.grad(loss)(params, task.support)

    def of_rule(point):
        step = lambda p, g: p - jnp.exp(point["log_rate"]) * g  # noqa: E731
        return loss(jax.tree.map(step, params, grads), task.query)

    return of_rule


def truncated(setting, objective):
    return first_window(setting.task, setting.carry.slot.state.params, objective)


def persistent(setting, objective):
    """In the first window all the noise so far is that of now."""
    params = jax.tree.map(lambda leaf: leaf[0, 0], setting.carry.slot.states.params)
    noise_key = jax.random.split(setting.key, 3)[2]
    loss = first_window(setting.task, params, objective)
    return along_differences(loss, setting.meta_params, noise_key)


def gathered(setting, objective):
    """The surrogate on the experience of the meta-parameters, which is a constant."""
    learner, key, meta_params, task, _ = setting
    experience = learner.grad.gather(key, meta_params, task)
    return lambda moved: learner.grad.surrogate(moved, experience)


def temporal_difference(setting, objective):
    """Half of Q-learning's equation: the targets and what the network sees are constants."""
    learner, _, meta_params, task, _ = setting
    inputs, targets, _ = task.query
    values = learner.predict(meta_params, inputs)
    actions = values.argmax(axis=1)
    asked_before = jnp.roll(actions == 3, 1).at[0].set(False)
    shown = inputs.at[:, -3:].multiply(asked_before[:, None])
    rewards = jnp.where(actions == 3, -0.05, jnp.where(actions == targets, 1.0, -1.0))
    following = jnp.append(values.max(axis=1)[1:], 0)
    wanted = rewards + 0.5 * following

    def loss(moved):
        values = run(ASKING_MACHINE, moved, shown)[1]
        return jnp.square(wanted - values[jnp.arange(len(actions)), actions]).mean()

    return loss


SURROGATES = {
    "active-one-shot": temporal_difference,
    "maml-rl": gathered,
    "promp": gathered,
    "rl-squared": gathered,
    "evolve": evolution,
    "truncated-backpropagation": truncated,
    "persistent-es": persistent,
    "meta-transfer": frozen,
    "oml": at_a_constant_rate,
    "anml": at_a_constant_rate,
    "first-order-maml": straight_through,
    "reptile": squared_distance,
    "imaml": implicit,
    "maml-plus-plus": every_step,
    "sparse-maml": with_a_linear_mask,
}


@functools.cache
def compiled(learner):
    """`grad` of one task compiled, and a list that grows by one at every trace of it."""
    traces = []

    def grad(*arguments):
        traces.append(arguments)
        return learner.grad(*arguments)

    return jax.jit(grad), traces


@functools.cache
def mapped(learner):
    return jax.jit(jax.vmap(learner.grad, in_axes=(0, None, 0, None)))


def several(case, prepare, count=8):
    settings = [prepare(case, seed) for seed in range(count)]
    tasks = jax.tree.map(lambda *leaves: np.stack(leaves), *[s.task for s in settings])
    return jnp.stack([s.key for s in settings]), tasks


def test_shapes_and_types(case):
    learner, shapes, key = case.build(), jax.eval_shape, jax.random.key(0)
    task = shapes(case.sample, key)
    meta_params = shapes(learner.init, key, task)
    adapted = shapes(learner.adapt, key, meta_params, task.support)
    outputs = shapes(learner.predict, adapted, task.query.inputs)
    loss, info = shapes(learner.loss, key, meta_params, task)
    slot = {"of this place": key}
    if learner.slot is not None:
        slot = shapes(learner.slot, key, meta_params, task)
    carry = Carry(jnp.zeros((), jnp.int32), {"of all": jnp.ones(2)}, slot)
    grads, grad_info, after = shapes(learner.grad, key, meta_params, task, carry)
    value, metrics = shapes(case.objective, outputs, task.query.targets)

    rows = {leaf.shape[0] for leaf in jax.tree.leaves(outputs)}
    assert rows == {task.query.targets.shape[0]}
    assert isinstance(info, Info)
    assert loss == info.loss == value
    assert loss.shape == ()
    assert {name: info.metrics[name] for name in metrics} == metrics
    assert grad_info in ((info, Info(loss, {})) if ("info", case.name) in EXCEPTIONS else (info,))
    assert grads == meta_params
    assert after == shapes(lambda carry: carry, carry)
    assert shapes(partial(learner.predict, key=key), adapted, task.query.inputs) == outputs
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((meta_params, outputs, info)))


def test_init_needs_shapes_only(long_case, prepare, x64):
    learner, key, _, task, _ = prepare(long_case)
    init = jax.jit(learner.init)
    meta_params = init(key, task)
    chex.assert_trees_all_equal(meta_params, init(key, jax.tree.map(jnp.zeros_like, task)))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(meta_params, init(jax.random.key(9), task))


def test_pure(long_case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(long_case)
    program = jax.make_jaxpr(learner.grad)(key, meta_params, task, carry)
    assert not program.effects  # nothing is printed, called back or written
    grad, _ = compiled(learner)
    first = grad(key, meta_params, task, carry)
    other = prepare(long_case, seed=5)
    between = grad(other.key, other.meta_params, other.task, carry)
    chex.assert_trees_all_equal(first, grad(key, meta_params, task, carry))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(first, between)


def test_no_tracer_leaks(long_case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(long_case)
    with jax.checking_leaks():
        jax.make_jaxpr(learner.grad)(key, meta_params, task, carry)


def test_jit_changes_nothing(long_case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(long_case)
    grad, _ = compiled(learner)
    grads, info, after = grad(key, meta_params, task, carry)
    assert_close((grads, info, after), learner.grad(key, meta_params, task, carry))
    own = (info.loss, info)
    if ("info", long_case.name) in EXCEPTIONS:
        with pytest.raises((AssertionError, ValueError)):
            assert_close(own, learner.loss(key, meta_params, task))
    else:
        assert_close(own, learner.loss(key, meta_params, task))


def test_vmap_changes_nothing(long_case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(long_case)
    grad, _ = compiled(learner)
    keys, tasks = several(long_case, prepare)
    together = mapped(learner)(keys, meta_params, tasks, carry)
    for index in range(len(keys)):
        place = partial(jax.tree.map, lambda leaf, index=index: leaf[index])
        assert_close(place(together), grad(keys[index], meta_params, place(tasks), carry))


def test_traced_once(long_case, prepare, x64):
    learner, key, meta_params, task, carry = prepare(long_case)
    grad, traces = compiled(learner)
    grads, _, carry = grad(key, meta_params, task, carry)
    known = len(traces)
    for seed in range(1, 3):
        _, key, _, task, _ = prepare(long_case, seed)
        meta_params = jax.tree.map(jnp.subtract, meta_params, grads)
        carry = carry._replace(step=carry.step + seed)
        grads, _, carry = grad(key, meta_params, task, carry)
    assert len(traces) == known


def test_gradient_is_that_of_the_loss_or_of_the_surrogate(long_case, prepare, assert_gradient):
    learner, key, meta_params, task, carry = setting = prepare(long_case)
    grads, _, _ = compiled(learner)[0](key, meta_params, task, carry)
    of_loss = partial(
        assert_gradient, grads, lambda moved: learner.loss(key, moved, task)[0], meta_params
    )
    if ("gradient", long_case.name) in EXCEPTIONS:
        assert_gradient(
            grads, SURROGATES[long_case.name](setting, long_case.objective), meta_params
        )
        with pytest.raises(AssertionError):
            of_loss()
    else:
        of_loss()


def test_learns_a_small_task(long_case):
    init, update = meta_update(long_case.build(), long_case.outer, task_batch=8)
    state = jax.jit(init)(jax.random.key(0), long_case.sample)
    _, infos = chunk_of(update)(state, long_case.sample, length=300)
    # Every update is judged on tasks never seen before.
    first, last = infos.loss[:10].mean(), infos.loss[-20:].mean()
    # Likelihoods and returns have no zero: there the loss falls by so many nats, or so much.
    assert last < (first - 0.1 if long_case.without_zero else 0.85 * first)


def test_sharded_equals_unsharded(long_case, prepare, x64):
    learner, _, meta_params, _, carry = prepare(long_case)
    keys, tasks = several(long_case, prepare)
    mesh = jax.make_mesh((4,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:4])
    everywhere, by_task = PartitionSpec(), PartitionSpec("tasks")
    mean = partial(jax.tree.map, lambda leaf: leaf.mean(axis=0))

    def draw(seed):
        setting = prepare(long_case, seed)
        return setting.key, setting.task

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(everywhere, by_task),
        out_specs=everywhere,
        check_vma=True,
    )
    def sharded(meta_params, seeds):
        # Drawn here: what is the same in all tasks, labels for one, then is so on all devices.
        keys, tasks = jax.vmap(draw)(seeds)
        # Without this JAX sums the inner gradients over the devices and mixes their tasks.
        given = jax.lax.pcast((meta_params, carry), "tasks", to="varying")
        grads, info, _ = mapped(learner)(keys, given[0], tasks, given[1])
        return jax.lax.pmean(mean((grads, info)), "tasks")

    grads, info, _ = mapped(learner)(keys, meta_params, tasks, carry)
    assert_close(sharded(meta_params, jnp.arange(len(keys))), mean((grads, info)))


NONSENSE = ((jnp.nan, -1), (jnp.inf, 10**6), (-1e30, -(10**6)), (0.0, 0))  # of floats, of labels


def pad(batch, rows, nonsense):
    """`rows` examples of nonsense behind the valid ones, masked out; other sets stay."""
    if not isinstance(batch, Batch):
        return batch
    valid = jnp.ones(len(batch.targets), bool) if batch.mask is None else batch.mask

    def longer(leaf):
        value = nonsense[0] if jnp.issubdtype(leaf.dtype, jnp.floating) else nonsense[1]
        return jnp.concatenate([leaf, jnp.full((rows, *leaf.shape[1:]), value, leaf.dtype)])

    return jax.tree.map(longer, batch)._replace(mask=jnp.pad(valid, (0, rows)))


def test_padding_changes_nothing(long_case, prepare, x64):
    """Neither a value nor a gradient, whatever it holds."""
    learner, key, meta_params, task, carry = prepare(long_case)
    grad, _ = compiled(learner)
    expected = grad(key, meta_params, task, carry)
    for nonsense in NONSENSE:
        padded = Task(pad(task.support, 2, nonsense), pad(task.query, 3, nonsense))
        if learner.slot is not None:  # which holds the task
            carry = carry._replace(slot=carry.slot._replace(task=padded))
        if ("padding", long_case.name) in EXCEPTIONS:
            with pytest.raises(ValueError, match="the task has a mask. Give a model that"):
                grad(key, meta_params, padded, carry)
            continue
        assert_close(expected[:2], grad(key, meta_params, padded, carry)[:2])


def test_each_query_example_is_judged_by_itself(long_case, prepare, x64):
    learner, key, meta_params, task, _ = prepare(long_case)

    @jax.jit
    def predictions(meta_params, task):
        adapted = learner.adapt(key, meta_params, task.support)

        def of_row(row):
            return jax.tree.map(lambda leaf: leaf[0], learner.predict(adapted, row[None]))

        return learner.predict(adapted, task.query.inputs), jax.lax.map(of_row, task.query.inputs)

    together, alone = predictions(meta_params, task)
    if ("query", long_case.name) in EXCEPTIONS:
        assert not jnp.allclose(together, alone)
    else:
        assert_close(together, alone)


def test_trajectory_is_what_fewer_steps_would_give(long_case, prepare, x64):
    learner, key, meta_params, task, _ = prepare(long_case)
    if ("trajectory", long_case.name) in EXCEPTIONS:
        assert learner.trajectory is None
        return

    @jax.jit
    def predictions(meta_params, task):
        path = learner.trajectory(key, meta_params, task.support, task.query.inputs)
        alone = []
        start = int(("start", long_case.name) in EXCEPTIONS)
        for steps in range(start, path.shape[0]):
            shorter = long_case.build(inner_steps=steps)
            adapted = shorter.adapt(key, meta_params, task.support)
            alone.append(shorter.predict(adapted, task.query.inputs))
        return path, jnp.stack([*path[:start], *alone])

    path, alone = predictions(meta_params, task)
    assert path.shape[0] == long_case.build.keywords["inner_steps"] + 1 > 2
    assert_close(path, alone)
    assert not jnp.allclose(path[0], path[-1])
