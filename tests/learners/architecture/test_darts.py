"""DARTS on a loss that can be differentiated by hand, in float64, and on a small supernet."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Carry, Model, Task, cross_entropy
from jaxmeta.learners import darts
from jaxmeta.learners.architecture import (
    dominant_eigenvalue,
    eigenvalue_growth,
    gumbel_relaxation,
    skip_limit,
    softmax_relaxation,
)
from jaxmeta.models import supernet
from jaxmeta.training import alternating_update

KEY = jax.random.key(0)
RATE = 0.1
WAYS = ("second-order", "first-order", "finite-difference")


def quadratic():
    """Outputs m·w for mixing weights m `[1, 2]`; the squared error is quadratic in w."""

    def init(key, inputs):
        return {"architecture": jnp.full((1, 2), 0.5), "w": jnp.array([1.0, -0.5])}

    def apply(params, inputs, *, reference=None, key=None):
        return inputs * (params["architecture"][0] @ params["w"])

    return Model(init, apply)


def half_square(outputs, targets, mask=None):
    return 0.5 * jnp.square(outputs - targets).mean(), {}


def batch(value):
    return Batch(jnp.ones((1,)), jnp.full((1,), value))


def quadratic_task():
    return Task(batch(0.3), batch(-0.2))


def setting(differentiation, optimizer=None):
    optimizer = optimizer or optax.sgd(RATE)
    learner = darts(quadratic(), half_square, optimizer, differentiation=differentiation)
    logits = jnp.array([[0.4, -0.3]])
    task = quadratic_task()
    shared = learner.shared(KEY, logits, task)
    return learner, logits, Carry(jnp.zeros((), jnp.int32), shared)


def expected(logits, order):
    """∇_α ½ (m·w' + 0.2)² with w' = w − ξ (m·w − 0.3) m, m = softmax(α), by hand."""
    m = np.exp(logits) / np.exp(logits).sum()
    w = np.array([1.0, -0.5])
    error = m @ w - 0.3
    adapted = w - RATE * error * m if order == 2 else w
    ahead = m @ adapted + 0.2
    by_mixing = ahead * adapted
    if order == 2:  # w' depends on m: −ξ [(w m) + error] , contracted with ahead · m
        by_mixing = by_mixing - RATE * ahead * ((m @ m) * w + error * m)
    return (np.diag(m) - np.outer(m, m)) @ by_mixing


@pytest.mark.parametrize(
    ("differentiation", "order", "close"),
    [("second-order", 2, 1e-12), ("first-order", 1, 1e-12), ("finite-difference", 2, 1e-6)],
)
def test_architecture_gradient_by_hand(differentiation, order, close, x64):
    learner, logits, carry = setting(differentiation)
    grads, info, _ = learner.grad(KEY, logits, quadratic_task(), carry)
    np.testing.assert_allclose(grads[0], expected(np.asarray(logits[0]), order), rtol=close)
    assert np.isfinite(info.loss)


@pytest.mark.parametrize(
    "differentiation",
    [
        pytest.param("second-order", marks=pytest.mark.slow),
        pytest.param("finite-difference", marks=pytest.mark.slow),
    ],
)
def test_architecture_gradient_of_a_supernet(differentiation, x64):
    """Against finite differences of the loss after the step, with momentum and weight decay."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0),
        optax.add_decayed_weights(3e-4),
        optax.sgd(0.025, momentum=0.9, nesterov=True),
    )
    model = supernet(3, width=2, cells=1)
    learner = darts(model, cross_entropy, optimizer, differentiation=differentiation)
    images = jax.random.normal(KEY, (2, 6, 4, 4, 1))
    task = Task(*(Batch(own, jnp.arange(6) % 3) for own in images))
    logits = 0.5 * jax.random.normal(jax.random.key(1), (6, 5))
    wide = lambda leaf: leaf.astype(float) if leaf.dtype == jnp.float32 else leaf  # noqa: E731
    shared = jax.tree.map(wide, learner.shared(KEY, logits, task))  # Dense is float32 otherwise
    # After a first step there is momentum to carry on.
    carry = Carry(jnp.zeros((), jnp.int32), shared)
    carry = carry._replace(shared=learner.grad.follow(KEY, logits, task, carry))
    loss = jax.jit(
        lambda logits: learner.loss(KEY, logits, task, shared=carry.shared)[0]
    )  # the loss of adapted weights, of which the second-order gradient is exact
    grads = jax.jit(learner.grad.gradient)(KEY, logits, task, carry)[0]
    direction = jax.random.normal(jax.random.key(2), logits.shape)
    reach = 1e-5
    slope = (loss(logits + reach * direction) - loss(logits - reach * direction)) / (2 * reach)
    close = 1e-6 if differentiation == "second-order" else 2e-3
    assert float((grads * direction).sum()) == pytest.approx(float(slope), rel=close)


def test_weights_follow_with_the_new_architecture(x64):
    """φ first, then w at the new φ, as in Algorithm 1."""
    learner, _, _ = setting("first-order")
    init, update = alternating_update(learner, optax.sgd(0.5))
    sample = lambda key: quadratic_task()  # noqa: E731
    state = init(KEY, sample)
    after, _ = jax.jit(update, static_argnums=1)(state, sample)
    logits = state.meta_params - 0.5 * expected(np.asarray(state.meta_params[0]), 1)[None]
    np.testing.assert_allclose(after.meta_params, logits, rtol=1e-9)
    m = np.asarray(jax.nn.softmax(logits[0]))
    w = np.array([1.0, -0.5])
    np.testing.assert_allclose(after.shared.weights["w"], w - RATE * (m @ w - 0.3) * m, rtol=1e-9)


@pytest.mark.slow
def test_a_search_learns_the_useful_operation():
    """Images whose class is a local pattern: the weights learn, and the logits of `none` fall."""
    model = supernet(2, width=4, cells=1)
    learner = darts(model, cross_entropy, optax.sgd(0.1, momentum=0.9))
    init, update = alternating_update(learner, optax.adam(0.02))

    def sample(key):
        def part(key):
            targets = jax.random.randint(key, (16,), 0, 2)
            noise = 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (16, 8, 8, 1))
            stripes = jnp.where(jnp.arange(8) % 2 == 0, 1.0, -1.0)
            across, along = stripes[:, None], stripes[None, :]
            pattern = jnp.where(targets[:, None, None] == 0, across, along)
            return Batch(pattern[..., None] + noise, targets)

        return Task(*map(part, jax.random.split(key)))

    state = init(KEY, sample)
    state, infos = jax.jit(
        lambda state: jax.lax.scan(lambda now, _: update(now, sample), state, length=60)
    )(state)
    assert infos.loss[-10:].mean() < 0.5 * infos.loss[:5].mean()
    assert state.meta_params[:, 0].mean() < state.meta_params[:, 1:].mean()
    chex.assert_shape(learner.derive(state.meta_params, state.shared), (6,))


def test_gumbel_samples_with_the_probabilities_of_the_softmax(x64):
    relaxation = gumbel_relaxation(optax.constant_schedule(2.0))
    logits = jnp.array([[1.0, 0.0, -1.0]])
    keys = jax.random.split(KEY, 4000)
    drawn = jax.vmap(lambda key: relaxation(key, logits, jnp.array(0)))(keys)
    np.testing.assert_allclose(drawn.sum(axis=2), 1, rtol=1e-12)
    np.testing.assert_allclose(drawn.mean(axis=0), jax.nn.softmax(logits), atol=0.03)
    # The derivative is that of the softmax at the temperature, with the same noise.
    noise = jax.random.gumbel(KEY, logits.shape, logits.dtype)
    soft = lambda logits: jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / 2.0)[0, 0]  # noqa: E731
    hard = lambda logits: relaxation(KEY, logits, jnp.array(0))[0, 0]  # noqa: E731
    np.testing.assert_allclose(jax.grad(hard)(logits), jax.grad(soft)(logits), rtol=1e-9)


def test_the_dominant_eigenvalue_of_a_known_hessian(x64):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    values = np.array([5.0, -1.0, 2.0, 0.5, 3.0, 0.1])
    hessian = basis @ np.diag(values) @ basis.T
    loss = lambda x: 0.5 * x.ravel() @ hessian @ x.ravel()  # noqa: E731
    found = dominant_eigenvalue(loss, jnp.ones((2, 3)), iterations=100)
    assert float(found) == pytest.approx(5.0, rel=1e-6)


def test_the_rule_of_eigenvalues():
    """λ 1, 1, 1.2, 2 at steps 1, 3, 5, 7: it grows by more than a third in the fourth epoch."""
    rule = eigenvalue_growth(2, window=1, lag=1, first=1)
    state, found = rule.init(jnp.zeros((1, 2))), []
    for step, value in enumerate([9.0, 1.0, 9.0, 1.0, 9.0, 1.2, 9.0, 2.0]):
        loss = lambda x, value=value: 0.5 * value * jnp.square(x).sum()  # noqa: E731
        logits = jnp.full((1, 2), float(step))
        state, met, derived = rule.check(state, jnp.array(step), logits, loss)
        found.append(bool(met))
    assert found == [False] * 7 + [True]  # measured at steps 1, 3, 5, 7 only
    assert derived.tolist() == [[5.0, 5.0]]  # the architecture of one epoch before


def test_no_search_stops_before_the_first_epoch():
    rule = eigenvalue_growth(1, window=1, lag=1, first=4)
    state, found = rule.init(jnp.zeros((1, 2))), []
    for step in range(5):  # the eigenvalue doubles every time
        loss = lambda x, step=step: 2.0**step * jnp.square(x).sum()  # noqa: E731
        state, met, _ = rule.check(state, jnp.array(step), jnp.zeros((1, 2)), loss)
        found.append(bool(met))
    assert found == [False, False, False, True, True]


def test_a_stopped_search_keeps_the_last_architecture_within_the_limit():
    learner = darts(quadratic(), half_square, optax.sgd(RATE), stop=skip_limit(1, largest=0))
    skips = jnp.array([[0.0, 1.0]])
    keeps = jnp.array([[1.0, 0.0]])
    task = quadratic_task()
    carry = Carry(jnp.zeros((), jnp.int32), learner.shared(KEY, keeps, task))
    for logits in (keeps, 2 * keeps, skips, keeps * 3):
        carry = carry._replace(shared=learner.grad.follow(KEY, logits, task, carry))
    assert float(carry.shared.stopped) == 1
    np.testing.assert_allclose(carry.shared.logits, 2 * keeps)
    assert learner.derive(skips, carry.shared).tolist() == [0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            partial(darts, quadratic(), half_square, optax.sgd(1.0), differentiation="third"),
            "third",
        ),
        (partial(skip_limit, 1, -1), "largest -1"),
        (partial(eigenvalue_growth, 0), "every 0"),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_model_without_an_architecture_is_refused():
    plain = Model(lambda key, inputs: {"w": jnp.ones(2)}, lambda params, inputs, **_: inputs)
    with pytest.raises(ValueError, match="no parameter 'architecture'"):
        darts(plain, half_square, optax.sgd(1.0)).init(KEY, quadratic_task())


def test_softmax_relaxation_ignores_key_and_step():
    logits = jnp.array([[0.0, jnp.log(3.0)]])
    found = softmax_relaxation(KEY, logits, jnp.array(7))
    np.testing.assert_allclose(found, [[0.25, 0.75]], rtol=1e-6)
