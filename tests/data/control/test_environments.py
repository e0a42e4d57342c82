"""Environments against their definitions: values by hand, and loops in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.control import (
    Tables,
    bandits,
    corners,
    environment_tasks,
    from_gymnax,
    navigation,
    observing_task,
    tabular,
)
from jaxmeta.environment import Space

KEY = jax.random.key(0)


def walk(environment, task, actions, key=KEY):
    """The observations, rewards and ends of the steps after a reset, as arrays."""

    @jax.jit
    def step(key, state, action):
        return environment.step(key, state, action, task)

    state, seen = environment.reset(key, task)
    rows = []
    for number, action in enumerate(actions):
        after = step(jax.random.fold_in(key, number), state, action)
        state = after.state
        rows.append((after.observation, after.reward, after.done))
    return np.asarray(seen), *(np.stack(column) for column in zip(*rows))


def test_navigation_by_hand():
    environment, goal = navigation(), jnp.array([0.15, 0.1])
    start, seen, rewards, done = walk(
        environment, goal, jnp.array([[0.1, 0.3], [0.045, -0.005], [-9.0, 0.0]])
    )
    np.testing.assert_allclose(start, [0, 0])
    np.testing.assert_allclose(seen, [[0.1, 0.1], [0.145, 0.095], [0.045, 0.095]], atol=1e-7)
    np.testing.assert_allclose(rewards, [-0.05, -np.hypot(0.005, 0.005), -0.105119], atol=1e-6)
    assert done.tolist() == [False, True, False]  # both coordinates within 0.01


def test_goals_fill_the_square():
    goals = np.asarray(jax.vmap(navigation().sample_task)(jax.random.split(KEY, 4000)))
    assert np.abs(goals).max() < 0.5
    np.testing.assert_allclose(goals.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(goals.var(axis=0), 1 / 12, rtol=0.05)


def corner_reward(before, after, goal):
    """The sparse reward as published, in NumPy, with every corner's distance."""
    if np.abs(after).sum() < 0.5:
        return 0.0
    distances = [np.linalg.norm(after - corner) for corner in itertools.product((-2, 2), (-2, 2))]
    distance = np.linalg.norm(after - goal)
    return np.linalg.norm(before - goal) - distance if distance == min(distances) else 0.0


@pytest.mark.parametrize("goal", [(2.0, 2.0), (-2.0, 2.0)])
def test_corners_against_a_loop(goal, x64):
    goal = np.array(goal)
    actions = np.random.default_rng(0).uniform(-0.1, 0.4, (30, 2)) * np.sign(goal)
    actions[3:6] *= -4
    start, seen, sparse, done = walk(corners(), jnp.asarray(goal), actions)
    assert np.abs(start).max() <= 0.2
    positions = [start]
    for action in actions:
        positions.append(positions[-1] + np.clip(action, -0.2, 0.2))
    np.testing.assert_allclose(seen, positions[1:])
    expected = [corner_reward(*pair, goal) for pair in itertools.pairwise(positions)]
    np.testing.assert_allclose(sparse, expected, atol=1e-12)
    assert np.count_nonzero(sparse) > 10 and sparse[0] == 0 and not done.any()
    dense = walk(corners(reward="dense"), jnp.asarray(goal), actions)[2]
    np.testing.assert_allclose(dense, -np.linalg.norm(positions[1:] - goal, axis=1))


def test_every_corner_is_a_goal():
    goals = np.asarray(jax.vmap(corners().sample_task)(jax.random.split(KEY, 200)))
    assert {*map(tuple, goals.tolist())} == {*itertools.product((-2.0, 2.0), (-2.0, 2.0))}


def test_bandits_pay_their_probabilities():
    environment, task = bandits(3, horizon=7), jnp.array([0.1, 0.5, 0.9])
    step = jax.jit(jax.vmap(lambda key, arm: environment.step(key, (), arm, task).reward, (0, 0)))
    keys, arms = jax.random.split(KEY, 6000), jnp.arange(6000) % 3
    rewards = np.asarray(step(keys, arms))
    assert {*rewards.tolist()} == {0.0, 1.0}
    np.testing.assert_allclose([rewards[arm::3].mean() for arm in range(3)], task, atol=0.03)
    assert float(environment.optimum(task)) == pytest.approx(6.3)


def test_tabular_steps_follow_their_tables():
    environment = tabular(3, 2, noise=0.5)
    task = environment.sample_task(KEY)
    np.testing.assert_allclose(task.transitions.sum(axis=2), 1, rtol=1e-5)
    of_key = lambda key: environment.step(key, jnp.int32(1), jnp.int32(1), task)  # noqa: E731
    after = jax.jit(jax.vmap(of_key))(jax.random.split(KEY, 8000))
    found = np.bincount(after.state, minlength=3) / 8000
    np.testing.assert_allclose(found, task.transitions[1, 1], atol=0.02)
    np.testing.assert_allclose(after.reward.mean(), task.rewards[1, 1], atol=0.02)
    np.testing.assert_allclose(after.reward.std(), 0.5, atol=0.02)
    np.testing.assert_array_equal(after.observation.argmax(axis=1), after.state)


def test_the_optimum_is_that_of_all_policies():
    """Every policy that may depend on the time, of two states and three steps, enumerated."""
    environment = tabular(2, 2, horizon=3)
    task = Tables(*jax.device_get(environment.sample_task(KEY)))
    best = -np.inf
    for choices in itertools.product((0, 1), repeat=6):
        policy, where, value = np.reshape(choices, (3, 2)), np.array([1.0, 0.0]), 0.0
        for actions in policy:
            value += sum(where[s] * task.rewards[s, actions[s]] for s in (0, 1))
            where = sum(where[s] * task.transitions[s, actions[s]] for s in (0, 1))
        best = max(best, value)
    assert float(environment.optimum(task)) == pytest.approx(best, rel=1e-5)


@pytest.mark.full  # importing gymnax takes long
def test_pendulums_of_unknown_mass_and_length():
    environment = from_gymnax("Pendulum-v1", {"m": (0.5, 2.0), "l": (0.5, 2.0)}, horizon=50)
    assert (environment.observations.shape, environment.actions.choices) == ((3,), 0)
    tasks = jax.vmap(environment.sample_task)(jax.random.split(KEY, 200))
    assert all(0.5 <= values.min() < values.max() <= 2 for values in tasks.values())
    task = {"m": jnp.array(0.7), "l": jnp.array(1.3)}
    state, seen = environment.reset(KEY, task)
    after = jax.jit(environment.step)(KEY, state, jnp.array([1.5]), task)
    angle, speed = np.arctan2(seen[1], seen[0]), float(seen[2])
    speed_after = speed + 0.05 * (1.5 * 10 / 1.3 * np.sin(angle) + 3 / (0.7 * 1.3**2) * 1.5)
    angle_after = angle + 0.05 * speed_after
    expected = [np.cos(angle_after), np.sin(angle_after), speed_after]
    np.testing.assert_allclose(after.observation, expected, rtol=1e-4)
    cost = angle**2 + 0.1 * speed**2 + 0.001 * 1.5**2
    assert float(after.reward) == pytest.approx(-cost, rel=1e-4)
    assert jax.tree.map(jnp.shape, after.state) == jax.tree.map(jnp.shape, state)


@pytest.mark.full
def test_a_cart_falls():
    environment = from_gymnax("CartPole-v1", {"gravity": (9.0, 20.0)})
    assert environment.actions == Space((), 2)
    assert from_gymnax("Pendulum-v1", {}).actions == Space((1,), largest=2.0)
    *_, done = walk(environment, {"gravity": jnp.array(9.8)}, [jnp.int32(1)] * 12)
    assert done[-1] and not done[0]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: navigation(horizon=0), "navigation: horizon 0; give at least 1 step"),
        (lambda: corners(reward="round"), "reward 'round'; give dense or sparse"),  # pyright: ignore
        (lambda: bandits(1), "1 arms; give at least 2"),
        (lambda: tabular(2, 1), "1 actions"),
        (lambda: tabular(noise=-1.0), "noise -1.0"),
    ],
)
def test_nonsense_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "ranges", "horizon", "told"),
    [
        ("Pendulum", {}, None, "no environment 'Pendulum'"),
        ("Pendulum-v1", {"mass": (1, 2)}, None, "no parameter 'mass'"),
        ("Pendulum-v1", {"m": (2, 1)}, None, "give low ≤ high"),
        ("Pendulum-v1", {}, 900, "give 1 to 200 steps"),
    ],
)
def test_gymnax_has_no_such_thing(name, ranges, horizon, told):
    with pytest.raises(ValueError, match=told):
        from_gymnax(name, ranges, horizon=horizon)


def test_tasks_of_an_environment():
    environment = navigation()
    task = environment_tasks(environment)(KEY)
    np.testing.assert_array_equal(task.support, task.query)
    np.testing.assert_array_equal(task.support, environment.sample_task(KEY))


def test_an_observed_task_is_appended_to_every_observation():
    plain, known = tabular(3, 2, horizon=4), observing_task(tabular(3, 2, horizon=4))
    task = plain.sample_task(KEY)
    numbers = np.concatenate([np.ravel(task.transitions), np.ravel(task.rewards)])
    assert known.observations.shape == (3 + 18 + 6,)
    state, seen = known.reset(KEY, task)
    np.testing.assert_allclose(seen, [1, 0, 0, *numbers], rtol=1e-6)
    after, expected = (env.step(KEY, state, jnp.array(1), task) for env in (known, plain))
    np.testing.assert_allclose(after.observation, [*expected.observation, *numbers], rtol=1e-6)
    assert float(after.reward) == float(expected.reward)
