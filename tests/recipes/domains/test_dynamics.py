"""The domain of dynamics: identification, open-loop errors, and control by planning."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import Batch, Task
from jaxmeta.data.control import (
    PENDULUM_SCALES,
    Scales,
    encode_change,
    encode_step,
    pendulum_parameters,
    pendulum_step,
)
from jaxmeta.recipes import find_domain, find_learner, known_learners, settings, start
from jaxmeta.recipes.dynamics_models import (
    DynamicsModel,
    decode,
    least_squares,
    open_loop_errors,
    quadratic_features,
    regression_model,
)
from jaxmeta.recipes.dynamics_processes import identify_pendulum
from jaxmeta.recipes.dynamics_report import Drawn, share_of_gap, tuned_regression

KEY = jax.random.key(0)


def swing(parameters, steps=16, seed=0, torque=2.0):
    """A trajectory of the true pendulum under random torques, as a set of steps."""
    random = np.random.default_rng(seed)
    observation = jnp.array([np.cos(2.0), np.sin(2.0), 0.5])
    rows = []
    for action in jnp.asarray(random.uniform(-torque, torque, (steps, 1))):
        after = pendulum_step(parameters, observation, action)
        inputs = encode_step(PENDULUM_SCALES, observation, action)
        rows.append((inputs, encode_change(PENDULUM_SCALES, observation, after)))
        observation = after
    inputs, targets = map(jnp.stack, zip(*rows))
    return Batch(inputs, targets, jnp.ones(steps, bool))


@pytest.mark.parametrize(("mass", "length"), [(0.5, 2.0), (1.7, 0.6), (2.0, 2.0)])
def test_least_squares_on_the_right_features_is_the_truth(mass, length, x64):
    parameters = pendulum_parameters(jnp.array(mass), jnp.array(length))
    steps = swing(parameters)
    np.testing.assert_allclose(identify_pendulum(steps, 1e-12), parameters, rtol=1e-8)
    # From two steps, too; without any, mass and length are 1.
    few = steps._replace(mask=jnp.arange(16) >= 14)
    np.testing.assert_allclose(identify_pendulum(few, 1e-12), parameters, rtol=1e-6)
    nothing = steps._replace(mask=jnp.zeros(16, bool))
    np.testing.assert_allclose(identify_pendulum(nothing), [1.0, 1.0])


def test_steps_at_the_largest_speed_do_not_count(x64):
    parameters = pendulum_parameters(jnp.array(0.5), jnp.array(0.5))
    steps = swing(parameters, steps=60, seed=1)
    speeds = np.abs(decode(PENDULUM_SCALES, steps)[2][:, 2])
    assert (speeds > 8 - 1e-6).sum() >= 2  # else this says nothing
    np.testing.assert_allclose(identify_pendulum(steps, 1e-12), parameters, rtol=1e-8)


def test_the_true_model_has_no_open_loop_error(x64):
    parameters = pendulum_parameters(jnp.array(1.5), jnp.array(0.8))
    query = swing(parameters)
    true = DynamicsModel(lambda key, support: parameters, pendulum_step)
    errors = open_loop_errors(true, parameters, query, PENDULUM_SCALES, 10)
    np.testing.assert_allclose(errors, 0, atol=1e-10)
    # A model in which nothing ever changes: by hand.
    still = DynamicsModel(lambda key, support: (), lambda adapted, observation, action: observation)
    errors = open_loop_errors(still, (), query, PENDULUM_SCALES, 10)
    observation, _, after = decode(PENDULUM_SCALES, query)
    away = (np.asarray(after)[:10] - np.asarray(observation)[0]) / [1, 1, 8]
    np.testing.assert_allclose(errors, np.sqrt(np.square(away).mean(axis=1)), rtol=1e-8)


def test_the_truth_is_not_clipped(x64):
    """Predictions are clipped to the largest observation, true steps beyond it are not."""
    scales = Scales((2.0,), (1.0,), (0.5,))
    steps = Batch(jnp.array([[0.9, 0.0]]), jnp.array([[3.0]]))
    assert decode(scales, steps)[2].tolist() == [[1.8 + 1.5]]


def test_least_squares_is_ridge_regression(x64):
    random = np.random.default_rng(0)
    x, y, start = (random.normal(size=shape) for shape in ((6, 3), (6, 2), (3, 2)))
    mask = np.array([True] * 5 + [False])
    found = least_squares(*map(jnp.asarray, (x, y, mask)), 0.7, jnp.asarray(start))
    x, y = x[:5], y[:5]
    expected = np.linalg.solve(x.T @ x + 0.7 * np.eye(3), x.T @ y + 0.7 * start)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_quadratic_system_is_found_by_generic_features(x64):
    """Targets that are quadratic in the inputs are fitted exactly by enough steps."""
    inputs = jax.random.uniform(KEY, (40, 4), float, -1, 1)
    weights = jax.random.normal(KEY, (15, 3), float)
    targets = quadratic_features(inputs) @ weights
    model = regression_model(quadratic_features, 1e-10, PENDULUM_SCALES)
    found = model.adapt(KEY, Batch(inputs, targets, jnp.ones(40, bool)))
    np.testing.assert_allclose(found, weights, rtol=1e-6)


def test_least_squares_is_tuned_to_finite_errors():
    """Tasks of one repeated step, in float32: the system of equations is as singular as can be."""
    step = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 16, axis=0), swing(jnp.ones(2)))
    tasks = jax.tree.map(lambda leaf: leaf[None], Task(step, step))
    drawn = Drawn(tasks, (), KEY[None])
    name, ridge = tuned_regression(drawn, PENDULUM_SCALES, 5)
    model = regression_model(quadratic_features, ridge, PENDULUM_SCALES)
    assert name in ("linear", "quadratic")
    assert np.isfinite(model.adapt(KEY, step)).all()


def test_the_share_of_the_gap_has_the_interval_of_a_ratio():
    """Against the bootstrap."""
    random = np.random.default_rng(0)
    low = random.normal(-400, 80, 300)
    high = low + random.normal(200, 60, 300)
    own = low + 0.8 * (high - low) + random.normal(0, 40, 300)
    found = share_of_gap(own, low, high)
    draws = random.integers(0, 300, (4000, 300))
    ratios = (own - low)[draws].mean(axis=1) / (high - low)[draws].mean(axis=1)
    assert float(found.mean) == pytest.approx(0.8, abs=0.05)
    assert float(found.ci95) == pytest.approx(1.96 * ratios.std(), rel=0.1)
    assert float(share_of_gap(high, low, high).mean) == 1.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"open_loop": 17}, "--open-loop 17 exceeds --queries 16"),
        ({"elites": 101}, "--elites 101 exceeds --candidates 100"),
        ({"planning_tasks": 1}, "--planning-tasks 1: give 0, or at least 2"),
        ({"mass": (2.0, 1.0)}, "give 0 < low ≤ high"),
        ({"episode_steps": 300}, "--episode-steps 300: give 1 to 200"),
        (
            {"environment": "cheetah", "mass": (1.0, 2.0)},
            "--mass 1.0 2.0 applies only to --environment pendulum",
        ),
    ],
)
def test_nonsense_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        settings.check(start(find_domain("dynamics"), find_learner("alpaca")).changed(**changes))


@pytest.mark.full
def test_a_run_on_pendulums(trained):
    folder: Path = trained("dynamics")
    results = json.loads((folder / "results.json").read_text())
    rows, control = results["open_loop"], results["control"]
    assert {*control["models"]} == {*rows, "true model"}
    assert results["figure"] == "one_step_error"
    for name, metric in (
        ("adapted", "open_loop_error"),
        ("not adapted", "open_loop_error_unadapted"),
    ):
        assert len(rows[name]["error"]) == 3
        assert rows[name]["error"][-1] == pytest.approx(results[metric], rel=1e-4)
    assert control["num_tasks"] == 2
    models = control["models"]
    assert (models["not adapted"]["gap_closed"], models["true model"]["gap_closed"]) == (0, 1)
    for row in models.values():
        assert -17 * 5 < row["return"] < 0
    assert (folder / "open-loop.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(known_learners("regression")))
def test_every_learner_of_curves_models_dynamics(learner, trained):
    folder = trained("dynamics", learner, "--planning-tasks", "0")
    results = json.loads((folder / "results.json").read_text())
    assert "control" not in results
    assert np.isfinite(results["one_step_error"])


@pytest.mark.full  # importing gymnax takes long
def test_training_windows_come_from_trajectories_that_are_explored_once():
    small = start(find_domain("dynamics"), find_learner("alpaca")).changed(trajectories=2)
    sample: Any = small.domain.tasks(small.training, small.learner.needs).train()
    assert [leaf.shape for leaf in jax.tree.leaves(sample)] == [(2, 132, 4), (2, 132, 3)]
    other = small.changed(seed=1)
    another: Any = other.domain.tasks(other.training, other.learner.needs).train()
    assert not np.array_equal(*(jax.tree.leaves(own)[0] for own in (sample, another)))


@pytest.mark.slow
def test_a_run_on_cheetahs(status, tmp_path):
    few = "--steps 2 --task-batch 2 --checkpoint-every 2 --chunk 2 --trajectories 4"
    few += " --validation-tasks 2 --eval-tasks 2 --tuning-tasks 2 --hidden 8"
    few += " --planning-tasks 2 --plan-steps 2 --episode-steps 3 --candidates 4 --elites 2"
    folder = tmp_path / "run"
    assert status("dynamics", "--preset", "cheetah", *few.split(), "--out", folder) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["tested_joints"] == [4, 5]
    models = results["control"]["models"]
    assert "true model" in results["open_loop"]  # the simulator, from observations: not exact
    assert "least squares, right features" not in models
    assert all(np.isfinite(row["return"]) for row in models.values())
