"""Losses whose derivatives are rules of their own: every exact way gives what reverse mode gives.

The meta-gradient is that of the inner loop as a program: the derivative of the steps that it takes,
which the rules decide. A rule need not be the derivative of anything, so its Jacobian need not be
symmetric, and one that is a `custom_vjp` has no forward mode.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxmeta import Batch, Task, squared_error
from jaxmeta.inner import implicit, mixed_mode, reverse_mode, truncated, unroll
from jaxmeta.learners import imaml, maml
from jaxmeta.models import from_linen

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


@jax.custom_vjp
def reverse(x):
    return x


reverse.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))


@jax.custom_vjp
def clip(x):
    return x


clip.defvjp(lambda x: (x, None), lambda _, cotangent: (jnp.clip(cotangent, -0.5, 0.5),))


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, cotangent: (cotangent,))


@jax.custom_vjp
def nested(x):  # forward mode meets a `custom_vjp`, and does not exist
    return reverse(x)


nested.defvjp(lambda x: (reverse(jnp.sin(x)), x), lambda x, g: (g * reverse(jnp.cos(x)),))


@jax.custom_jvp
def half(x, y):  # as if y were a constant, but not to second order
    return x * y


half.defjvp(lambda primals, tangents: (half(*primals), tangents[0] * primals[1]))

RULES = {
    "reverse": reverse,
    "clip": clip,
    "straight-through": straight_through,
    "nested": nested,
    "custom_jvp": lambda x: half(x, jnp.tanh(x[::-1])),
    "custom_gradient": jax.custom_gradient(lambda x: (jnp.sin(x), lambda g: (g * x,))),
    "scanned": lambda x: jax.lax.scan(lambda c, _: (reverse(jnp.sin(c)), None), x, length=2)[0],
    "checkpointed": jax.checkpoint(lambda x: jnp.sin(reverse(x))),
}
# These make constants: mixed mode as it is.
CONSTANTS = {
    "stop_gradient": lambda x: x * jax.lax.stop_gradient(jnp.cos(x)),
    "straight through by stop_gradient": lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x),
    "relu": lambda x: jax.nn.relu(x) + jnp.sin(x),
}


def loss_with(rule):
    def loss(key, params, batch):
        inputs, targets = batch
        hidden = rule(2 * jnp.tanh(inputs @ params["in"]))
        return jnp.square(hidden @ params["out"] - targets).mean()

    return loss


def problem():
    random = np.random.default_rng(0)
    params = {"in": random.normal(size=(3, 4)), "out": random.normal(size=4)}
    batch = (random.normal(size=(5, 3)), random.normal(size=5))
    return jax.tree.map(jnp.asarray, (params, batch))


def gradients(way, rule, value=False):
    """To the initialisation and to the data, after two steps."""
    loss = loss_with(rule)
    step = optax.sgd(0.1)
    if value:

        def update(updates, state, params=None, **extra):
            return jax.tree.map(lambda g: -0.1 * extra["value"] * g, updates), state

        step = optax.GradientTransformationExtraArgs(lambda params: (), update)
    inner = unroll(loss, step, 2, differentiation=way, value=value)

    def judged(params, batch):
        return jnp.square(inner(KEY, params, batch).params["out"]).sum()

    return jax.grad(judged, argnums=(0, 1))


@pytest.mark.full
@pytest.mark.parametrize(
    ("rule", "value"), [(rule, False) for rule in RULES | CONSTANTS] + [("reverse", True)]
)
def test_mixed_mode_is_reverse_mode(rule, value):
    rule = (RULES | CONSTANTS)[rule]
    found, expected = jax.jit(
        lambda *given: tuple(
            gradients(way, rule, value)(*given) for way in (mixed_mode, reverse_mode)
        )
    )(*problem())
    chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_reversed_gradient_by_hand():
    """w_b · rev(w_a x), x = 1, y = 0: θ' = θ − α g, g = 2 w_a w_b (−w_b, w_a), and its Jacobian."""
    a, b, rate = 0.5, 2.0, 0.1
    field = lambda a, b: np.array([-2 * a * b * b, 2 * a * a * b])  # noqa: E731
    jacobian = np.array([[-2 * b * b, -4 * a * b], [4 * a * b, 2 * a * a]])
    at_end = field(*(np.array([a, b]) - rate * field(a, b)))
    expected = (np.eye(2) - rate * jacobian).T @ at_end

    def loss(key, w, batch):
        return jnp.square(w[1] * reverse(w[0] * batch))

    def judged(way, w):
        inner = unroll(loss, optax.sgd(rate), 1, differentiation=way)
        return loss(KEY, inner(KEY, w, jnp.ones(())).params, jnp.ones(()))

    for way in (mixed_mode, truncated(1), reverse_mode):
        found = jax.jit(jax.grad(lambda w, way=way: judged(way, w)))(jnp.array([a, b]))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(expected, [-12.9276, 0.3249], atol=1e-4)


def test_a_rule_that_sees_what_a_learner_is_closed_over():
    """Under `vmap` and `shard_map`, and with a scale that is traced."""
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf * 2, leaf - 1]), problem())

    def of_task(way, params, batch):
        scale = batch[0][0, 0]
        return gradients(way, lambda x: reverse(scale * x))(params, batch)

    def mapped(way):
        return lambda tasks: jax.vmap(lambda *task: of_task(way, *task))(*tasks)

    spec = PartitionSpec("tasks")
    mesh = jax.make_mesh((2,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:2])
    sharded = jax.shard_map(mapped(mixed_mode), mesh=mesh, in_specs=(spec,), out_specs=spec)
    expected = jax.jit(mapped(reverse_mode))(tasks)
    chex.assert_trees_all_close(jax.jit(mapped(mixed_mode))(tasks), expected, rtol=1e-9)
    chex.assert_trees_all_close(jax.jit(sharded)(tasks), expected, rtol=1e-9)


def test_a_network_with_a_rule_learns_by_its_default(x64):
    from flax import linen as nn

    class Quantised(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(1)(straight_through(nn.Dense(8)(inputs)))

    model = from_linen(Quantised())
    batch = Batch(jnp.linspace(-1.0, 1, 6)[:, None], jnp.linspace(0.0, 2, 6)[:, None])
    task = Task(batch, batch)

    def gradient(**options):
        learner = maml(model, squared_error, optax.sgd(0.1), 2, **options)
        meta_params = learner.init(KEY, task)
        return jax.jit(jax.grad(lambda params: learner.loss(KEY, params, task)[0]))(meta_params)

    found, expected = gradient(), gradient(differentiation=reverse_mode)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rule", [reverse, RULES["custom_jvp"], RULES["custom_gradient"]])
def test_an_implicit_derivative_refuses_them_by_name(rule):
    params, batch = problem()
    inner = implicit(loss_with(rule), optax.sgd(0.1), 2, strength=1.0)
    with pytest.raises(ValueError, match=r"custom derivatives \((reverse|half|.*)\).*unroll"):
        jax.jit(lambda params: inner(KEY, params, batch).params)(params)


def test_an_implicit_learner_takes_the_networks_it_took(x64):
    from jaxmeta.models import mlp

    learner = imaml(mlp((4,), 1), squared_error, optax.sgd(0.1), 2, strength=1.0)
    batch = Batch(jnp.ones((3, 1)), jnp.ones((3, 1)))
    params = learner.init(KEY, Task(batch, batch))
    assert jnp.isfinite(learner.loss(KEY, params, Task(batch, batch))[0])
