"""Every learner under every way of differentiating, in float64.

The exact ways are judged by finite differences (the one that is built upon, reverse mode; the
others must equal it), first order and truncation by the surrogate losses that define them.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from jaxmeta import Batch, Carry, Task, cross_entropy, squared_error
from jaxmeta.inner import first_order, mixed_mode, rematerialised, reverse_mode, truncated
from jaxmeta.learners import MetaSGDParams, ReptileParams, anil, maml, meta_sgd, reptile
from jaxmeta.models import conv4, mlp

KEY = jax.random.key(0)
assert_close = partial(chex.assert_trees_all_close, rtol=1e-8, atol=1e-11)
pytestmark = pytest.mark.usefixtures("x64")


def start_and_rates(meta_params):
    if isinstance(meta_params, MetaSGDParams):
        return tuple(meta_params)
    return meta_params, jax.tree.map(jnp.ones_like, meta_params)


def moved_to(meta_params, initial):
    if isinstance(meta_params, MetaSGDParams):
        return meta_params._replace(initial=initial)
    return initial


def first_order_surrogate(case, learner, key, at, task):
    """`φ', α' ↦ L_query(φ' − α' Σ_k g_k)`, the inner gradients g_k recorded at φ and α."""
    initial, rates = start_and_rates(at)
    adapted = learner.adapt(key, at, task.support)
    total = jax.tree.map(
        lambda end, start, rate: (end - start) / rate, adapted.params, initial, rates
    )

    def loss(meta_params):
        initial, rates = start_and_rates(meta_params)
        params = jax.tree.map(lambda start, rate, step: start + rate * step, initial, rates, total)
        outputs = learner.predict(adapted._replace(params=params), task.query.inputs)
        return case.objective(outputs, task.query.targets)[0]

    return loss


def truncated_surrogate(case, last, key, at, task):
    """`φ' ↦` the loss after `last` differentiated steps from `θ_{K−k} + (φ' − φ)`."""
    steps = case.build.keywords["inner_steps"]
    earlier = case.build(inner_steps=steps - last).adapt(key, at, task.support).params
    window = case.build(inner_steps=last, differentiation=reverse_mode)
    start, _ = start_and_rates(at)
    displacement = jax.tree.map(jnp.subtract, earlier, start)

    def loss(meta_params):
        initial, _ = start_and_rates(meta_params)
        shifted = jax.tree.map(jnp.add, initial, displacement)
        return window.loss(key, moved_to(meta_params, shifted), task)[0]

    return loss


def gradients_of(case, setting):
    """`gradients(*ways)`: the meta-gradient of the case in each, in one setting."""
    _, key, meta_params, task, _ = setting

    def gradients(*ways):
        @jax.jit
        def all_of_them(meta_params, task):
            learners = [case.build(differentiation=way) for way in ways]
            return [
                jax.grad(one.loss, 1, has_aux=True)(key, meta_params, task)[0] for one in learners
            ]

        return all_of_them(meta_params, task)

    return gradients


@pytest.mark.full
def test_exact_ways(differentiable, prepare, assert_gradient):
    learner, key, meta_params, task, _ = setting = prepare(differentiable)
    gradients = gradients_of(differentiable, setting)
    reverse, remat, mixed = gradients(reverse_mode, rematerialised, mixed_mode)
    constant = getattr(meta_params, "frozen", None)

    def loss(at):
        if constant is not None:  # no derivative is taken of what is frozen
            at = at._replace(frozen=constant)
        return learner.loss(key, at, task)[0]

    assert_gradient(reverse, loss, meta_params)
    assert_close(remat, reverse)
    assert_close(mixed, reverse)


@pytest.mark.full
def test_first_order(of_initialisation, prepare, assert_gradient):
    learner, key, meta_params, task, _ = setting = prepare(of_initialisation)
    first, second = gradients_of(of_initialisation, setting)(first_order, reverse_mode)
    surrogate = first_order_surrogate(of_initialisation, learner, key, meta_params, task)
    assert_gradient(first, surrogate, meta_params)
    with pytest.raises(AssertionError):  # where first and second order must differ
        chex.assert_trees_all_close(first, second, rtol=1e-3)


@pytest.mark.full
def test_truncated(of_initialisation, prepare, assert_gradient):
    _, key, meta_params, task, _ = setting = prepare(of_initialisation)
    last, exact = gradients_of(of_initialisation, setting)(truncated(1), reverse_mode)
    surrogate = truncated_surrogate(of_initialisation, 1, key, meta_params, task)
    assert_gradient(last, surrogate, meta_params)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(last, exact, rtol=1e-3)


def images(seed, count):
    return Batch(
        jax.random.normal(jax.random.key(seed), (count, 8, 8, 1)),
        jnp.arange(count, dtype=jnp.int32) % 3,
    )


@pytest.mark.slow
def test_mixed_mode_through_convolutions(assert_gradient):
    model = conv4(3, width=4, downsampling="stride", query_statistics="batch")
    task = Task(images(1, 3), images(2, 6))
    learner = maml(model, cross_entropy, optax.sgd(0.4), 2, differentiation=mixed_mode)
    meta_params = jax.tree.map(
        lambda leaf: leaf.astype(float), jax.jit(model.init)(KEY, task.support.inputs)
    )

    grads = jax.jit(jax.grad(learner.loss, 1, has_aux=True))(KEY, meta_params, task)[0]
    assert_gradient(grads, lambda at: learner.loss(KEY, at, task)[0], meta_params)


# --- what each gradient learner is known by ------------------------------------------------

LINEAR = mlp((), 1)  # y = w x + b, the loss a quadratic of (w, b): all can be done by hand
LINE = Task(
    Batch(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])),
    Batch(jnp.array([[3.0]]), jnp.array([[-1.0]])),
)


def line(weight, bias):
    return {"head": {"kernel": jnp.full((1, 1), weight, float), "bias": jnp.full(1, bias, float)}}


def test_maml_on_a_line_is_the_closed_form():
    """L = mean (w x + b − y)² has H = 2 [[mean x², mean x], [mean x, 1]] and one step is linear."""
    rate, theta = 0.1, jnp.array([0.5, -0.3])
    task = jax.tree.map(lambda leaf: leaf.astype(float), LINE)
    x, y = (leaf[:, 0] for leaf in task.support[:2])
    features = jnp.stack([x, jnp.ones(2)])
    hessian = 2 * features @ features.T / 2
    adapted = theta - rate * 2 * features @ (features.T @ theta - y) / 2
    at_query = jnp.array([3.0, 1.0])
    query_gradient = 2 * (at_query @ adapted - (-1.0)) * at_query
    for way, factor in [
        (mixed_mode, jnp.eye(2) - rate * hessian),
        (reverse_mode, jnp.eye(2) - rate * hessian),
        (rematerialised, jnp.eye(2) - rate * hessian),
        (truncated(1), jnp.eye(2) - rate * hessian),
        (truncated(0), jnp.eye(2)),
        (first_order, jnp.eye(2)),
    ]:
        learner = maml(LINEAR, squared_error, optax.sgd(rate), 1, differentiation=way)
        grads = jax.grad(learner.loss, 1, has_aux=True)(KEY, line(*theta), task)[0]
        assert_close(grads, line(*(factor.T @ query_gradient)))


def test_meta_sgds_rates_get_their_gradient_by_hand_and_change():
    task = jax.tree.map(lambda leaf: leaf.astype(float), LINE)
    learner = meta_sgd(LINEAR, squared_error, inner_steps=1, initial_rate=(-0.05, 0.2))
    meta_params = MetaSGDParams(line(0.5, -0.3), line(0.1, 0.02))
    grads = jax.grad(learner.loss, 1, has_aux=True)(KEY, meta_params, task)[0]
    # The support's residuals are −0.8 and 0.7, its gradient (0.6, −0.1).
    adapted = (0.5 - 0.1 * 0.6, -0.3 + 0.02 * 0.1)
    residual = 2 * (3 * adapted[0] + adapted[1] + 1)
    assert_close(grads.rates, line(-0.6 * residual * 3, 0.1 * residual))

    outer = optax.adam(1e-2)
    updates, _ = outer.update(grads, outer.init(meta_params), meta_params)
    _, rates = optax.apply_updates(meta_params, updates)  # pyright: ignore[reportGeneralTypeIssues]
    change = jax.tree.map(lambda a, b: jnp.abs(a - b), rates, meta_params.rates)
    chex.assert_trees_all_close(change, line(1e-2, 1e-2), rtol=1e-4)
    rates = learner.init(KEY, task).rates
    assert all((leaf >= -0.05).all() and (leaf <= 0.2).all() for leaf in jax.tree.leaves(rates))
    with pytest.raises(ValueError, match=r"\(0.2, 0.1\) is not a range"):
        meta_sgd(LINEAR, squared_error, initial_rate=(0.2, 0.1))


def test_anil_adapts_its_head_alone_and_learns_its_body():
    model = mlp((4,), 1)
    learner = anil(model, squared_error, optax.sgd(0.1), 2)
    task = jax.tree.map(lambda leaf: leaf.astype(float), LINE)
    meta_params = learner.init(KEY, task)
    adapted = learner.adapt(KEY, meta_params, task.support).params
    chex.assert_trees_all_equal(adapted["hidden_0"], meta_params["hidden_0"])
    assert (adapted["head"]["kernel"] != meta_params["head"]["kernel"]).any()
    grads = jax.grad(learner.loss, 1, has_aux=True)(KEY, meta_params, task)[0]
    assert jnp.abs(grads["hidden_0"]["kernel"]).max() > 1e-3
    other_name = anil(model, squared_error, optax.sgd(0.1), 2, head="hidden_0")
    adapted = other_name.adapt(KEY, meta_params, task.support).params
    chex.assert_trees_all_equal(adapted["head"], meta_params["head"])
    with pytest.raises(ValueError, match="no parameter is selected"):
        anil(model, squared_error, optax.sgd(0.1), 2, head="tail").adapt(
            KEY, meta_params, task.support
        )


def test_reptile_goes_towards_the_end_of_plain_training():
    task = jax.tree.map(lambda leaf: leaf.astype(float), LINE)
    learner = reptile(LINEAR, squared_error, optax.sgd(0.1), 3)
    start = line(0.5, -0.3)
    carry = Carry(jnp.zeros((), jnp.int32))
    grads, info, _ = learner.grad(KEY, ReptileParams(start), task, carry)
    end = start
    for _ in range(3):
        x, y = task.support[:2]
        weight, bias = end["head"]["kernel"][0, 0], end["head"]["bias"][0]
        residual = weight * x + bias - y
        end = line(weight - 0.2 * (residual * x).mean(), bias - 0.2 * residual.mean())
    outer = optax.sgd(0.25)
    updates, _ = outer.update(grads.initial, outer.init(start))
    assert_close(
        optax.apply_updates(start, updates),
        jax.tree.map(lambda a, b: a + 0.25 * (b - a), start, end),
    )
    at_query = 3 * end["head"]["kernel"][0, 0] + end["head"]["bias"][0]
    assert_close(info.loss, jnp.square(at_query + 1))
    other_query = task._replace(query=task.query._replace(targets=jnp.full((1, 1), 9.0)))
    assert_close(learner.grad(KEY, ReptileParams(start), other_query, carry)[0], grads)


def test_reptile_carries_second_moments_from_task_to_task(x64):
    task = jax.tree.map(lambda leaf: leaf.astype(float), LINE)
    optimizer = optax.rmsprop(0.1, decay=0.75, initial_scale=4.0, eps=0.0, eps_in_sqrt=False)
    learner = reptile(LINEAR, squared_error, optimizer, 1, carry_optimizer_state=True)
    params = ReptileParams(line(0.5, -0.3), optimizer.init(line(0.5, -0.3)))
    grads, _, _ = learner.grad(KEY, params, task, Carry(jnp.zeros((), jnp.int32)))
    x, y = task.support[:2]
    gradient = 2 * (0.5 * x - 0.3 - y).mean()
    moment = 0.75 * 4.0 + 0.25 * gradient**2
    assert_close(grads.initial["head"]["bias"], jnp.array([0.1 * gradient / jnp.sqrt(moment)]))
    moved = grads.optimizer_state[0].nu["head"]["bias"]
    assert_close(moved, jnp.array([4.0 - moment]))
    adapted = learner.adapt(KEY, params, task.support).params
    assert_close(adapted, jax.tree.map(jnp.subtract, params.initial, grads.initial))


def test_reptile_refuses_to_carry_a_count_of_steps():
    learner = reptile(LINEAR, squared_error, optax.adam(0.1), 1, carry_optimizer_state=True)
    with pytest.raises(ValueError, match=r"optax\.rmsprop"):
        learner.init(KEY, LINE)
