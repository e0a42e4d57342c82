"""Meta-updates of policies against the same steps written out, on a small tabular process."""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta import Model, squared_error
from jaxmeta.data.control import environment_tasks, tabular
from jaxmeta.inner import reverse_mode
from jaxmeta.learners import maml, maml_rl, promp, rl_squared
from jaxmeta.models import mlp
from jaxmeta.training import task_mesh
from jaxmeta.training.policy import proximal_update, trust_region_update
from jaxmeta.training.state import draw, task_keys

ENVIRONMENT = tabular(2, 2, horizon=4)
SAMPLE = environment_tasks(ENVIRONMENT)
TASKS = 3
POLICY = Model(
    init=lambda key, inputs: 0.3 * jax.random.normal(key, (2, 2)),
    apply=lambda params, inputs, *, reference=None, key=None: inputs @ params,
)


def learner_of(make, **options):
    return make(ENVIRONMENT, POLICY, optax.sgd(0.5), 1, episodes=8, **options)


def lived(learner, state):
    """The experience of the next meta-update's tasks, stacked."""

    def of_task(key):
        task, learn_key = draw(SAMPLE, key)
        return learner.grad.gather(learn_key, state.meta_params, task)

    return jax.jit(jax.vmap(of_task))(task_keys(state, TASKS))


def mean_of(function, experience):
    return jax.jit(lambda point: jax.vmap(lambda own: function(point, own))(experience).mean())


@pytest.mark.full
def test_a_proximal_update_is_its_loop(x64):
    learner = learner_of(promp)
    optimizer = optax.adam(0.1)
    init, update = proximal_update(learner, optimizer, task_batch=TASKS, epochs=3)
    state = jax.jit(init)(jax.random.key(0), SAMPLE)
    after, info = jax.jit(update)(state, SAMPLE)
    params, moments = state.meta_params, optimizer.init(state.meta_params)
    slope = jax.jit(jax.grad(mean_of(learner.grad.surrogate, lived(learner, state))))
    for _ in range(3):
        updates, moments = optimizer.update(slope(params), moments)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after.meta_params, params, rtol=1e-9)
    assert int(after.step) == 1
    assert set(info.metrics) == {"return", "return_before"}
    assert np.abs(after.meta_params - state.meta_params).max() > 0.1


@pytest.mark.full
def test_minibatches_are_steps_on_parts_of_the_tasks(x64):
    learner = learner_of(promp)
    optimizer = optax.sgd(1.0)
    init, update = proximal_update(learner, optimizer, task_batch=TASKS, epochs=2, minibatches=3)
    state = jax.jit(init)(jax.random.key(0), SAMPLE)
    after, _ = jax.jit(update)(state, SAMPLE)
    params, experience = state.meta_params, lived(learner, state)
    slope = jax.jit(jax.grad(learner.grad.surrogate))
    for task in (0, 1, 2, 0, 1, 2):
        own = jax.tree.map(lambda leaf, task=task: leaf[task], experience)
        params = params - slope(params, own)
    np.testing.assert_allclose(after.meta_params, params, rtol=1e-9)


@pytest.mark.parametrize(
    ("largest", "curvature_tasks"),
    [
        (1e-3, None),
        pytest.param(0.1, None, marks=pytest.mark.slow),
        pytest.param(1e-3, 2, marks=pytest.mark.full),
    ],
)
def test_a_trust_region_update_is_the_exact_one(x64, largest, curvature_tasks):
    """With the Hessian written out, and its system solved."""
    learner = learner_of(maml_rl, differentiation=reverse_mode)
    damping = 1e-3
    init, update = trust_region_update(
        learner,
        task_batch=TASKS,
        largest=largest,
        damping=damping,
        backtrack=0.5,
        curvature_tasks=curvature_tasks,
    )
    state = jax.jit(init)(jax.random.key(1), SAMPLE)
    after, info = jax.jit(update)(state, SAMPLE)
    experience, own = lived(learner, state), learner.grad
    surrogate, divergence = (mean_of(part, experience) for part in (own.surrogate, own.divergence))
    old, unravel = ravel_pytree(state.meta_params)
    gradient = jax.jit(jax.grad(lambda flat: surrogate(unravel(flat))))(old)
    curved = mean_of(own.divergence, jax.tree.map(lambda leaf: leaf[:curvature_tasks], experience))
    hessian = jax.jit(jax.hessian(lambda flat: curved(unravel(flat))))(old) + damping * np.eye(4)
    direction = np.linalg.solve(hessian, gradient)
    length = np.sqrt(2 * largest / (direction @ hessian @ direction))
    for tried in range(15):
        moved = unravel(old - 0.5**tried * length * direction)
        if surrogate(moved) < surrogate(state.meta_params) and divergence(moved) <= largest:
            break
    np.testing.assert_allclose(after.meta_params, moved, rtol=5e-3)
    assert float(info.metrics["step_factor"]) == 0.5**tried
    assert 0 < float(info.metrics["divergence"]) <= largest
    np.testing.assert_allclose(info.metrics["divergence"], divergence(moved), rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize(
    "make",
    [
        trust_region_update,
        partial(trust_region_update, curvature_tasks=2),
        partial(proximal_update, optimizer=optax.sgd(0.5), epochs=2),
    ],
)
def test_devices_share_the_tasks(x64, make, devices):
    learner = learner_of(promp)
    found = []
    for mesh in (None, task_mesh(devices)):
        init, update = make(learner, task_batch=TASKS, mesh=mesh)
        state, info = jax.jit(update)(jax.jit(init)(jax.random.key(0), SAMPLE), SAMPLE)
        found.append((state.meta_params, info))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), *found)


@pytest.mark.full
def test_no_step_without_an_improvement(x64):
    """All rewards are the same: no direction, and the parameters stay."""
    learner = learner_of(maml_rl)
    still = learner.grad.__class__(
        learner.grad.gather,
        lambda params, experience: 0.0 * learner.grad.surrogate(params, experience),
        learner.grad.divergence,
        learner.grad.info,
    )
    init, update = trust_region_update(learner._replace(grad=still), task_batch=TASKS)
    state = jax.jit(init)(jax.random.key(0), SAMPLE)
    after, info = jax.jit(update)(state, SAMPLE)
    np.testing.assert_array_equal(after.meta_params, state.meta_params)
    assert float(info.metrics["step_factor"]) == 0


@pytest.mark.full
def test_a_direction_that_is_not_finite_changes_nothing():
    """One task whose experience has diverged: no step, and no NaN in the parameters."""
    learner = learner_of(maml_rl)
    diverged = dataclasses.replace(
        learner.grad,
        surrogate=lambda params, experience: np.nan * learner.grad.surrogate(params, experience),
    )
    init, update = trust_region_update(learner._replace(grad=diverged), task_batch=TASKS)
    state = jax.jit(init)(jax.random.key(0), SAMPLE)
    after, info = jax.jit(update)(state, SAMPLE)
    np.testing.assert_array_equal(after.meta_params, state.meta_params)
    assert float(info.metrics["step_factor"]) == 0


def test_a_surrogate_that_fits_values_has_no_trust_region():
    learner = rl_squared(ENVIRONMENT, episodes=2, width=4)
    with pytest.raises(ValueError, match="also fits values"):
        trust_region_update(learner, task_batch=2)


def test_nonsense_is_refused():
    learner = learner_of(promp)
    with pytest.raises(ValueError, match="0 epochs; give at least 1"):
        proximal_update(learner, optax.sgd(1.0), task_batch=2, epochs=0)
    with pytest.raises(ValueError, match="3 minibatches of 4 tasks"):
        proximal_update(learner, optax.sgd(1.0), task_batch=4, minibatches=3)
    with pytest.raises(ValueError, match=r"backtrack 1\.0; give positive numbers"):
        trust_region_update(learner, task_batch=2, backtrack=1.0)
    with pytest.raises(ValueError, match="task batch 0"):
        trust_region_update(learner, task_batch=0)
    for few in (0, 3):
        with pytest.raises(ValueError, match=f"curvature_tasks {few}; give 1 to 2"):
            trust_region_update(learner, task_batch=2, curvature_tasks=few)
    other = maml(mlp((2,), 1), squared_error, optax.sgd(0.1), 1)
    with pytest.raises(TypeError, match="this learner gathers no experience"):
        proximal_update(other, optax.sgd(1.0), task_batch=2)
