"""Active one-shot learning: rewards, Q-learning and what the network sees, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Carry, Task
from jaxmeta.learners.memory import (
    Machine,
    Rewards,
    active_one_shot,
    lstm_machine,
    mann,
    q_targets,
    stream_rewards,
)

KEY = jax.random.key(0)
CARRY = Carry(jnp.zeros((), jnp.int32))


def table(seen=None):
    """A machine without memory: Q-values are linear in what it sees, and recorded."""

    def step(params, state, inputs):
        if seen is not None:
            jax.debug.callback(lambda row: seen.append(row.tolist()), inputs, ordered=True)
        return state, params @ inputs, {}

    return Machine(lambda key, inputs: jnp.zeros((3, inputs.size)), lambda params: (), step)


# Two classes. The first input is a code of what the table does: ask, then name class 0 or 1.
ASK, ZERO, ONE = jnp.eye(3)
PARAMS = jnp.zeros((3, 5)).at[2, 0].set(0.3).at[0, 1].set(0.2).at[1, 2].set(0.4)


def stream(codes, targets):
    """The codes with the previous label behind them, as in `label_stream`."""
    told = jax.nn.one_hot(jnp.array([-1, *targets[:-1]]), 2)
    return Task((), Batch(jnp.concatenate([jnp.stack(codes), told], axis=1), jnp.array(targets)))


TASK = stream([ASK, ZERO, ONE, ASK, ZERO], [1, 0, 0, 1, 1])


def test_rewards_by_hand():
    actions, targets = jnp.array([2, 0, 1, 2, 0]), jnp.array([1, 0, 0, 1, 1])
    np.testing.assert_allclose(
        stream_rewards(actions, targets, 2, Rewards()), [-0.05, 1, -1, -0.05, -1]
    )
    strict = Rewards(right=2.0, wrong=-10.0, request=-0.5)
    np.testing.assert_allclose(
        stream_rewards(actions, targets, 2, strict), [-0.5, 2, -10, -0.5, -10]
    )


def test_targets_by_hand(x64):
    values = jnp.array([[9.0, 9.0, 9.0], [0.5, -1.0, 0.2], [-2.0, -1.0, -3.0], [7.0, 1.0, 1.0]])
    rewards, ahead = jnp.array([-0.05, 1.0, -1.0, 1.0]), jnp.array([True, True, False, False])
    # The third step is the last one: no value follows; what is behind it is padding.
    expected = [-0.05 + 0.5 * 0.5, 1 + 0.5 * -1.0, -1.0, 1.0]
    np.testing.assert_allclose(q_targets(rewards, values, 0.5, ahead), expected, rtol=1e-12)


def test_a_label_is_seen_only_after_it_was_asked_for():
    seen = []
    learner = active_one_shot(table(seen), ways=2, exploration=0.0)
    learner.predict(PARAMS, TASK.query.inputs)
    jax.effects_barrier()
    assert [row[3:] for row in seen] == [[0, 0], [0, 1], [0, 0], [0, 0], [0, 1]]
    # Other labels that are not asked for change no Q-value.
    hidden = TASK.query.inputs.at[2:4, 3:].set(7.0)
    np.testing.assert_array_equal(
        learner.predict(PARAMS, hidden), learner.predict(PARAMS, TASK.query.inputs)
    )


def test_metrics_by_hand():
    learner = active_one_shot(table(), ways=2, instances=(1, 2, 3))
    loss, info = learner.loss(KEY, PARAMS, TASK)
    # Asks, right, wrong, asks, wrong; the instances are 1, 1, 2, 2, 3.
    expected = {
        **{"reward": (-0.05 + 1 - 1 - 0.05 - 1) / 5, "requests": 0.4, "accuracy": 1 / 3},
        **{"right_1": 0.5, "right_2": 0.0, "right_3": 0.0},
        **{"requests_1": 0.5, "requests_2": 0.5, "requests_3": 0.0},
    }
    assert info.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert float(info.metrics[name]) == pytest.approx(value, abs=1e-6), name
    assert float(loss) == pytest.approx(-expected["reward"])
    # A stream without a prediction has the accuracy 0.
    _, info = learner.loss(KEY, PARAMS, stream([ASK, ASK], [0, 1]))
    assert (float(info.metrics["accuracy"]), float(info.metrics["requests"])) == (0.0, 1.0)


def test_the_gradient_by_hand(x64):
    """Of the squared difference to a constant target, of the action that was taken."""
    learner = active_one_shot(table(), ways=2, exploration=0.0, discount=0.5)
    grads, _, _ = learner.grad(KEY, PARAMS, TASK, CARRY)
    taken, values = [2, 0, 1, 2, 0], [0.3, 0.2, 0.4, 0.3, 0.2]
    rewards = [-0.05, 1, -1, -0.05, -1]
    targets = [r + 0.5 * v for r, v in zip(rewards, [*values[1:], 0])]
    shown = np.array(TASK.query.inputs).copy()
    shown[[2, 3], 3:] = 0
    expected = np.zeros((3, 5))
    for action, value, target, row in zip(taken, values, targets, shown):
        expected[action] += -2 * (target - value) * row / 5
    np.testing.assert_allclose(grads, expected, rtol=1e-6, atol=1e-9)


def test_exploration_has_three_kinds():
    """With ε = 1 the actions are asking, the right class and a wrong one, equally often."""
    learner = active_one_shot(table(), ways=2, exploration=1.0)
    keys = jax.random.split(KEY, 300)
    _, info, _ = jax.vmap(learner.grad, in_axes=(0, None, None, None))(keys, PARAMS, TASK, CARRY)
    assert info.metrics["requests"].mean() == pytest.approx(1 / 3, abs=0.05)
    assert info.metrics["accuracy"].mean() == pytest.approx(1 / 2, abs=0.07)
    never = active_one_shot(table(), ways=2, exploration=0.0)
    _, info, _ = never.grad(KEY, PARAMS, TASK, CARRY)
    assert info == never.loss(KEY, PARAMS, TASK)[1]


@pytest.mark.parametrize(
    "machine", [lstm_machine(8, 3), mann(3, slots=4, slot_width=3, controller_width=8)]
)
def test_it_serves_any_machine(machine):
    learner = active_one_shot(machine, ways=2)
    params = jax.eval_shape(learner.init, KEY, TASK)
    assert jax.eval_shape(learner.predict, params, TASK.query.inputs).shape == (5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "1 ways; classification requires at least 2"),
        ({"ways": 2, "discount": 2.0}, "discount 2.0, exploration 0.05"),
        ({"ways": 2, "exploration": -1.0}, "discount 0.5, exploration -1.0"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        active_one_shot(table(), **options)
