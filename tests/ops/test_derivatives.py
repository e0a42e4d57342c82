"""Rules of a caller's are told from derivatives that are true, wherever they stand."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from jaxmeta import Batch, cross_entropy
from jaxmeta.inner import support_loss
from jaxmeta.models import conv4, mlp, resnet12
from jaxmeta.ops import convolve, extreme_pool, max_pool, pooled_block
from jaxmeta.ops.derivatives import own_derivatives


@jax.custom_vjp
def reversed_gradient(x):
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvps(lambda tangent, output, x: tangent)


@jax.custom_gradient
def clipped(x):
    return x, lambda cotangent: jnp.clip(cotangent, -1, 1)


def negative_transpose(x):
    return jax.custom_derivatives.linear_call(lambda _, x: x, lambda _, x: -x, (), x)


wrong_p = Primitive("wrong")
wrong_p.def_impl(lambda x: x)
wrong_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(wrong_p, lambda context, x: [x])
ad.deflinear2(wrong_p, lambda cotangent, x: [-cotangent])

RULES = {
    "reversed_gradient": reversed_gradient,
    "straight_through": straight_through,
    "clipped": clipped,
    "linear_call": negative_transpose,
    "wrong": wrong_p.bind,
}

WITHIN = {
    "itself": lambda rule: rule,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "scan": lambda rule: lambda x: jax.lax.scan(lambda c, _: (rule(c), None), x, length=2)[0],
    "map": lambda rule: lambda x: jax.lax.map(rule, x),
    "cond": lambda rule: lambda x: jax.lax.cond(x[0] > 0, rule, lambda x: x, x),
    "while": lambda rule: lambda x: jax.lax.while_loop(lambda x: x[0] < 1, rule, x),
    "deep": lambda rule: jax.jit(jax.checkpoint(lambda x: jax.lax.map(jax.jit(rule), x))),
}


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_found_wherever_it_is(rule, within):
    assert own_derivatives(jax.make_jaxpr(WITHIN[within](RULES[rule]))(jnp.ones(2)))


@pytest.mark.parametrize("rule", ["reversed_gradient", "straight_through", "linear_call", "wrong"])
def test_a_rule_is_named(rule):
    assert own_derivatives(jax.make_jaxpr(RULES[rule])(jnp.ones(2))) == [rule]


def of_square(solver):
    return lambda x: solver(lambda v: jnp.diag(jnp.arange(1.0, 3.0)) @ v, x)


# Solved to a tolerance, with the derivative of an exact solution.
NEARLY_TRUE = {
    "cg": of_square(lambda matrix, x: jax.scipy.sparse.linalg.cg(matrix, x, maxiter=1)[0]),
    "root": lambda x: jax.lax.custom_root(
        lambda v: v**2 - x, x, lambda f, guess: guess, lambda g, y: y / g(jnp.ones_like(y))
    ),
}


@pytest.mark.parametrize("solve", NEARLY_TRUE.values(), ids=NEARLY_TRUE)
def test_what_is_solved_to_a_tolerance_is_no_true_derivative(solve):
    assert own_derivatives(jax.make_jaxpr(solve)(jnp.ones(2)))


image, kernel = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
TRUE = {
    "relu": lambda: jax.nn.relu(jnp.ones(2)),
    "activations": lambda: [
        act(jnp.ones(2))
        for act in (jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.selu, jax.nn.relu6)
    ],
    "losses": lambda: (
        optax.softmax_cross_entropy_with_integer_labels(jnp.ones((2, 3)), jnp.array([0, 1])),
        optax.sigmoid_binary_cross_entropy(jnp.ones(2), jnp.ones(2)),
        jax.nn.logsumexp(jnp.ones(2)),
        jax.scipy.special.xlogy(jnp.ones(2), jnp.ones(2)),
    ),
    "stop_gradient": lambda: jax.lax.stop_gradient(jnp.ones(2)),
    "solve": lambda: jax.scipy.linalg.solve(jnp.eye(2), jnp.ones(2), assume_a="pos"),
    "factors": lambda: (jnp.linalg.slogdet(jnp.eye(2)), jnp.linalg.pinv(jnp.eye(2))),
    "dropout": lambda: jax.random.bernoulli(jax.random.key(0), 0.5, (2,)),
    "convolve": lambda: convolve(image, kernel),
    "max_pool": lambda: max_pool(image),
    "extreme_pool": lambda: extreme_pool(image, jnp.ones((1, 1, 1, 1))),
    "pooled_block": lambda: pooled_block(image, kernel, jnp.ones(2), jnp.ones(2)),
}


@pytest.mark.parametrize("function", TRUE.values(), ids=TRUE)
def test_true_derivatives_are_known(function):
    assert own_derivatives(jax.make_jaxpr(function)()) == []


@pytest.mark.parametrize(
    "model", [conv4(3, width=2), resnet12(3, width=2), mlp((4,), 3, query_statistics="batch")]
)
def test_the_networks_keep_their_fast_path(model):
    images = jnp.ones((3, 16, 16, 1))
    batch = Batch(images, jnp.arange(3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    trace = jax.make_jaxpr(support_loss(model, cross_entropy))(jax.random.key(0), params, batch)
    assert own_derivatives(trace) == []
