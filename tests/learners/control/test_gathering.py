"""Episodes, returns, baselines, advantages and distributions, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

from jaxmeta import Task
from jaxmeta.data.control import navigation, tabular
from jaxmeta.environment import Environment, Space, Transition
from jaxmeta.learners.control import (
    Episodes,
    Normal,
    Seen,
    begin,
    categorical,
    discounted_returns,
    episode,
    gather,
    generalized_advantages,
    linear_advantages,
    linear_values,
    maml_rl,
    normal,
    normalised,
    outputs_of,
    policy_model,
)
from jaxmeta.models import mlp


def countdown(horizon: int = 6) -> Environment:
    """Ends when `task` steps are over, and pays the number of the step."""

    def step(key, state, action, task):
        after = state + 1
        return Transition(after, after[None], after, after >= task)

    return Environment(
        lambda key, task: (jnp.zeros(()), jnp.zeros((1,))),
        step,
        lambda key: jnp.asarray(3.0),
        Space((1,)),
        Space((1,)),
        horizon,
    )


def counting(key, memory, seen):
    return memory + 1, 10 * seen.observation + memory, -memory


def test_an_episode_by_hand():
    environment = countdown()
    start = begin(environment)
    memory, seen, lived = episode(environment, counting, jax.random.key(0), 3.0, 0.0, start)
    assert float(memory) == 3
    np.testing.assert_array_equal(lived.mask, [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(lived.rewards, [1, 2, 3, 0, 0, 0])
    np.testing.assert_array_equal(lived.seen.observation[:, 0], [0, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(lived.seen.action[:4, 0], [0, 0, 11, 22])
    np.testing.assert_array_equal(lived.seen.reward[:4], [0, 1, 2, 3])
    np.testing.assert_array_equal(lived.seen.first, [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(lived.actions[:3, 0], [0, 11, 22])
    np.testing.assert_array_equal(lived.log_probabilities[:3], [0, -1, -2])
    # The next episode is told the last action and reward, and that it is a new one.
    memory, _, after = episode(environment, counting, jax.random.key(1), 2.0, memory, seen)
    assert float(memory) == 5
    assert [float(after.seen.action[0, 0]), float(after.seen.reward[0])] == [22, 3]
    assert bool(after.seen.first[0])


def test_episodes_are_those_of_a_loop():
    """The scan in Python, with the same keys."""
    environment, goal = navigation(horizon=5), jnp.array([0.3, -0.2])

    def act(key, memory, seen):
        return (), jax.random.normal(key, (2,)) / 20 + seen.observation / 10, jnp.zeros(())

    key = jax.random.key(2)
    lived = gather(environment, act, key, goal, 3)
    assert lived.rewards.shape == (3, 5)
    for number, own in enumerate(jax.random.split(key, 3)):
        _, steps_key = jax.random.split(own)
        position = np.zeros(2)
        for step, step_key in enumerate(jax.random.split(steps_key, 5)):
            np.testing.assert_allclose(lived.seen.observation[number, step], position, atol=1e-6)
            noise = np.asarray(jax.random.normal(jax.random.split(step_key)[0], (2,)))
            action = noise / 20 + position / 10
            np.testing.assert_allclose(lived.actions[number, step], action, atol=1e-6)
            position = position + np.clip(action, -0.1, 0.1)
            reward = -np.linalg.norm(position - goal)
            np.testing.assert_allclose(lived.rewards[number, step], reward, atol=1e-6)


REWARDS = np.array([1.0, -2.0, 0.5, 3.0])
VALUES = np.array([0.3, 1.0, -1.0, 2.0])


def test_advantages_against_loops(x64):
    discount, trace = 0.9, 0.7
    returns = [sum(discount**k * r for k, r in enumerate(REWARDS[t:])) for t in range(4)]
    np.testing.assert_allclose(discounted_returns(jnp.asarray(REWARDS), discount), returns)
    after = [*VALUES[1:], 0.0]
    deltas = REWARDS + discount * np.array(after) - VALUES
    expected = [
        sum((discount * trace) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(4)
    ]
    given = (jnp.asarray(REWARDS), jnp.asarray(VALUES))
    np.testing.assert_allclose(generalized_advantages(*given, discount, trace), expected)
    whole = generalized_advantages(*given, discount, 1.0)
    np.testing.assert_allclose(whole, np.array(returns) - VALUES)


def some_episodes() -> Episodes:
    random = np.random.default_rng(0)
    observations, rewards = random.normal(0, 6, (5, 7, 2)), random.normal(size=(5, 7))
    mask = np.ones((5, 7))
    mask[1, 4:], mask[3, 2:] = 0, 0
    zeros = np.zeros((5, 7))
    seen = Seen(observations, zeros, zeros, zeros)
    return jax.tree.map(jnp.asarray, Episodes(seen, zeros, zeros, rewards * mask, mask))


def test_the_baseline_is_ridge_regression(x64):
    lived = some_episodes()
    rows, targets = [], []
    for observations, rewards, mask in zip(lived.seen.observation, lived.rewards, lived.mask):
        for t in range(int(mask.sum())):
            s = np.clip(observations[t], -10, 10)
            rows.append([*s, *s**2, t / 100, (t / 100) ** 2, (t / 100) ** 3, 1])
            targets.append(sum(0.9**k * r for k, r in enumerate(rewards[t:])))
    rows, targets = np.array(rows), np.array(targets)
    rows /= np.sqrt(np.square(rows).mean(axis=0))
    size = np.eye(rows.shape[1]) * len(rows) * 0.1
    weights = np.linalg.solve(rows.T @ rows + size, rows.T @ targets)
    found = np.asarray(linear_values(lived, 0.9, ridge=0.1))
    np.testing.assert_allclose(found[np.asarray(lived.mask) > 0], rows @ weights, rtol=1e-8)
    assert not found[np.asarray(lived.mask) == 0].any()


def test_the_baseline_of_observations_that_stand_still():
    """At the limit of ±10 in every step, its features are multiples of each other, in float32."""
    lived = some_episodes()
    seen = lived.seen._replace(observation=jnp.full((5, 7, 2), 12.0))
    still = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), lived._replace(seen=seen))
    values = np.asarray(linear_values(still, 0.9))
    assert np.isfinite(values).all() and np.abs(values).max() < 10


def test_steps_that_did_not_happen_change_no_advantage():
    """Two episodes of one trial, of which the first ends early; exact values leave no advantage."""
    rewards, values = jnp.array([1.0, 1, 0, 0, 1, 1, 1, 1]), jnp.array([6.0, 5, 0, 0, 4, 3, 2, 1])
    mask = jnp.array([1.0, 1, 0, 0, 1, 1, 1, 1])
    found = generalized_advantages(rewards, values, 1.0, 0.5, mask_H=mask)
    np.testing.assert_array_equal(found, jnp.zeros(8))
    some = generalized_advantages(rewards, values / 2, 0.9, 0.5, mask_H=mask)
    kept = np.array([0, 1, 4, 5, 6, 7])
    np.testing.assert_allclose(
        some[kept], generalized_advantages(rewards[kept], values[kept] / 2, 0.9, 0.5), rtol=1e-6
    )
    assert not some[2:4].any()


def test_advantages_are_normalised_over_valid_steps(x64):
    lived = some_episodes()
    valid = np.asarray(lived.mask) > 0
    plain = np.asarray(linear_advantages(0.9, 0.8)(lived))
    found, std = map(np.asarray, normalised(plain, lived.mask))
    assert std == pytest.approx(plain[valid].std(), rel=1e-6)
    expected = (plain[valid] - plain[valid].mean()) / plain[valid].std()
    np.testing.assert_allclose(found[valid], expected, rtol=1e-6)
    assert not found[~valid].any()


def test_normal_distributions(x64):
    old = Normal(jnp.array([0.5, -1.0]), jnp.array([0.2, -0.3]))
    new = Normal(jnp.array([0.1, 0.0]), jnp.array([-0.1, 0.4]))
    action = jnp.array([1.0, 2.0])
    expected = norm.logpdf(action, old.mean, jnp.exp(old.log_std)).sum()
    np.testing.assert_allclose(normal.log_probability(old, action), expected)
    drawn = jax.vmap(lambda key: normal.sample(key, old))(
        jax.random.split(jax.random.key(0), 200_000)
    )
    np.testing.assert_allclose(drawn.mean(axis=0), old.mean, atol=0.01)
    logs = [jax.vmap(lambda a, o=o: normal.log_probability(o, a))(drawn) for o in (old, new)]
    assert float(normal.entropy(old)) == pytest.approx(-float(logs[0].mean()), abs=0.01)
    difference = float((logs[0] - logs[1]).mean())
    assert float(normal.divergence(old, new)) == pytest.approx(difference, rel=0.02)
    assert float(normal.divergence(old, old)) == 0


def test_choices(x64):
    old, new = jnp.array([0.5, -1.0, 0.0]), jnp.array([0.0, 1.0, 0.3])
    p, q = (np.exp(logits) / np.exp(logits).sum() for logits in (old, new))
    np.testing.assert_allclose(categorical.log_probability(old, 1), np.log(p[1]))
    np.testing.assert_allclose(categorical.entropy(old), -(p * np.log(p)).sum())
    np.testing.assert_allclose(categorical.divergence(old, new), (p * np.log(p / q)).sum())
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda key: categorical.sample(key, old))(keys)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, p, atol=0.01)


@pytest.mark.full
@pytest.mark.parametrize("environment", [navigation(horizon=4), tabular(3, 2, horizon=4)])
def test_networks_fit_the_spaces(environment):
    network = mlp((4,), outputs_of(environment.actions))
    policy = policy_model(network, environment.actions)
    learner = maml_rl(environment, policy, optax.sgd(0.1), 1, episodes=2)
    task = environment.sample_task(jax.random.key(0))
    params = learner.init(jax.random.key(1), Task(task, task))
    if not environment.actions.choices:  # a step of the point is 0.1, and so is the first noise
        outputs = policy.apply(params, jnp.ones((3, 2)))
        means = network.apply(params["network"], jnp.ones((3, 2)))
        np.testing.assert_allclose(outputs.mean, 0.1 * means, rtol=1e-6)
        np.testing.assert_allclose(jnp.exp(outputs.log_std), np.full((3, 2), 0.1), rtol=1e-6)
    loss, info = jax.jit(learner.loss)(jax.random.key(2), params, Task(task, task))
    lived = learner.rollout(jax.random.key(2), params, Task(task, task))
    assert float(loss) == -float(info.metrics["return"])
    np.testing.assert_allclose(-loss, lived.rewards[1].sum() / 2, rtol=1e-5)
