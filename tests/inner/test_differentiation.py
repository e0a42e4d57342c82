"""The ways through the inner loop: closed forms, surrogates by hand, and finite differences.

On a quadratic L(θ) = ½ θᵀHθ − bᵀθ a step of gradient descent is θ ← θ − α (Hθ − b), so that the
meta-gradient of K steps is ((I − αH)^K)ᵀ ∇L_query(θ_K) in closed form.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from jaxmeta import inner
from jaxmeta.inner import first_order, mixed_mode, rematerialised, reverse_mode, truncated, unroll

EXACT = {"reverse": reverse_mode, "rematerialised": rematerialised, "mixed": mixed_mode}
TRUNCATED = {
    f"{name}-{last}": truncated(last, way) for name, way in EXACT.items() for last in (0, 1, 2, 9)
}
KEY = jax.random.key(0)
RATE, STEPS = 0.1, 3

assert_close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)
pytestmark = pytest.mark.usefixtures("x64")


def quadratic(key, theta, batch):
    hessian, linear = batch
    return theta @ hessian @ theta / 2 - linear @ theta


def bowl(seed=0, size=3):
    root, linear = np.random.default_rng(seed).normal(size=(2, size, size))
    return jnp.asarray(root @ root.T / size), jnp.asarray(linear[0])


def meta_gradient(way, steps=STEPS, optimizer=None, loss=quadratic):
    """Of a query loss whose gradient at θ is θ − 1, and that gradient at θ_K."""
    adapt = unroll(loss, optimizer or optax.sgd(RATE), steps, differentiation=way)

    def query_loss(initial):
        adapted = adapt(KEY, initial, bowl()).params
        return jnp.square(adapted - 1).sum() / 2, adapted - 1

    return jax.jit(jax.grad(query_loss, has_aux=True))(jnp.arange(3.0))


def contraction(power):
    hessian, _ = bowl()
    return jnp.linalg.matrix_power(jnp.eye(3) - RATE * hessian, power)


@pytest.mark.parametrize("way", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_exact_ways_give_the_closed_form(way, steps):
    grads, at_end = meta_gradient(way, steps)
    assert_close(grads, contraction(steps).T @ at_end)


@pytest.mark.parametrize("way", TRUNCATED.values(), ids=TRUNCATED)
def test_truncation_leaves_the_last_factors_of_the_closed_form(way):
    grads, at_end = meta_gradient(way)
    assert_close(grads, contraction(min(way.last, STEPS)).T @ at_end)
    assert jnp.abs(grads).max() > 0.1  # a stop_gradient in the wrong place makes it vanish


def test_first_order_drops_the_closed_forms_curvature():
    grads, at_end = meta_gradient(first_order)
    assert_close(grads, at_end)
    exact, _ = meta_gradient(reverse_mode)
    assert jnp.abs(grads - exact).max() > 0.1
    straight = lambda key, theta, batch: batch[1] @ theta  # noqa: E731
    assert_close(  # without curvature there is nothing to drop
        meta_gradient(first_order, loss=straight), meta_gradient(reverse_mode, loss=straight)
    )


def test_every_way_goes_forward_alike():
    ends = [meta_gradient(way)[1] for way in (first_order, *EXACT.values(), *TRUNCATED.values())]
    for end in ends:
        assert_close(end, ends[0])


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": inner.adam(0.05),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.2)),
}
DIMENSIONS = (4, 3)


def wavy(key, theta, batch):
    """Smooth, not quadratic, with every argument in its curvature."""
    inputs, targets = batch
    return jnp.square(jnp.tanh(inputs @ theta["w"]) @ theta["v"] - targets).mean()


def wavy_problem():
    random = np.random.default_rng(2)
    theta = {"v": random.normal(size=3), "w": random.normal(size=DIMENSIONS)}
    return jax.tree.map(jnp.asarray, (theta, (random.normal(size=(6, 4)), random.normal(size=6))))


def by_hand(optimizer, steps, theta, batch, state=None, freeze=lambda grads: grads):
    """The inner loop as one would write it: a Python loop around optax."""
    state = optimizer.init(theta) if state is None else state
    for _ in range(steps):
        grads = freeze(jax.grad(wavy, argnums=1)(KEY, theta, batch))
        updates, state = optimizer.update(grads, state, theta)
        theta = optax.apply_updates(theta, updates)
    return theta, state


def queried(adapted):
    return wavy(KEY, adapted, jax.tree.map(lambda leaf: leaf[::-1] + 0.3, wavy_problem()[1]))


@pytest.mark.full
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_any_optimizer_any_way_is_the_loop_written_by_hand(optimizer):
    theta, batch = wavy_problem()

    def ours(way):
        adapt = unroll(wavy, optimizer, STEPS, differentiation=way)
        return lambda theta, batch: queried(adapt(KEY, theta, batch).params)

    def exact(theta, batch):
        return queried(by_hand(optimizer, STEPS, theta, batch)[0])

    def constant_gradients(theta, batch):
        return queried(by_hand(optimizer, STEPS, theta, batch, freeze=jax.lax.stop_gradient)[0])

    def window(theta, batch):  # the last step, from a point and a state that are constants
        moved, state = jax.lax.stop_gradient(by_hand(optimizer, STEPS - 1, theta, batch))
        start = jax.tree.map(lambda a, b: a + jax.lax.stop_gradient(b - a), theta, moved)
        return queried(by_hand(optimizer, 1, start, batch, state)[0])

    @jax.jit
    def gradients(theta, batch):
        of = lambda function: jax.value_and_grad(function, argnums=(0, 1))(theta, batch)  # noqa: E731
        exacts = [of(ours(way)) for way in EXACT.values()]
        truncations = [of(ours(truncated(1, way))) for way in (reverse_mode, mixed_mode)]
        return (
            (exacts, of(exact)),
            (truncations, of(window)),
            ([of(ours(first_order))], of(constant_gradients)),
        )

    references = []
    for found, expected in gradients(theta, batch):
        for one in found:
            assert_close(one, expected)
        references.append(expected)
    for other in references[1:]:  # or the comparisons above would tell nothing apart
        with pytest.raises(AssertionError):
            assert_close(other, references[0])


def rated(way):
    """A loss of initialisation, learned rates and data alike."""
    adapt = unroll(wavy, None, STEPS, differentiation=way)

    def loss(theta, rates, batch):
        optimizer = inner.scaled(jax.tree.map(lambda rate: 0.1 * rate, rates))
        return queried(adapt(KEY, theta, batch, optimizer=optimizer).params)

    return loss


def rates_like(theta):
    return jax.tree.map(
        lambda leaf: 1 + jnp.arange(leaf.size * 1.0).reshape(leaf.shape) / 10, theta
    )


@pytest.mark.full
@pytest.mark.parametrize("way", [rematerialised, mixed_mode], ids=["rematerialised", "mixed"])
def test_gradients_to_rates_and_data_are_those_of_reverse_mode(way):
    theta, batch = wavy_problem()
    arguments = (theta, rates_like(theta), batch)
    found = jax.jit(jax.grad(rated(way), argnums=(0, 1, 2)))(*arguments)
    expected = jax.jit(jax.grad(rated(reverse_mode), argnums=(0, 1, 2)))(*arguments)
    assert_close(found, expected)
    check_grads(jax.jit(rated(way)), arguments, order=1, modes=["rev"], rtol=1e-6, eps=1e-6)
    assert all(jnp.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(found))


def test_rates_learn_in_first_order_too():
    theta, batch = wavy_problem()
    rates = rates_like(theta)
    found = jax.jit(jax.grad(rated(first_order), argnums=1))(theta, rates, batch)

    def constant_gradients(rates):
        moving = theta
        for _ in range(STEPS):
            grads = jax.lax.stop_gradient(jax.grad(wavy, argnums=1)(KEY, moving, batch))
            moving = jax.tree.map(lambda t, r, g: t - 0.1 * r * g, moving, rates, grads)
        return queried(moving)

    assert_close(found, jax.jit(jax.grad(constant_gradients))(rates))


@pytest.mark.parametrize("way", [rematerialised, mixed_mode], ids=["rematerialised", "mixed"])
def test_the_loss_that_an_optimizer_sees_is_differentiated_too(way):
    """A step by the loss' size, along the gradient's: both carry the meta-gradient."""
    theta, batch = wavy_problem()

    def update(updates, state, params=None, **extra):
        return jax.tree.map(lambda g: -extra["value"] * g, updates), state

    by_loss = optax.GradientTransformationExtraArgs(lambda params: (), update)

    def loss(way):
        adapt = unroll(wavy, by_loss, STEPS, differentiation=way, value=True)
        return lambda theta, batch: queried(adapt(KEY, theta, batch).params)

    def by_hand(theta, batch):
        for _ in range(STEPS):
            value, grads = jax.value_and_grad(wavy, argnums=1)(KEY, theta, batch)
            theta = jax.tree.map(lambda t, g, value=value: t - value * g, theta, grads)
        return queried(theta)

    of = lambda function: jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(theta, batch)  # noqa: E731
    assert_close(of(loss(way)), of(by_hand))
    assert_close(of(loss(reverse_mode)), of(by_hand))


@pytest.mark.full
@pytest.mark.parametrize("way", [rematerialised, mixed_mode], ids=["rematerialised", "mixed"])
def test_exact_ways_under_vmap_scan_and_shard_map(way):
    """Data, rates and initialisation differ from task to task; two of them a device."""
    theta, batch = wavy_problem()
    arguments = (theta, rates_like(theta), batch)
    tasks = jax.tree.map(
        lambda leaf: jnp.stack([leaf + shift / 10 for shift in range(4)]), arguments
    )
    gradient = jax.grad(rated(way), argnums=(0, 1, 2))
    one_by_one = jax.grad(rated(reverse_mode), argnums=(0, 1, 2))
    mesh = jax.make_mesh((2,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:2])
    spec = PartitionSpec("tasks")
    sharded = jax.shard_map(
        lambda *tasks: jax.vmap(gradient)(*tasks),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=True,
    )
    expected = jax.jit(lambda *tasks: jax.lax.map(lambda task: one_by_one(*task), tasks))(*tasks)
    assert_close(jax.jit(jax.vmap(gradient))(*tasks), expected)
    assert_close(jax.jit(sharded)(*tasks), expected)

    def descend(moving, _):
        to_theta, to_rates, _ = gradient(*moving, batch)
        return jax.tree.map(lambda a, b: a - 0.1 * b, moving, (to_theta, to_rates)), None

    scanned, _ = jax.jit(lambda start: jax.lax.scan(descend, start, length=2))(arguments[:2])
    step = jax.jit(lambda moving: descend(moving, None)[0])
    assert_close(scanned, step(step(arguments[:2])))


def test_mixed_mode_takes_integers_and_keys_beside_the_data():
    """What cannot carry a derivative passes through: labels, masks, a noisy loss' keys."""

    def noisy(key, theta, batch):
        inputs, labels, mask = batch
        noise = jax.random.normal(key, theta.shape)
        logits = inputs @ (theta + 0.1 * noise)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.where(mask, losses, 0).sum()

    inputs, theta = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, 4)))
    batch = (inputs, jnp.array([0, 1, 2, 3], jnp.int32), jnp.array([True, True, True, False]))

    def loss(way):
        adapt = unroll(noisy, optax.sgd(0.1), 3, differentiation=way)
        return lambda theta, inputs: jnp.square(
            adapt(KEY, theta, (inputs, *batch[1:])).params
        ).sum()

    found = jax.jit(jax.grad(loss(mixed_mode), argnums=(0, 1)))(theta, inputs)
    assert_close(found, jax.jit(jax.grad(loss(reverse_mode), argnums=(0, 1)))(theta, inputs))
    assert (found[1][3] == 0).all()  # the masked example
    assert (jnp.abs(found[1][:3]).max(axis=1) > 0).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_mixed_mode_sees_what_the_loss_closes_over(compiled):
    """A scale, labels, a mask and a key, all mapped: no arguments of the inner loop."""
    inputs = jnp.array([[0.5], [-1.0], [2.0]])

    def after_learning(way, scale, start, labels, mask, key):
        def loss(_, params, batch):
            noise = 0.1 * jax.random.normal(key, labels.shape)
            residuals = batch @ params - labels + noise
            return (mask * scale**2 * jnp.log1p(jnp.square(residuals / scale))).mean()

        ended = unroll(loss, optax.sgd(0.1), 3, differentiation=way)(KEY, start, inputs).params
        return jnp.square(inputs @ ended - 1.0).mean()

    def gradients(way):
        function = jax.value_and_grad(lambda *given: after_learning(way, *given), argnums=(0, 1))
        mapped = jax.vmap(function, in_axes=(0, None, 0, 0, 0))
        labels = jnp.array([[0, 1, 2], [2, 1, 0]])
        mask = jnp.array([[True, True, False], [True, False, True]])
        given = (jnp.array([0.5, 2.0]), jnp.array([0.3]), labels, mask, jax.random.split(KEY))
        return (jax.jit(mapped) if compiled else mapped)(*given)

    chex.assert_trees_all_close(gradients(mixed_mode), gradients(reverse_mode), rtol=1e-9)


def test_mixed_mode_follows_what_changes_between_calls():
    """A closed-over value is read anew, as plain Python does."""
    scale = [1.0]

    def loss(key, params, batch):
        return (scale[0] * jnp.square(params - batch)).sum()

    inner = unroll(loss, optax.sgd(0.1), 1, differentiation=mixed_mode)
    for value in (1.0, 3.0):
        scale[0] = value
        assert_close(inner(KEY, jnp.zeros(1), jnp.ones(1)).params, jnp.array([0.2 * value]))


def test_truncation_of_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="-1 steps"):
        truncated(-1)
