"""Aggregations on conflicting quadratics, alone, in the update, and over devices."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, meta_learner
from jaxmeta.training import meta_update
from jaxmeta.training.aggregation import aggregate_of, balanced, clipped, mean, median, pcgrad
from jaxmeta.training.parallel import task_mesh

KEY = jax.random.key(0)
assert_close = partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)

# Each task pulls to its own point: the gradient of ½ ‖φ − target‖² is φ − target.
TARGETS = jnp.array([[4.0, 0.0], [-3.0, 1.0], [0.0, 1.0], [0.0, 100.0]])


def pull():
    """A learner whose gradient at φ = 0 is −target."""

    def objective(outputs, targets, mask=None):
        return jnp.square(outputs - targets).sum() / 2, {}

    return meta_learner(
        init=lambda key, task: jnp.zeros(2),
        adapt=lambda key, meta_params, support: meta_params,
        predict=lambda adapted, inputs, key=None: adapted,
        objective=objective,
    )


def draw(key):
    """Given an index by the host, its target."""
    target = TARGETS[key]
    return Task(Batch((), ()), Batch((), target))


def aggregated(aggregate):
    """The update that a step of SGD with a rate of 1 makes of the tasks, from φ = 0."""
    update = meta_update(pull(), optax.sgd(1.0), task_batch=4, aggregate=aggregate)
    sample = jax.tree_util.Partial(draw)
    state = update.init(KEY, jax.tree_util.Partial(lambda key: draw(0)))
    state, info = jax.jit(update.update)(state, sample, jnp.arange(4))
    return state.meta_params, info


def test_the_mean_is_the_default():
    assert_close(aggregated(mean)[0], TARGETS.mean(axis=0))


def test_no_task_leads_a_clipped_mean_astray():
    expected = jnp.array([[1.0, 0.0], [-3.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    expected = expected.at[1].divide(np.sqrt(10)).mean(axis=0)
    assert_close(aggregated(clipped(1.0))[0], expected)
    assert_close(aggregated(clipped(1e6))[0], TARGETS.mean(axis=0))
    zeros = clipped(1.0).each(jnp.zeros(3))
    chex.assert_trees_all_equal(zeros, jnp.zeros(3))


def test_the_median_is_of_each_entry():
    assert_close(aggregated(median())[0], jnp.array([0.0, 1.0]))


def test_balanced_gradients_have_one_length():
    lengths = jnp.linalg.norm(TARGETS, axis=1)
    expected = lengths.mean() * (TARGETS / lengths[:, None]).mean(axis=0)
    assert_close(aggregated(balanced())[0], expected)


def test_pcgrad_projects_conflict_away_and_leaves_agreement():
    two = jnp.array([[4.0, 0.0], [-3.0, 1.0]])
    # g₁ − (g₁·g₂/‖g₂‖²) g₂ = (4, 0) − 1.2 (3, −1), g₂ + 3/4 g₁ = (0, 1)
    expected = jnp.array([[0.4, 1.2], [0.0, 1.0]])
    for key in jax.random.split(KEY, 3):
        assert_close(pcgrad().together(key, two), expected.mean(axis=0))
    agreeing = jnp.abs(TARGETS)
    assert_close(pcgrad().together(KEY, agreeing), agreeing.mean(axis=0))
    at_right_angles = pcgrad().together(KEY, {"a": TARGETS, "b": jnp.zeros((4, 3))})
    assert at_right_angles["b"].shape == (3,)
    apart = jnp.array([[1.0, 0.0], [-(0.75**0.5), 0.5], [-(0.75**0.5), -0.5]])
    for key in jax.random.split(KEY, 4):
        changed = np.zeros((3, 2))
        for own, own_key in enumerate(jax.random.split(key, 3)):
            changed[own] = apart[own]
            for other in np.asarray(jax.random.permutation(own_key, 3)):
                if other != own:  # also where projections have turned it against itself
                    changed[own] -= min(changed[own] @ apart[other], 0) * apart[other]
        assert_close(pcgrad().together(key, apart), changed.mean(axis=0))
    around = jnp.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    orders = [pcgrad().together(key, around).tolist() for key in jax.random.split(KEY, 8)]
    assert len({tuple(order) for order in orders}) > 1  # the order is drawn


def test_pcgrad_descends_both_of_two_conflicting_quadratics():
    """Where the mean lets the long gradient win, the projected one lowers both losses."""
    curvatures = jnp.array([[100.0, 1.0], [0.0, 1.0]])
    minima = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    point = jnp.array([0.99, -0.6])

    def losses(at):
        return (curvatures * jnp.square(at[None] - minima) / 2).sum(axis=1)

    grads = jax.jacrev(losses)(point)
    assert grads[0] @ grads[1] < 0
    step = pcgrad().together(KEY, grads)
    assert (grads @ step >= -1e-6).all()
    assert (grads @ grads.mean(axis=0)).min() < 0


@pytest.mark.full
@pytest.mark.parametrize("name", ["clipped", "median", "pcgrad", "balanced"])
@pytest.mark.parametrize("tasks", [4, 3])  # the latter are padded
def test_devices_change_nothing(name, tasks):
    sample = jax.tree_util.Partial(
        lambda key: Task(Batch((), ()), Batch((), jax.random.normal(key, (2,))))
    )
    results = []
    for mesh in (None, task_mesh(2)):
        init, step = meta_update(
            pull(), optax.sgd(1.0), task_batch=tasks, aggregate=aggregate_of(name), mesh=mesh
        )
        results.append(jax.jit(step)(init(KEY, sample), sample)[0].meta_params)
    assert_close(*results)


@pytest.mark.full
def test_only_those_that_need_every_gradient_exchange_them():
    sample = jax.tree_util.Partial(
        lambda key: Task(Batch((), ()), Batch((), jax.random.normal(key, (2,))))
    )

    def text(name):
        init, step = meta_update(
            pull(), optax.sgd(1.0), task_batch=4, aggregate=aggregate_of(name), mesh=task_mesh(2)
        )
        return jax.jit(step).lower(init(KEY, sample), sample).compile().as_text()

    collective = re.compile(r" (all-reduce|all-gather|all-to-all|collective-permute)\(")
    for name in ("mean", "clipped"):
        assert collective.findall(text(name)) == ["all-reduce"]
    for name in ("median", "pcgrad"):
        assert len(collective.findall(text(name))) > 1, name


def test_the_loss_is_that_of_all_tasks_whatever_the_aggregation():
    expected = (jnp.square(TARGETS).sum(axis=1) / 2).mean()
    for name in ("mean", "clipped", "median"):
        assert_close(aggregated(aggregate_of(name))[1].loss, expected)
