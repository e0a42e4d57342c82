"""Windows of trajectories against the environment, and the pendulum against gymnax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.control import (
    PENDULUM_SCALES,
    Scales,
    bandits,
    encode_change,
    encode_step,
    environment_tasks,
    explored,
    from_gymnax,
    navigation,
    next_observation,
    pendulum_features,
    pendulum_parameters,
    pendulum_reward,
    pendulum_step,
    pooled_windows,
    process_of,
    tabular,
    transition_windows,
)
from jaxmeta.environment import Environment, Space, Transition

KEY = jax.random.key(0)
SCALES = Scales((4.0,), (2.0,), (0.5,))


def drift(reset_at: float = 0.0) -> Environment:
    """o' = o + task · a: every change is the action times the task's number."""

    def step(key, state, action, task):
        after = state + task * action
        return Transition(after, after, jnp.zeros(()), jnp.zeros((), bool))

    return Environment(
        lambda key, task: (jnp.full((1,), reset_at), jnp.full((1,), reset_at)),
        step,
        lambda key: jax.random.uniform(key, minval=0.01, maxval=0.02),
        Space((1,)),
        Space((1,)),
        10,
    )


def test_units_are_inverted_and_predictions_clipped():
    one, other = jnp.array([[1.0], [-3.0]]), jnp.array([[1.5], [-3.5]])
    change = encode_change(SCALES, one, other)
    np.testing.assert_allclose(change, [[1.0], [-1.0]])
    np.testing.assert_allclose(next_observation(SCALES, one, change), other)
    np.testing.assert_allclose(next_observation(SCALES, one, 10 * change), [[4.0], [-4.0]])
    np.testing.assert_allclose(encode_step(SCALES, one, one), [[0.25, 0.5], [-0.75, -1.5]])


def test_a_window_is_a_piece_of_one_trajectory():
    sample = transition_windows(drift(), SCALES, recent=(0, 6), queries=5, skip=20)
    keys = jax.random.split(KEY, 400)
    support, query = jax.jit(jax.vmap(sample))(keys)
    process = jax.vmap(lambda key: process_of(sample, key))(keys)
    inputs = np.concatenate([support.inputs, query.inputs], axis=1)
    targets = np.concatenate([support.targets, query.targets], axis=1)
    position, action = inputs[..., 0] * 4.0, inputs[..., 1] * 2.0
    # Each step is the process' own, and begins where the one before has ended.
    change = np.asarray(process)[:, None] * action
    np.testing.assert_allclose(targets[..., 0] * 0.5, change, atol=1e-6)
    np.testing.assert_allclose(position[:, 1:], (position + change)[:, :-1], atol=1e-6)
    # Some begin at the reset, most do not; the actions fill their range.
    begins = np.isclose(position[:, 0], 0)
    assert 0 < begins.mean() < 0.2
    assert 1.9 < np.abs(action).max() <= 2.0
    # From almost constant to independent actions.
    switches = (np.abs(np.diff(action, axis=1)) > 1e-6).mean(axis=1)
    assert switches.min() == 0 and switches.max() == 1 and 0.4 < switches.mean() < 0.6


def test_the_process_is_known_of_windows_alone():
    pool = explored(KEY, drift(), SCALES, trajectories=1, steps=40)
    for sample in (pooled_windows(pool), environment_tasks(drift()), lambda key: None):
        with pytest.raises(ValueError, match="`sample` must be from `transition_windows`"):
            process_of(sample, KEY)  # pyright: ignore


def test_the_mask_marks_the_last_steps():
    sample = transition_windows(drift(), SCALES, recent=(0, 6), queries=5)
    masks = np.asarray(jax.jit(jax.vmap(sample))(jax.random.split(KEY, 300)).support.mask)
    counts = masks.sum(axis=1)
    assert {*counts.tolist()} == set(range(7))
    np.testing.assert_array_equal(masks, np.arange(6) >= 6 - counts[:, None])
    full = transition_windows(drift(), SCALES, recent=(6, 6))(KEY)
    assert np.asarray(full.support.mask).all()


@pytest.mark.parametrize(
    ("environment", "options", "told"),
    [
        (drift(), {"recent": (3, 2)}, r"recent \(3, 2\)"),
        (drift(), {"recent": (0, 0)}, "at least 1 step"),
        (drift(), {"queries": 0}, "0 queries"),
        (navigation(), {}, r"the environment has \(2,\) and \(2,\)"),
        (tabular(1, 2), {}, "real observations and actions"),
        (bandits(2), {}, "real observations and actions"),
    ],
)
def test_nonsense_is_refused(environment, options, told):
    with pytest.raises(ValueError, match=told):
        transition_windows(environment, SCALES, **options)


def test_a_window_of_a_pool_is_a_piece_of_one_of_its_trajectories():
    pool = explored(KEY, drift(), SCALES, trajectories=5, steps=20)
    assert pool.inputs.shape == (5, 20, 2)
    # Each trajectory is a process of its own, and begins where the one step has ended.
    positions, actions = pool.inputs[..., 0] * 4.0, pool.inputs[..., 1] * 2.0
    numbers = np.asarray(pool.targets[..., 0] * 0.5 / actions)
    np.testing.assert_allclose(numbers, numbers[:, :1].repeat(20, axis=1), rtol=1e-3)
    assert len({*numbers[:, 0].round(4).tolist()}) == 5
    np.testing.assert_allclose(
        positions[:, 1:], (positions + pool.targets[..., 0] * 0.5)[:, :-1], atol=1e-6
    )
    sample = pooled_windows(pool, recent=(0, 6), queries=5)
    support, query = jax.jit(jax.vmap(sample))(jax.random.split(KEY, 300))
    inputs = np.concatenate([support.inputs, query.inputs], axis=1)
    pieces = np.lib.stride_tricks.sliding_window_view(np.asarray(pool.inputs), 11, axis=1)
    pieces = pieces.transpose(0, 1, 3, 2).reshape(-1, 11, 2)
    found = {int((pieces == window).all(axis=(1, 2)).argmax()) for window in inputs}
    assert all((pieces == window).all(axis=(1, 2)).any() for window in inputs)
    assert len(found) == len(pieces) == 50  # every window of every trajectory
    assert {*np.asarray(support.mask).sum(axis=1).tolist()} == set(range(7))
    with pytest.raises(ValueError, match="trajectories of 20 steps; give at least 22"):
        pooled_windows(pool, recent=(0, 11), queries=11)
    with pytest.raises(ValueError, match="0 trajectories of 9 steps"):
        explored(KEY, drift(), SCALES, trajectories=0, steps=9)


@pytest.mark.full  # importing gymnax takes long
def test_the_true_model_is_gymnaxs_pendulum():
    environment = from_gymnax("Pendulum-v1", {"m": (0.5, 2.0), "l": (0.5, 2.0)})

    @jax.jit
    @jax.vmap
    def steps(key):
        process = environment.sample_task(key)
        state, observation = environment.reset(key, process)
        # Beyond the limits of the speed and of the torque, too.
        state = state.replace(theta_dot=8 * jax.random.uniform(key, minval=-1, maxval=1))
        observation = observation.at[2].set(state.theta_dot)
        action = jax.random.uniform(key, (1,), minval=-3, maxval=3)
        after = environment.step(key, state, action, process)
        parameters = pendulum_parameters(process["m"], process["l"])
        return (
            (after.observation, after.reward),
            (
                pendulum_step(parameters, observation, action),
                pendulum_reward(observation, action),
            ),
        )

    expected, found = steps(jax.random.split(KEY, 500))
    np.testing.assert_allclose(found[0], expected[0], atol=2e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-4)
    assert (np.abs(expected[0][:, 2]) == 8).any()


def test_the_speed_is_linear_in_the_parameters():
    observation = jnp.array([np.cos(0.4), np.sin(0.4), 1.0])
    parameters = pendulum_parameters(jnp.array(0.7), jnp.array(1.3))
    change = pendulum_features(observation, jnp.array([1.5])) @ parameters
    expected = 0.05 * (1.5 * 10 / 1.3 * np.sin(0.4) + 3 / (0.7 * 1.3**2) * 1.5)
    assert float(change) == pytest.approx(expected, rel=1e-6)
    assert len(PENDULUM_SCALES.observation) == len(PENDULUM_SCALES.change) == 3
