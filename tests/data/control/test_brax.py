"""Robots of brax: rewards by hand, tasks that change them, and purity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.control import (
    CHEETAH_SCALES,
    ant,
    cheetah_dynamics,
    cheetah_outline,
    cheetah_reward,
    from_brax,
    half_cheetah,
    reacher,
)

pytestmark = pytest.mark.full  # importing brax and compiling its physics take long

KEY = jax.random.key(0)


def test_a_reacher_is_rewarded_by_its_goal():
    environment = reacher(horizon=5)
    assert (environment.observations.shape, environment.actions.shape) == ((8,), (2,))
    goals = jax.vmap(environment.sample_task)(jax.random.split(KEY, 500))
    radii = np.linalg.norm(goals, axis=1)
    assert 0.19 < radii.max() <= 0.2 and radii.mean() == pytest.approx(0.1, abs=0.01)

    state, seen = environment.reset(KEY, goals[0])
    cosines, sines = seen[:2], seen[2:4]
    angles = jnp.arctan2(sines, cosines).cumsum()
    lengths = jnp.array([0.1, 0.11])  # of the two links, in metres
    np.testing.assert_allclose(
        seen[6:], lengths @ jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1), atol=1e-3
    )

    step = jax.jit(environment.step)
    action = jnp.array([0.5, -4.0])  # clipped to −1
    for goal in goals[:2]:
        after = step(KEY, state, action, goal)
        distance = np.linalg.norm(after.observation[6:] - goal)
        assert float(after.reward) == pytest.approx(-distance - 0.5**2 - 1, rel=1e-5)
        assert not after.done
    again = step(KEY, state, action, goals[1])  # the state was not changed
    np.testing.assert_array_equal(after.observation, again.observation)
    assert jax.tree.map(jnp.shape, after.state) == jax.tree.map(jnp.shape, state)


@pytest.mark.slow
def test_one_step_under_vmap_equals_the_step():
    environment = reacher(horizon=5)
    keys = jax.random.split(KEY, 3)
    goals = jax.vmap(environment.sample_task)(keys)

    @jax.jit
    def reward(key, goal):
        state, _ = environment.reset(key, goal)
        return environment.step(key, state, jnp.ones(2), goal).reward

    each = [reward(key, goal) for key, goal in zip(keys, goals)]
    np.testing.assert_allclose(jax.vmap(reward)(keys, goals), each, rtol=1e-5)


@pytest.mark.slow  # the cheetah's physics compile for half a minute
@pytest.mark.parametrize("task", ["direction", "velocity", "joint"])
def test_a_cheetah_is_rewarded_by_its_velocity(task):
    environment = half_cheetah(task, horizon=5)
    assert (environment.observations.shape, environment.actions.shape) == ((17,), (6,))
    tasks = jax.vmap(environment.sample_task)(jax.random.split(KEY, 100))
    state, _ = environment.reset(KEY, tasks[0])
    step = jax.jit(environment.step)
    action = jnp.array([1.0, 0.5, 0.0, -0.5, 0.2, 2.0])
    applied = jnp.clip(action, -1, 1)
    if task == "joint":
        assert set(tasks.sum(axis=1).tolist()) == {5.0}
        for own in jnp.unique(tasks, axis=0):
            still = step(KEY, state, action * own, jnp.ones(6))
            after = step(KEY, state, action, own)
            np.testing.assert_allclose(after.observation, still.observation, rtol=1e-5)
        return

    def reward(own):
        return float(step(KEY, state, action, jnp.array(own)).reward)

    cost = 0.05 * float(jnp.square(applied).sum())
    if task == "direction":
        assert set(tasks.tolist()) == {-1.0, 1.0}
        ahead, back = (
            float(step(KEY, state, action, own).reward) for own in jnp.array([1.0, -1.0])
        )
        assert ahead + cost == pytest.approx(-(back + cost), abs=1e-5)
        assert abs(ahead + cost) > 1e-3
    else:
        assert tasks.min() >= 0 and 1.8 < tasks.max() <= 2
        far, further = (
            float(step(KEY, state, action, own).reward) for own in jnp.array([50.0, 51.0])
        )
        assert far - further == pytest.approx(1, abs=1e-3)
        velocity = 50 + far + cost
        near = float(step(KEY, state, action, jnp.array(velocity)).reward)
        assert near == pytest.approx(-cost, abs=1e-3)


@pytest.mark.slow
def test_an_ant_survives_in_both_directions():
    environment = ant(horizon=5)
    state, _ = environment.reset(KEY, jnp.ones(()))
    step = jax.jit(environment.step)
    action = jnp.full(8, 0.5)
    ahead, back = (float(step(KEY, state, action, jnp.array(own)).reward) for own in (1.0, -1.0))
    assert (ahead + back) / 2 == pytest.approx(1 - 0.5 * 8 * 0.25, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: half_cheetah("speed"), "task 'speed'; give direction, velocity, joint"),
        (lambda: reacher(horizon=0), "horizon 0; give at least 1 step"),
        (lambda: reacher(backend="paper"), "backend 'paper'; give spring, positional"),
        (lambda: from_brax("bee", lambda key: KEY, lambda *_: jnp.zeros(())), "no robot 'bee'"),
    ],
)
def test_nonsense_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_the_outline_follows_the_posture():
    outline = jax.jit(cheetah_outline())
    still = np.asarray(outline(jnp.zeros(17)))
    assert still.shape == (8, 2, 2)
    np.testing.assert_allclose(np.sort(still[0], axis=0), [[-0.5, 0.7], [0.5, 0.7]], atol=1e-5)
    lengths = lambda drawn: np.linalg.norm(drawn[..., 0, :] - drawn[..., 1, :], axis=-1)  # noqa: E731
    postures = jnp.zeros((3, 17)).at[0, 0].set(0.3).at[1, 1].set(jnp.pi / 2).at[2, 7].set(0.4)
    raised, upright, bent = np.asarray(outline(postures))
    np.testing.assert_allclose(raised, still + np.array([0, 0.3]), atol=1e-5)
    np.testing.assert_allclose(np.ptp(upright[0], axis=0), [0, 1], atol=1e-5)
    np.testing.assert_allclose(bent[:7], still[:7], atol=1e-5)  # only the front foot moves
    assert np.abs(bent[7] - still[7]).max() > 0.02
    for drawn in (raised, upright, bent):
        np.testing.assert_allclose(lengths(drawn), lengths(still), atol=1e-5)


def test_only_some_joints_are_disabled():
    environment = half_cheetah("joint", joints=(4, 5), horizon=5)
    masks = jax.vmap(environment.sample_task)(jax.random.split(KEY, 100))
    np.testing.assert_array_equal(
        np.unique(masks, axis=0), [[1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 0]]
    )
    with pytest.raises(ValueError, match=r"joints \(6,\); give some of 0 to 5"):
        half_cheetah("joint", joints=(6,))


@pytest.mark.slow  # the cheetah's physics compile for half a minute
@pytest.mark.parametrize(("backend", "exact"), [("generalized", True), ("spring", False)])
def test_the_simulator_starts_from_an_observation(backend, exact):
    environment = half_cheetah("joint", backend=backend, horizon=20)
    simulate = cheetah_dynamics(backend)
    mask, action = environment.sample_task(KEY), jnp.array([1.0, 0.5, 0.0, -0.5, 0.2, 2.0])

    @jax.jit
    def compare(key):
        state, seen = environment.reset(key, mask)

        def step(carry, key):
            state, seen = carry
            after = environment.step(key, state, action, mask)
            predicted = simulate(mask, seen, action)
            return (after.state, after.observation), (seen, after.observation, predicted)

        return jax.lax.scan(step, (state, seen), jax.random.split(key, 10))[1]

    before, after, predicted = jax.device_get(compare(KEY))
    change, error = (np.square(after - own).mean() for own in (before, predicted))
    assert error < (1e-8 if exact else 0.5) * change
    limits = np.array(CHEETAH_SCALES.observation)
    assert (np.abs(after) <= limits).all()
    assert float(cheetah_reward(before[0], action, after[0])) == pytest.approx(
        float(after[0, 8]) - 0.05 * float(jnp.square(action).sum()), rel=1e-6
    )
