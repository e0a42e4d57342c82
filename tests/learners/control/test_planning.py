"""Planning against optimal actions known by hand, and control that adapts from the last steps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch
from jaxmeta.environment import Environment, Space, Transition
from jaxmeta.learners.control import (
    Seen,
    adaptive_control,
    begin,
    cross_entropy_method,
    episode,
    nothing_recent,
    predicted_return,
    random_shooting,
)

KEY = jax.random.key(0)
move = lambda observation, action: observation + action  # noqa: E731


def test_a_return_by_hand():
    reward = lambda observation, action, after: observation[0] - 10 * action[0]  # noqa: E731
    found = predicted_return(move, reward, jnp.array([1.0]), jnp.array([[2.0], [3.0]]))
    assert float(found) == 1 - 20 + 3 - 30
    of_next = lambda observation, action, after: after[0] - 10 * action[0]  # noqa: E731
    found = predicted_return(move, of_next, jnp.array([1.0]), jnp.array([[2.0], [3.0]]))
    assert float(found) == 3 - 20 + 6 - 30


def quadratic(target, weight):
    """r = −(o − target)² − weight a²; its best actions by the normal equations."""

    def reward(observation, action, after):
        return -((observation - target) ** 2).sum() - weight * (action**2).sum()

    def best(start, horizon):
        lower = np.tril(np.ones((horizon, horizon)), -1)  # o_h = start + Σ_{j<h} a_j
        right = lower.T @ np.full(horizon, target - start)
        return np.linalg.solve(lower.T @ lower + weight * np.eye(horizon), right)

    return reward, best


def test_the_cross_entropy_method_finds_the_optimum_of_a_quadratic():
    reward, best = quadratic(1.0, 0.5)
    plan = cross_entropy_method(200, (3.0,), elites=20, iterations=30)
    found = jax.jit(lambda key, at, before: plan(key, move, reward, at, before))(
        KEY, jnp.array([-0.5]), jnp.zeros((4, 1))
    )
    np.testing.assert_allclose(found[:, 0], best(-0.5, 4), atol=5e-3)


def test_the_cross_entropy_method_is_as_good_as_a_fine_grid():
    def reward(observation, action, after):
        return -jnp.abs(observation[0] - 0.7) - 0.1 * jnp.abs(action[0])

    grid = jnp.asarray(list(itertools.product(np.linspace(-1, 1, 41), repeat=2)))[:, :, None]
    best = jax.vmap(lambda own: predicted_return(move, reward, jnp.zeros(1), own))(grid).max()
    plan = cross_entropy_method(100, (1.0,), elites=10, iterations=15)
    found = plan(KEY, move, reward, jnp.zeros(1), jnp.zeros((2, 1)))
    assert float(predicted_return(move, reward, jnp.zeros(1), found)) >= float(best) - 0.01


def test_actions_stay_within_their_bounds():
    reward = lambda observation, action, after: observation.sum() + action.sum()  # noqa: E731
    for plan in (
        cross_entropy_method(100, (0.5, 2.0), elites=5, iterations=20),
        random_shooting(2000, (0.5, 2.0)),
    ):
        found = np.asarray(plan(KEY, move, reward, jnp.zeros(2), jnp.zeros((2, 2))))
        assert (np.abs(found) <= np.array([0.5, 2.0])).all()
        np.testing.assert_allclose(found[0], [0.5, 2.0], rtol=0.15)


def test_random_shooting_is_the_best_of_its_candidates():
    reward = lambda observation, action, after: -jnp.abs(observation[0] - 1) - jnp.abs(action[0])  # noqa: E731
    drawn = jax.random.uniform(KEY, (50, 3, 1), minval=-1, maxval=1)
    values = [float(predicted_return(move, reward, jnp.zeros(1), own)) for own in drawn]
    found = random_shooting(50, (1.0,))(KEY, move, reward, jnp.zeros(1), jnp.zeros((3, 1)))
    np.testing.assert_allclose(found, drawn[int(np.argmax(values))], rtol=1e-6)


def test_a_model_that_diverges_is_not_chosen():
    def breaks(observation, action):
        return jnp.where(action > 0, jnp.nan, observation)

    reward = lambda observation, action, after: observation.sum()  # noqa: E731
    for plan in (
        random_shooting(50, (1.0,)),
        cross_entropy_method(50, (1.0,), elites=3, iterations=3),
    ):
        found = plan(KEY, breaks, reward, jnp.zeros(1), jnp.zeros((2, 1)))
        assert np.isfinite(found).all() and float(found[0, 0]) <= 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: random_shooting(0, (1.0,)), "0 candidates"),
        (lambda: random_shooting(5, (0.0,)), "positive actions"),
        (lambda: cross_entropy_method(5, (1.0,), elites=6, iterations=1), "6 elites of 5"),
        (lambda: cross_entropy_method(5, (1.0,), elites=2, iterations=0), "0 iterations"),
        (lambda: cross_entropy_method(5, (1.0,), elites=2, iterations=1, std=0.0), "std 0.0"),
    ],
)
def test_nonsense_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


# --- control that adapts ------------------------------------------------------------------


def encode(observation, action, after):
    return jnp.concatenate([observation, action]), after - observation


def remember(key, support):
    return support


def test_the_memory_holds_the_last_steps_in_order():
    """Actions 1, 2, 3, … by the plan, from the observation 10 · action."""
    plan = lambda key, dynamics, reward, observation, before: before + 1  # noqa: E731
    act = adaptive_control(encode, remember, None, None, plan)  # pyright: ignore
    memory = nothing_recent(
        Batch(jnp.ones((3, 2)), jnp.ones((3, 1))), jnp.ones(1), jnp.ones((1, 1))
    )
    seen, rows = Seen(jnp.array([7.0]), jnp.zeros(1), jnp.zeros(()), jnp.array(True)), []
    for number in range(5):
        memory, action, _ = act(KEY, memory, seen)
        rows.append(memory.steps)
        seen = Seen(10.0 * (number + 1) + jnp.zeros(1), action, jnp.zeros(()), jnp.array(False))
    assert [own.mask.tolist() for own in rows[:4]] == [
        [False, False, False],
        [False, False, True],
        [False, True, True],
        [True, True, True],
    ]
    # The plan of one action is shifted out: every action is 0 + 1.
    assert rows[4].inputs.tolist() == [[10.0, 1.0], [20.0, 1.0], [30.0, 1.0]]
    assert rows[4].targets.tolist() == [[10.0], [10.0], [10.0]]
    assert rows[1].inputs[-1].tolist() == [7.0, 1.0] and rows[1].targets[-1].tolist() == [3.0]
    # A new episode begins without the steps of the last one.
    memory, _, _ = act(KEY, memory, seen._replace(first=jnp.array(True)))
    assert not memory.steps.mask.any()


def lever(horizon: int = 6) -> Environment:
    """o' = o + task · a with the unknown sign of the task; the reward is that of being at 1."""

    def step(key, state, action, task):
        after = state + task * action
        return Transition(after, after, -jnp.abs(state - 1).sum(), jnp.zeros((), bool))

    return Environment(
        lambda key, task: (jnp.zeros(1), jnp.zeros(1)),
        step,
        lambda key: jax.random.rademacher(key, (), float),
        Space((1,)),
        Space((1,)),
        horizon,
    )


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_model_that_adapts_learns_the_sign_of_a_lever(sign):
    """Without adaptation it believes in +1, and runs away from the goal where that is wrong."""

    def fitted(key, support):
        x, y = support.inputs[:, 1], support.targets[:, 0]
        weight = support.mask * jnp.square(x)
        products = (support.mask * x * y).sum()
        return jnp.where(weight.sum() > 1e-6, products / jnp.maximum(weight.sum(), 1e-6), 1.0)

    def dynamics(gain, observation, action):
        return observation + gain * action

    def reward(observation, action, after):
        return -jnp.abs(observation - 1).sum()

    plan = cross_entropy_method(100, (0.5,), elites=10, iterations=8)
    environment, returns = lever(), {}
    for name, adapt in (("adapts", fitted), ("prior", lambda key, support: jnp.ones(()))):
        act = adaptive_control(encode, adapt, dynamics, reward, plan)
        example = Batch(jnp.zeros((4, 2)), jnp.zeros((4, 1)))
        memory = nothing_recent(example, jnp.zeros(1), jnp.zeros((3, 1)))
        run = jax.jit(
            lambda key, task, act=act, memory=memory: episode(
                environment, act, key, task, memory, begin(environment)
            )[2]
        )
        returns[name] = float(run(KEY, jnp.array(sign)).rewards.sum())
    # By hand: positions 0, ½, 1, 1, … if the sign is known, else 0, −½, 0, ½, 1, 1.
    by_hand = {1.0: 0 - 1 - 0.5, -1.0: 0 - 1 - 1.5 - 1 - 0.5}
    # After a wrong step the search starts from the wrong plan, and the first steps are shorter.
    assert returns["adapts"] == pytest.approx(by_hand[sign], abs=0.1 if sign > 0 else 0.5)
    runs_away = -sum(1 + 0.5 * number for number in range(6))
    assert returns["prior"] == pytest.approx(by_hand[1.0] if sign > 0 else runs_away, abs=0.1)
