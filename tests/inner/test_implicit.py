"""The implicit derivative: closed forms on quadratics, long unrolls, and what it cannot see."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.inner import (
    conjugate_gradients,
    implicit,
    neumann_series,
    only,
    reverse_mode,
    scaled,
    unroll,
)

KEY = jax.random.key(0)
STRENGTH = 2.0
assert_close = partial(chex.assert_trees_all_close, rtol=1e-7, atol=1e-9)
pytestmark = pytest.mark.usefixtures("x64")


def quadratic(key, theta, support):
    """½ θᵀAθ − bᵀθ: its proximal optimum is (A + λI)⁻¹ (b + λφ)."""
    matrix, vector = support
    return theta @ matrix @ theta / 2 - vector @ theta


def problem():
    random = np.random.default_rng(0)
    root = random.normal(size=(4, 4))
    return jnp.asarray(root @ root.T), jnp.asarray(random.normal(size=4)), jnp.ones(4)


def solved(steps=400, **options):
    options = {"strength": STRENGTH, "solver": conjugate_gradients(4), **options}
    return implicit(quadratic, optax.sgd(0.05), steps, **options)


@pytest.mark.parametrize(
    "solver", [conjugate_gradients(4), neumann_series(400, 0.05)], ids=["cg", "neumann"]
)
def test_a_quadratics_end_and_derivative_are_the_closed_form(solver):
    matrix, vector, start = problem()
    inverse = jnp.linalg.inv(matrix + STRENGTH * jnp.eye(4))
    inner = solved(solver=solver)
    end, jacobian = jax.jit(
        lambda start: (
            inner(KEY, start, (matrix, vector)).params,
            jax.jacrev(lambda start: inner(KEY, start, (matrix, vector)).params)(start),
        )
    )(start)
    assert_close(end, inverse @ (vector + STRENGTH * start))
    assert_close(jacobian, STRENGTH * inverse)


def test_the_support_set_gets_its_derivative_too():
    matrix, vector, start = problem()
    inner = solved()
    jacobian = jax.jacrev(lambda vector: inner(KEY, start, (matrix, vector)).params)(vector)
    assert_close(jacobian, jnp.linalg.inv(matrix + STRENGTH * jnp.eye(4)))


def test_forward_mode_agrees():
    matrix, vector, start = problem()
    end = lambda start: solved()(KEY, start, (matrix, vector)).params  # noqa: E731
    assert_close(jax.jacfwd(end)(start), jax.jacrev(end)(start))


def test_few_conjugate_gradient_steps_are_an_approximation_and_damping_a_bias():
    matrix, vector, start = problem()
    jacobian = lambda **options: jax.jacrev(  # noqa: E731
        lambda start: solved(**options)(KEY, start, (matrix, vector)).params
    )(start)
    exact = STRENGTH * jnp.linalg.inv(matrix + STRENGTH * jnp.eye(4))
    assert jnp.abs(jacobian(solver=conjugate_gradients(1)) - exact).max() > 1e-2
    pulled = (STRENGTH + 1) * jnp.linalg.inv(matrix + (STRENGTH + 1) * jnp.eye(4))
    assert_close(jacobian(damping=1.0), pulled)


def test_a_long_unroll_agrees_on_what_is_no_quadratic():
    def wavy(key, theta, inputs):
        return jnp.square(jnp.tanh(inputs @ theta["w"]) @ theta["v"] - inputs.sum(axis=1)).mean()

    random = np.random.default_rng(1)
    start = jax.tree.map(jnp.asarray, {"v": random.normal(size=3), "w": random.normal(size=(4, 3))})
    inputs = jnp.asarray(random.normal(size=(6, 4)))

    def proximal(key, theta, given):
        inputs, start = given
        squares = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), theta, start)
        return wavy(key, theta, inputs) + STRENGTH / 2 * sum(jax.tree.leaves(squares))

    long = unroll(proximal, optax.sgd(0.1), 800, differentiation=reverse_mode)
    short = implicit(wavy, optax.sgd(0.1), 800, strength=STRENGTH, solver=conjugate_gradients(15))
    query = lambda end: wavy(KEY, end.params, inputs[::-1] + 0.3)  # noqa: E731

    @jax.jit
    def both(start, inputs):
        return (
            jax.grad(lambda *at: query(short(KEY, *at)), argnums=(0, 1))(start, inputs),
            jax.grad(lambda *at: query(long(KEY, at[0], (at[1], at[0]))), argnums=(0, 1))(
                start, inputs
            ),
        )

    found, expected = both(start, inputs)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-8)


def test_parameters_that_stay_get_their_derivative():
    """With a frozen half, θ*_a(φ_a, φ_b) is again a closed form in both."""
    matrix, vector, start = problem()

    def loss(key, theta, support):
        return quadratic(key, jnp.concatenate([theta["a"], theta["b"]]), support)

    inner = implicit(
        loss,
        optax.sgd(0.05),
        600,
        strength=STRENGTH,
        solver=conjugate_gradients(2),
        adapts=only("a"),
    )
    parts = {"a": start[:2], "b": start[2:]}
    adapted = lambda parts: inner(KEY, parts, (matrix, vector)).params["a"]  # noqa: E731
    jacobian = jax.jacrev(adapted)(parts)
    inverse = jnp.linalg.inv(matrix[:2, :2] + STRENGTH * jnp.eye(2))
    assert_close(jacobian, {"a": STRENGTH * inverse, "b": -inverse @ matrix[:2, 2:]})


def test_what_it_cannot_see_is_an_error_not_zeros():
    matrix, vector, start = problem()
    support = (matrix, vector)
    with pytest.raises(ValueError, match="cannot see an optimizer"):
        solved()(KEY, start, support, optimizer=scaled(jnp.ones(4)))
    with pytest.raises(ValueError, match="cannot see an optimizer or a state"):
        solved()(KEY, start, support, optimizer_state=())
    with pytest.raises(ValueError, match="nor batches"):
        solved()(KEY, start, support, batches=jnp.zeros((5, 1), int))

    def hidden(rate):  # a learned rate behind its back
        inner = implicit(quadratic, optax.sgd(rate), 5, strength=STRENGTH)
        return inner(KEY, start, support).params.sum()

    assert jnp.isfinite(hidden(0.1))
    with pytest.raises(ValueError, match="learned rate"):
        jax.grad(hidden)(0.1)


def test_observations_come_before_and_after_every_step():
    matrix, vector, start = problem()
    end = solved(steps=3)(KEY, start, (matrix, vector), observe=lambda theta: theta)
    assert end.observations.shape == (4, 4)
    assert_close(end.observations[0], start)
    assert_close(end.observations[-1], end.params)


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"strength": 1.0, "damping": -1.0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match="positive strength"):
        implicit(quadratic, optax.sgd(0.1), 1, **options)


def test_memory_does_not_grow_with_the_steps():
    matrix, vector, start = problem()

    def bytes_of(steps):
        inner = solved(steps=steps)
        loss = lambda start: inner(KEY, start, (matrix, vector)).params.sum()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(start).compile().memory_analysis().temp_size_in_bytes

    few = bytes_of(5)
    # The key of each step is all that there is more of.
    assert bytes_of(80) - few <= 80 * 64
