"""Inner gradients that are exactly zero: any optimizer can be differentiated through there."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

from jaxmeta.inner import unroll
from jaxmeta.inner._finite import with_finite_derivatives

KEY = jax.random.key(0)
THEN = optax.sgd(0.1)
OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=0.0),
    "nadam": optax.nadam(0.1),
    "radam": optax.radam(0.1),
    "amsgrad": optax.amsgrad(0.1),
    "lamb": optax.lamb(0.1, weight_decay=0.0),
    "lars": optax.lars(0.1),
    "novograd": optax.novograd(0.1),
    "adaptive_grad_clip": optax.chain(optax.adaptive_grad_clip(0.1), THEN),
    "clip_by_global_norm": optax.chain(optax.clip_by_global_norm(1.0), THEN),
    "clip_by_block_rms": optax.chain(optax.clip_by_block_rms(1.0), THEN),
    "normalize": optax.chain(optax.normalize_by_update_norm(), THEN),
    "masked": optax.masked(optax.adam(0.1), {"b": False, "w": True}),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(0.1),
    "cond": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "scan": contrib.muon(0.1),
}


def after_two_steps(optimizer):
    """Σ θ as a function of the gradients, which are the same at both."""

    def total(theta, gradients):
        state = optimizer.init(theta)
        for _ in range(2):
            updates, state = optimizer.update(gradients, state, theta)
            theta = optax.apply_updates(theta, updates)
        return sum(map(jnp.sum, jax.tree.leaves(theta)))

    return total


ALIKE = ("nadam", "amsgrad", "lars", "novograd", "clip_by_block_rms", "inject_hyperparams")


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in OPTIMIZERS]
)
def test_the_derivative_of_any_optimizer_is_finite(name):
    total = with_finite_derivatives(after_two_steps(OPTIMIZERS[name]))
    theta = {"b": jnp.full(2, 0.5), "w": jnp.arange(6.0).reshape(3, 2)}
    zeros = jax.tree.map(jnp.zeros_like, theta)
    partly = zeros | {"b": jnp.ones(2)}
    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))
    for gradients in (zeros, partly):
        to_theta, to_gradients = gradient(theta, gradients)
        chex.assert_tree_all_finite((to_theta, to_gradients))
    # Where all gradients are zero, parameters stay where they are.
    chex.assert_trees_all_close(
        gradient(theta, zeros)[0], jax.tree.map(jnp.ones_like, theta), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["adam", "clip_by_global_norm"])
def test_dead_parameters_pass_on_their_gradient(name):
    def dead(key, theta, batch):
        return jnp.square(jax.nn.relu(theta - batch)).sum()

    inner = unroll(dead, OPTIMIZERS[name], 2)
    found = jax.jit(jax.grad(lambda theta: inner(KEY, theta, 9.0).params.sum()))(jnp.arange(3.0))
    chex.assert_trees_all_equal(found, jnp.ones(3))


def test_the_slope_at_zero_is_the_true_one():
    def slope(optimizer):
        update = with_finite_derivatives(lambda g: optimizer.update(g, optimizer.init(g), g)[0])
        return jax.jacobian(update)(jnp.zeros(2))

    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    chex.assert_trees_all_close(slope(clipped), -0.1 * jnp.eye(2))
    # Adam's first step is −rate g / (|g| + eps).
    chex.assert_trees_all_close(slope(optax.adam(0.1, eps=0.5)), -0.2 * jnp.eye(2), rtol=1e-5)


def test_elsewhere_nothing_changes():
    def function(x, y):
        inner = jax.lax.scan(  # with a constant, a carry and rows
            lambda c, row: (jnp.sqrt(c) / row, x * jnp.log(c)), x, y, reverse=True
        )
        return jax.lax.cond(x.sum() > 0, lambda x: x**0.5, lambda x: x, x), inner, x**-2

    point = (jnp.array([0.5, 2.0]), jnp.array([[1.0, 3.0], [0.7, 0.1]]))
    found, expected = (
        jax.jit(lambda *point, f=f: (f(*point), jax.jacobian(f)(*point)))(*point)
        for f in (with_finite_derivatives(function), function)
    )
    chex.assert_trees_all_equal(found[0], expected[0])
    chex.assert_trees_all_close(found[1], expected[1], rtol=1e-6)


def test_a_learned_rate_gets_its_gradient():
    def loss(rate, optimizer):
        inner = unroll(lambda key, w, batch: jnp.square(w - batch).sum(), None, 2)
        return inner(KEY, jnp.zeros(2), jnp.array([0.0, 1.0]), optimizer=optimizer(rate)).params[1]

    found = jax.jit(jax.grad(lambda rate: loss(rate, optax.adam)))(0.1)
    assert jnp.isfinite(found)
    assert found > 1
