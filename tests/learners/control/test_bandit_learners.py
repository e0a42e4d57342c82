"""RL², the decision-pretrained transformer, Thompson sampling and UCB1."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmeta import Task
from jaxmeta.data.control import bandits, navigation, tabular
from jaxmeta.learners import decision_pretrained, rl_squared
from jaxmeta.learners.control import (
    Seen,
    begin,
    episode,
    no_pulls,
    thompson_sampling,
    upper_confidence,
)

KEY = jax.random.key(0)


def ready(learner, environment):
    task = environment.sample_task(jax.random.key(5))
    task = Task(task, task)
    return jax.jit(learner.init)(jax.random.key(6), task), task


def test_upper_confidence_bounds_by_hand():
    act = upper_confidence(0.5)
    memory, pulled = no_pulls(2), []
    seen = Seen(jnp.zeros(1), jnp.int32(0), jnp.zeros(()), jnp.ones((), bool))
    for reward in (1.0, 0.0, 1.0, 0.0, 0.0):
        memory, arm, _ = act(KEY, memory, seen)
        pulled.append(int(arm))
        seen = Seen(jnp.zeros(1), arm, jnp.asarray(reward), jnp.zeros((), bool))
    # 0 and 1 once; then 1 + .5√(ln 2) against .5√(ln 2); 1 + .5√(ln 3 / 2) against .5√(ln 3);
    # 2/3 + .5√(ln 4 / 3) = 1.01 against .5√(ln 4) = .59
    assert pulled == [0, 1, 0, 0, 0]
    memory, _, _ = act(KEY, memory, seen)
    assert (memory.pulls.tolist(), memory.successes.tolist()) == ([4, 1], [2, 0])


def test_thompson_sampling_draws_from_the_posterior(x64):
    memory = no_pulls(2)._replace(pulls=jnp.array([3.0, 1.0]), successes=jnp.array([2.0, 1.0]))
    seen = Seen(jnp.zeros(1), jnp.int32(0), jnp.zeros(()), jnp.ones((), bool))
    act = jax.jit(jax.vmap(lambda key: thompson_sampling()(key, memory, seen)[1]))
    second = float(act(jax.random.split(KEY, 20_000)).mean())
    random = np.random.default_rng(0)
    expected = np.mean(random.beta(2, 1, 200_000) > random.beta(3, 2, 200_000))
    assert second == pytest.approx(expected, abs=0.015)


@pytest.mark.full
@pytest.mark.parametrize(
    ("act", "low", "high"),
    [(thompson_sampling(), 72.5, 76.5), (upper_confidence(0.25), 76.0, 80.0)],
)
def test_the_published_rewards_of_rules(act, low, high):
    """n = 100, k = 5: 74.7 of Thompson sampling, 78.0 of a tuned UCB1 (Duan et al. 2016)."""
    environment = bandits(5, horizon=100)

    def of_task(key):
        task = environment.sample_task(jax.random.fold_in(key, 1))
        lived = episode(environment, act, key, task, no_pulls(5), begin(environment))[2]
        return lived.rewards.sum()

    rewards = jax.jit(jax.vmap(of_task))(jax.random.split(KEY, 1000))
    assert low < float(rewards.mean()) < high


@pytest.mark.full
@pytest.mark.parametrize("transitions", [False, True])
def test_rl_squared_is_its_loop(transitions, x64):
    """The GRU over two episodes in Python, with the actions and rewards that happened."""
    environment = tabular(3, 2, horizon=4)
    sizes = {"episodes": 2, "width": 5, "transitions": transitions}
    learner = rl_squared(environment, **sizes, discount=0.9, trace=0.6)
    params, task = ready(learner, environment)
    assert not params["value"][
        "kernel"
    ].any()  # advantages of untrained values are those of rewards
    params["value"]["kernel"] = jax.random.normal(jax.random.key(7), (5, 1))
    longest = sum(0.9**t for t in range(8))
    trial = jax.jit(learner.grad.gather)(KEY, params, task)
    lived = jax.device_get(trial.episodes)
    cell, hidden, rows = nn.GRUCell(5), np.zeros(5), []
    linear = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]  # noqa: E731
    action, reward, before = 0, 0.0, np.zeros(3)
    for e in range(2):
        for t in range(4):
            told = [*np.eye(2)[action], reward, t == 0, *(before if transitions else [])]
            before = lived.seen.observation[e, t]
            features = np.concatenate([before, told])
            hidden, _ = cell.apply({"params": params["cell"]}, hidden, jnp.asarray(features))
            seen = jax.nn.relu(linear("read", np.concatenate([hidden, features])))
            logits, value = linear("policy", seen), longest * linear("value", seen)[0]
            action, reward = int(lived.actions[e, t]), lived.rewards[e, t]
            log_probability = jax.nn.log_softmax(logits)[action]
            assert lived.log_probabilities[e, t] == pytest.approx(float(log_probability))
            rows.append((value, reward))
    values, rewards = (np.array(column, float) for column in zip(*rows))
    deltas = rewards + 0.9 * np.array([*values[1:], 0]) - values
    expected = [sum(0.54**k * delta for k, delta in enumerate(deltas[t:])) for t in range(8)]
    np.testing.assert_allclose(trial.targets.ravel(), expected + values, rtol=1e-6)
    np.testing.assert_allclose(trial.advantages.ravel(), expected, rtol=1e-6)
    assert float(learner.grad.divergence(params, trial)) == pytest.approx(0, abs=1e-12)
    # Where the policy acted the ratios are 1, so that the gain is the mean advantage.
    probabilities = jax.nn.softmax(trial.outputs)
    entropy = -(probabilities * jnp.log(probabilities)).sum(axis=-1).mean()
    squares = np.square(values - trial.targets.ravel()).mean() / longest
    found = float(learner.grad.surrogate(params, trial))
    gain = np.mean(expected)
    assert found == pytest.approx(float(0.5 * squares - gain - 0.05 * entropy), rel=1e-6)


def test_rl_squared_remembers_long_trials_before_training():
    """The state after 100 steps depends on the first reward; a GRU with biases of 0 forgets."""
    environment = bandits(2, horizon=100)
    params, _ = ready(rl_squared(environment, episodes=1, width=32), environment)
    without = {**params["cell"], "iz": {**params["cell"]["iz"], "bias": jnp.zeros(32)}}
    rewards = np.random.default_rng(0).integers(0, 2, 100)

    def end(cell, first):
        step = nn.GRUCell(32)
        features = jnp.stack([jnp.array([0, 1, 0, float(r), 0]) for r in (first, *rewards[1:])])
        apply = lambda hidden, row: step.apply({"params": cell}, hidden, row)  # noqa: E731
        return jax.lax.scan(apply, jnp.zeros(32), features)[0]

    moved = lambda cell: float(jnp.linalg.norm(end(cell, 1) - end(cell, 0)))  # noqa: E731
    assert moved(params["cell"]) > 1e-3
    assert moved(without) < 1e-6


@pytest.mark.full
def test_rl_squared_remembers_across_episodes():
    environment = navigation(horizon=3)
    learner = rl_squared(environment, episodes=3, width=4)
    params, task = ready(learner, environment)
    lived = jax.jit(learner.rollout)(KEY, params, task)
    assert lived.rewards.shape == (3, 1, 3)
    adapted = jax.jit(learner.adapt)(KEY, params, task.support)
    np.testing.assert_array_equal(adapted.last.action, lived.actions[1, 0, -1])
    outputs = learner.predict(adapted, jnp.zeros((2, 2)))
    assert outputs.mean.shape == (2, 2)
    memory = adapted.memory._replace(hidden=jnp.zeros(4))
    fresh = learner.predict(adapted._replace(memory=memory), jnp.zeros((2, 2)))
    assert not np.allclose(outputs.mean, fresh.mean)


@pytest.mark.full
def test_the_transformer_acts_on_what_it_was_trained_on(x64):
    """The logits of acting are those of the history read at once, and its loss is by hand."""
    environment = bandits(3, horizon=5)
    learner = decision_pretrained(environment, width=4, layers=1, heads=2)
    params, task = ready(learner, environment)
    adapted = jax.jit(learner.adapt)(KEY, params, task.support)
    lived = jax.jit(learner.rollout)(KEY, params, task)
    pulls, rewards = lived.actions[0, 0], lived.rewards[0, 0]
    tokens = np.zeros((6, 6))
    tokens[0, -1] = 1
    for t in range(5):
        tokens[t + 1] = [*np.eye(3)[pulls[t]], rewards[t], (t + 1) / 5, 0]
    np.testing.assert_allclose(adapted.history.tokens, tokens)
    # Pulls that come later change nothing.
    other = adapted.history.tokens.at[3:].add(7.0)
    from jaxmeta.learners.process.transformer import Transformer

    network, causal = Transformer(3, 4, 1, 2), jnp.tril(jnp.ones((6, 6), bool))
    logits, moved = (
        network.apply({"params": params}, jnp.asarray(given), causal) for given in (tokens, other)
    )
    np.testing.assert_allclose(logits[:3], moved[:3])
    assert not np.allclose(logits[3:], moved[3:])
    chosen = jax.nn.log_softmax(logits)[:5][jnp.arange(5), pulls]
    np.testing.assert_allclose(lived.log_probabilities[0, 0], chosen)
    np.testing.assert_allclose(learner.predict(adapted, jnp.zeros((1, 1)))[0], logits[-1])
    loss, info = jax.jit(learner.loss)(KEY, params, task)
    assert 0 < float(loss) < 3 and 0 <= float(info.metrics["best_arm"]) <= 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(rl_squared, bandits(2), episodes=0), "0 episodes"),
        (partial(rl_squared, bandits(2), episodes=1, trace=2.0), "trace 2.0"),
        (partial(decision_pretrained, navigation()), "real actions"),
        (partial(decision_pretrained, bandits(2), width=5), "width 5"),
    ],
)
def test_nonsense_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
