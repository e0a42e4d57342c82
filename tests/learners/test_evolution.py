"""Evolution strategies and truncation, against the true gradient of what can be done by hand."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Carry, Info, Task, meta_learner
from jaxmeta.learners.evolution import evolve, persistent_es
from jaxmeta.learners.truncation import Unroll, truncated_backpropagation
from jaxmeta.training import meta_update
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)
PHI = {"a": jnp.array([0.3, -0.2]), "b": jnp.array(0.5)}
NOTHING = Task(Batch((), ()), Batch((), jnp.zeros(())))
CARRY = Carry(jnp.zeros((), jnp.int32))


def quadratic(meta_params):
    """With a kink nowhere and every parameter in it; its smoothed gradient is its own."""
    a, b = meta_params["a"], meta_params["b"]
    return (a @ jnp.array([[2.0, 0.5], [0.5, 1.0]]) @ a) + 3 * b * a[0] + (b - 1) ** 2


def of_loss(loss):
    """A learner of which only the loss matters."""
    learner = meta_learner(
        init=lambda key, task: jax.tree.map(jnp.copy, PHI),  # a state is donated
        adapt=lambda key, meta_params, support: meta_params,
        predict=lambda adapted, inputs, key=None: adapted,
        objective=lambda outputs, targets, mask=None: (loss(outputs), {}),
    )
    return learner


def within_three_errors(samples, expected):
    """Every entry of the mean of the samples lies within three standard errors."""
    for values, right in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        if not (np.abs(values.mean(axis=0) - right) <= 3 * errors).all():
            return False
    return True


@pytest.mark.full
def test_evolution_is_right_on_average():
    learner = evolve(of_loss(quadratic), std=0.1, pairs=2)
    keys = jax.random.split(KEY, 4000)
    grads, info, _ = jax.vmap(lambda key: learner.grad(key, PHI, NOTHING, CARRY))(keys)
    assert within_three_errors(grads, jax.grad(quadratic)(PHI))
    assert not within_three_errors(grads, jax.tree.map(lambda g: 1.1 * g, jax.grad(quadratic)(PHI)))
    smoothed = quadratic(PHI) + 0.1**2 * (2 + 1 + 1)  # σ² times half the Hessian's trace
    assert abs(info.loss.mean() - smoothed) < 5e-3


def test_evolution_learns_what_has_no_gradient():
    steps = lambda meta_params: jnp.round(4 * quadratic(meta_params))  # noqa: E731
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(jax.grad(steps)(PHI)))
    learner = evolve(of_loss(steps), std=0.3, pairs=16)
    sample = jax.tree_util.Partial(lambda key: NOTHING)
    init, update = meta_update(learner, optax.adam(0.03), task_batch=4)
    state, _ = chunk_of(update)(init(KEY, sample), sample, length=200)
    assert steps(state.meta_params) < steps(PHI) - 3


@pytest.mark.parametrize("options", [{"std": 0.0}, {"pairs": 0}])
def test_bad_settings_are_refused(options):
    for transform in (evolve, partial(persistent_es, unroll=UNROLL)):
        with pytest.raises(ValueError, match="positive std"):
            transform(of_loss(quadratic), **options)


# --- unrolls in windows ---------------------------------------------------------------------

WINDOWS = 3


def advance(key, meta_params, task, state):
    """A linear system that φ drives, judged by a square: earlier φ matters in later windows."""
    state = 0.9 * state + meta_params["a"] + meta_params["b"]
    return state, jnp.square(state - 1).sum()


UNROLL = Unroll(lambda key, meta_params, task: jnp.zeros(2), advance, WINDOWS)


def whole(meta_params):
    state, total = jnp.zeros(2), 0.0
    for _ in range(WINDOWS):
        state, loss = advance(KEY, meta_params, NOTHING, state)
        total += loss
    return total


def one_unroll(learner, key):
    """The sum of the gradients over the windows of an unroll, at one φ; and the last slot."""
    carry = Carry(jnp.zeros((), jnp.int32), slot=learner.slot(key, PHI, NOTHING))
    total = jax.tree.map(jnp.zeros_like, PHI)
    for number in range(WINDOWS):
        carry = carry._replace(step=jnp.asarray(number))
        grads, info, carry = learner.grad(jax.random.fold_in(key, number), PHI, NOTHING, carry)
        total = jax.tree.map(jnp.add, total, grads)
        assert isinstance(info, Info)
    return total, carry.slot


def test_persistent_evolution_sums_to_the_true_gradient():
    learner = persistent_es(of_loss(whole), UNROLL, std=0.1, pairs=2)
    totals, slots = jax.jit(jax.vmap(partial(one_unroll, learner)))(jax.random.split(KEY, 4000))
    assert within_three_errors(totals, jax.grad(whole)(PHI))
    assert (slots.window == 0).all()  # and begins anew
    assert not jnp.any(slots.sums["a"])
    assert not jnp.any(slots.states)


def test_evolution_in_windows_without_memory_is_short_sighted():
    """As would be backpropagation through windows: what persistence is for."""
    learner = truncated_backpropagation(of_loss(whole), UNROLL)
    total, slot = one_unroll(learner, KEY)

    def short_sighted(meta_params):
        state, total = jnp.zeros(2), 0.0
        for _ in range(WINDOWS):
            state, loss = advance(KEY, meta_params, NOTHING, jax.lax.stop_gradient(state))
            total += loss
        return total

    chex.assert_trees_all_close(total, jax.grad(short_sighted)(PHI), rtol=1e-5)
    exact = jax.grad(whole)(PHI)
    assert jnp.abs(total["b"] - exact["b"]) > 0.1 * jnp.abs(exact["b"])
    assert slot.window == 0
    assert not jnp.any(slot.state)


@pytest.mark.parametrize("transform", [truncated_backpropagation, persistent_es])
def test_every_place_of_the_batch_goes_on_with_its_own_unroll(transform):
    def start(key, meta_params, task):
        return task.query.targets * jnp.ones(2)  # each task its own beginning

    learner = transform(of_loss(whole), UNROLL._replace(start=start))
    sample = jax.tree_util.Partial(
        lambda key: NOTHING._replace(query=Batch((), jax.random.normal(key)))
    )
    init, update = meta_update(learner, optax.sgd(0.0), task_batch=3)
    state = init(KEY, sample)
    beginnings = jax.tree.leaves(state.slots)[0].reshape(-1)
    assert len(set(beginnings.tolist())) >= 3
    for expected in (1, 2, 0, 1):
        state, _ = jax.jit(update)(state, sample)
        assert (state.slots.window == expected).all()
    again = jax.tree.leaves(state.slots)[0].reshape(-1)
    assert not set(beginnings.tolist()) & set(again.tolist())  # of new tasks
