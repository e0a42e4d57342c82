"""The inner loop's forward side: steps, masks, rates, minibatches, what is observed."""

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from jaxmeta import Batch, squared_error
from jaxmeta.inner import (
    DIFFERENTIATIONS,
    combine,
    minibatches,
    only,
    partition,
    scaled,
    support_loss,
    truncated,
    unroll,
)
from jaxmeta.models import mlp

KEY = jax.random.key(0)
MODEL = mlp((5,), 1)
SUPPORT = Batch(jnp.linspace(-1, 1, 6)[:, None], jnp.linspace(0, 2, 6)[:, None])
LOSS = support_loss(MODEL, squared_error)


def initial():
    return MODEL.init(KEY, SUPPORT.inputs)


def moved(before, after):
    return jax.tree.map(lambda a, b: bool((a != b).all()), before, after)


WAYS = {**DIFFERENTIATIONS, "truncated": truncated(1)}


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_losses_of_every_step_are_observed(way):
    inner = unroll(LOSS, optax.sgd(0.1), 3, differentiation=way)
    watch = lambda params: (LOSS(KEY, params, SUPPORT), params)  # noqa: E731
    adapted, (losses, path), _ = jax.jit(lambda p: inner(KEY, p, SUPPORT, observe=watch))(initial())
    assert losses.shape == (4,)
    assert (jnp.diff(losses) < 0).all()
    params = initial()
    for step in range(4):
        np.testing.assert_allclose(losses[step], LOSS(KEY, params, SUPPORT), rtol=1e-5)
        seen = jax.tree.map(lambda leaf, step=step: leaf[step], path)
        chex.assert_trees_all_close(seen, params, rtol=1e-5, atol=1e-7)
        grads = jax.grad(LOSS, argnums=1)(KEY, params, SUPPORT)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    chex.assert_trees_all_equal(adapted, last)


def test_what_is_observed_before_the_window_has_the_derivative_of_the_start():
    """θ ← θ − rate · 2θ: seen before the last step, θ_k passes straight through to the start."""

    def observed(start, rate):
        loss = lambda key, theta, batch: jnp.square(theta).sum()  # noqa: E731
        inner = unroll(loss, None, 3, differentiation=truncated(1))
        end = inner(KEY, start, jnp.zeros(()), optimizer=optax.sgd(rate), observe=lambda t: t)
        return end.observations

    to_start, to_rate = jax.jacrev(observed, argnums=(0, 1))(jnp.array(1.0), jnp.array(0.25))
    # After 0, 1, 2 and 3 steps; only the third is differentiated.
    assert to_start.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert to_rate.tolist() == [0.0, 0.0, 0.0, -0.5]


def test_nothing_is_observed_unless_asked():
    adapted, observations, _ = unroll(LOSS, optax.sgd(0.1), 0)(KEY, initial(), SUPPORT)
    assert observations is None
    chex.assert_trees_all_equal(adapted, initial())


def test_only_the_selected_parameters_move():
    inner = unroll(LOSS, optax.sgd(0.1, momentum=0.9), 2, adapts=only("head"))
    adapted = inner(KEY, initial(), SUPPORT).params
    assert moved(initial()["head"], adapted["head"]) == {"bias": True, "kernel": True}
    chex.assert_trees_all_equal(adapted["hidden_0"], initial()["hidden_0"])


def test_the_others_still_get_a_meta_gradient():
    inner = unroll(LOSS, optax.sgd(0.1), 2, adapts=only("head"))
    grads = jax.grad(lambda p: LOSS(KEY, inner(KEY, p, SUPPORT).params, SUPPORT))(initial())
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_rates_are_per_parameter():
    params = initial()
    rates = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    inner = unroll(LOSS, optax.sgd(0.1), 1)
    plain = inner(KEY, params, SUPPORT).params
    same = inner(KEY, params, SUPPORT, optimizer=scaled(rates)).params
    chex.assert_trees_all_close(same, plain)
    rates["head"] = {"bias": jnp.full((1,), -0.2), "kernel": jnp.zeros((5, 1)).at[3].set(0.3)}
    moved_by_rates = inner(KEY, params, SUPPORT, optimizer=scaled(rates)).params
    steps = jax.tree.map(jnp.subtract, moved_by_rates, params)
    plain_steps = jax.tree.map(jnp.subtract, plain, params)
    expected = jax.tree.map(lambda rate, step: rate / 0.1 * step, rates, plain_steps)
    chex.assert_trees_all_close(steps, expected, rtol=1e-4, atol=1e-6)
    masked = unroll(LOSS, None, 1, adapts=only("head"))
    of_the_head = scaled(partition(rates, only("head"))[0])
    chex.assert_trees_all_close(
        masked(KEY, params, SUPPORT, optimizer=of_the_head).params,
        {"head": moved_by_rates["head"], "hidden_0": params["hidden_0"]},
    )


def test_an_optimizer_is_needed_and_may_see_the_loss():
    with pytest.raises(ValueError, match="no optimizer"):
        unroll(LOSS, None, 1)(KEY, initial(), SUPPORT)

    def seeing(updates, state, params=None, **extra):
        return jax.tree.map(lambda g: -extra["value"] * jnp.ones_like(g), updates), state

    by_loss = optax.GradientTransformationExtraArgs(lambda params: (), seeing)
    params = initial()
    adapted = unroll(LOSS, by_loss, 1, value=True)(KEY, params, SUPPORT).params
    value = LOSS(KEY, params, SUPPORT)
    chex.assert_trees_all_close(
        adapted, jax.tree.map(lambda leaf: leaf - value, params), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=20)
@given(
    count=st.integers(1, 7),
    size=st.integers(1, 7),
    steps=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_minibatches_are_shuffled_passes(count, size, steps, seed):
    if size > count:
        with pytest.raises(ValueError, match=f"{size} is above the {count}"):
            minibatches(jax.random.key(seed), count, size, steps)
        return
    indices = np.asarray(minibatches(jax.random.key(seed), count, size, steps))
    assert indices.shape == (steps, size)
    flat = indices.reshape(-1)
    for start in range(0, flat.size, count):
        part = flat[start : start + count]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(count))


@settings(max_examples=10, deadline=None)
@given(
    valid=st.lists(st.booleans(), min_size=6, max_size=6),
    seed=st.integers(0, 9),
    tail=st.booleans(),
)
def test_minibatches_are_drawn_from_valid_examples(valid, seed, tail):
    valid = sorted(valid, reverse=True) if tail else valid
    mask, count = np.array(valid), sum(valid)
    draw = jax.jit(minibatches, static_argnums=(1, 2, 3))
    indices = np.asarray(draw(jax.random.key(seed), 6, 4, 5, jnp.asarray(mask)))
    for row in indices:
        assert mask[row].sum() == min(count, 4)  # all of them where they are few
        assert len(set(row[~mask[row]])) == (~mask[row]).sum()
    if count >= 4:
        flat = indices.reshape(-1)
        for start in range(0, flat.size, count):
            part = flat[start : start + count]
            assert len(set(part)) == len(part)
        if tail:  # padding at the end leaves the minibatches as they were
            np.testing.assert_array_equal(indices, draw(jax.random.key(seed), count, 4, 5))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_padding_is_not_seen_in_any_step(batch_size):
    def by_loss(updates, state, params=None, *, value):  # an optimizer that hears the loss
        return jax.tree.map(lambda g: -0.1 * g / (1 + value), updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), by_loss)
    loss = support_loss(mlp((), 1), squared_error)
    inner = unroll(loss, optimizer, 3, batch_size=batch_size, value=True)
    start = {"head": {"kernel": jnp.array([[0.5]]), "bias": jnp.array([0.1])}}

    @jax.jit
    def meta_gradient(support):
        def after(params):
            return loss(KEY, inner(KEY, params, support).params, support)

        return jax.value_and_grad(after)(start)

    expected = meta_gradient(SUPPORT)
    for nonsense in (np.nan, np.inf, -1e30):
        padded = jax.tree.map(
            lambda leaf, value=nonsense: jnp.pad(leaf, ((0, 2), (0, 0)), constant_values=value),
            SUPPORT,
        )._replace(mask=jnp.arange(8) < 6)
        chex.assert_trees_all_close(meta_gradient(padded), expected, rtol=1e-5, atol=1e-6)


def test_passes_over_the_support_differ_and_depend_on_the_key():
    passes = np.asarray(minibatches(KEY, 10, 10, 3))
    assert len({tuple(order) for order in passes}) == 3
    assert not np.array_equal(passes, minibatches(jax.random.key(1), 10, 10, 3))


def test_each_step_sees_its_minibatch_and_its_key():
    def loss(key, theta, batch):  # its gradient says which examples and which key it saw
        return batch @ theta[0] + jax.random.uniform(key) * theta[1].sum()

    inner = unroll(loss, optax.sgd(1.0), 3, batch_size=2)
    start = (jnp.zeros(2), jnp.zeros(1))
    support = jnp.array([1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0])
    (_, draws), (path, noise), _ = inner(KEY, start, support, observe=lambda theta: theta)
    seen = -jnp.diff(path, axis=0)
    assert sorted(seen.reshape(-1).tolist()) == support.tolist()
    steps = -jnp.diff(noise[:, 0])
    assert len(set(steps.tolist())) == 3
    assert -draws[0] == pytest.approx(float(steps.sum()))


def test_bad_settings_are_refused_early():
    with pytest.raises(ValueError, match="inner steps: -1"):
        unroll(LOSS, optax.sgd(0.1), -1)
    with pytest.raises(ValueError, match="batch size: 0"):
        unroll(LOSS, optax.sgd(0.1), 1, batch_size=0)
    with pytest.raises(ValueError, match="7 is above the 6"):
        unroll(LOSS, optax.sgd(0.1), 1, batch_size=7)(KEY, initial(), SUPPORT)
    with pytest.raises(ValueError, match="hidden_0/kernel"):
        unroll(LOSS, optax.sgd(0.1), 1, adapts=only("tail"))(KEY, initial(), SUPPORT)
    with pytest.raises(TypeError, match=r"inner optimizer: 0.1; give one of optax"):
        unroll(LOSS, 0.1, 1)  # pyright: ignore


@pytest.mark.parametrize("selects", [None, only("head"), only("kernel"), only("bias", "hidden_0")])
def test_combine_undoes_partition(selects):
    params = initial()
    chosen, others = partition(params, selects)
    chex.assert_trees_all_equal(combine(chosen, others), params)
    chex.assert_trees_all_equal(combine(others, chosen), params)
    assert len(jax.tree.leaves(chosen)) + len(jax.tree.leaves(others)) == 4


def test_a_name_selects_whole_parts_of_a_path():
    assert only("head")("head/kernel")
    assert not only("head")("head_2/kernel")
    chosen, _ = partition(initial(), only("bias"))
    assert chosen["head"]["kernel"] is None
    assert chosen["head"]["bias"] is not None
