"""Active one-shot learning: a recurrent network that predicts a class, or asks for the label."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree, Task, fill_padding
from jaxmeta.learners.memory.machine import Machine
from jaxmeta.learners.ways import check_ways
from jaxmeta.objectives import class_indices, instance_numbers, masked_mean, or_nan, valid_mask
from jaxmeta.ops import varying_with


class Rewards(NamedTuple):
    """The rewards of an action in a stream of images.

    Attributes:
      right: of a prediction that is right.
      wrong: of one that is wrong.
      request: of asking for the label, its price.
    """

    right: float = 1.0
    wrong: float = -1.0
    request: float = -0.05


def stream_rewards(actions_T: Array, targets_T: Array, ways: int, rewards: Rewards) -> Array:
    """The reward of every step, float `[T]`; the action `ways` asks for the label.

    >>> actions, targets = jnp.array([2, 0, 1]), jnp.array([0, 0, 0])
    >>> [f"{reward:.2f}" for reward in stream_rewards(actions, targets, 2, Rewards()).tolist()]
    ['-0.05', '1.00', '-1.00']
    """
    chex.assert_rank([actions_T, targets_T], 1)
    predicted_T = jnp.where(actions_T == targets_T, rewards.right, rewards.wrong)
    return jnp.where(actions_T == ways, rewards.request, predicted_T)


def q_targets(rewards_T: Array, values_TA: Array, discount: float, ahead_T: Array) -> Array:
    """The one-step targets of Q-learning, float `[T]`.

        y_t = r_t + γ max_a Q_{t+1}(a), without the second term at the last step

    Args:
      rewards_T: r_t.
      values_TA: Q_t(a) of every action.
      discount: γ.
      ahead_T: bool, whether another step follows.

    >>> values = jnp.array([[0.0, 0.0], [3.0, 1.0]])
    >>> q_targets(jnp.array([1.0, 2.0]), values, 0.5, jnp.array([True, False])).tolist()
    [2.5, 2.0]
    """
    chex.assert_rank([rewards_T, values_TA, ahead_T], [1, 2, 1])
    best_T = jnp.roll(values_TA.max(axis=1), -1)
    return rewards_T + discount * jnp.where(ahead_T, best_T, 0)


class _Lived(NamedTuple):
    """A stream with the actions that were taken."""

    values_TA: Array
    actions_T: Array
    rewards_T: Array


def active_one_shot(
    machine: Machine,
    ways: int,
    *,
    rewards: Rewards | None = None,
    discount: float = 0.5,
    exploration: float = 0.05,
    instances: tuple[int, ...] = (),
) -> MetaLearner:
    """A network that classifies a stream and asks for labels at a price, trained by Q-learning.

        observation: o_t = [x_t, y_{t−1} if it was asked for, otherwise 0]
        action: a_t ∈ {class 1, …, class W, ask} = argmax_a Q(o_1, …, o_t)(a)
        reward: 1 for a right prediction, `wrong` for a wrong one, −0.05 for asking
        minimised: mean_t (r_t + γ max_a Q_{t+1}(a) − Q_t(a_t))²,  the target being a constant

    In training, an action is replaced with probability ε: by asking, by the right class, or by a
    wrong one, each with probability 1/3. In the loss, in `predict` and at test it is the best one.

    The task is a stream of `label_stream` with one-hot labels: the support is empty, inputs
    `[T, pixels + ways]` hold the previous label in their last columns, which the network sees only
    if it has asked for it. Adaptation is reading.

    Args:
      machine: a recurrent network with `ways + 1` outputs, such as `lstm_machine`.
      ways: W, classes of a stream.
      rewards: of each kind of step. Defaults to those above, with −1 for a wrong prediction; a
        lower one gives more accurate predictions and more requests.
      discount: γ.
      exploration: ε.
      instances: the 1st, 2nd, ... instances of a class that have metrics of their own.

    `predict` gives Q-values `[T, ways + 1]`. The loss is the negative mean reward of a step. Its
    metrics: `reward`; `requests`, the fraction of the steps that ask; `accuracy`, the fraction of
    the predictions that are right (0 if a stream has none); `right_2` and `requests_2`, the
    fractions of second instances that are predicted right, and whose label is asked for.

    Raises:
      ValueError: fewer than two ways; a discount or exploration that is not between 0 and 1.

    Source: Woodward, Finn 2017, "Active one-shot learning", sections 2 and 3.

    >>> from jaxmeta import Batch
    >>> from jaxmeta.learners.memory import lstm_machine
    >>> learner = active_one_shot(lstm_machine(8, 3 + 1), ways=3)
    >>> query = Batch(jnp.ones((6, 5 + 3)), jnp.array([0, 1, 2, 0, 1, 2]))
    >>> params = learner.init(jax.random.key(0), Task((), query))
    >>> learner.predict(params, query.inputs).shape
    (6, 4)
    """
    check_ways("active_one_shot", ways)
    if not (0 <= discount <= 1 and 0 <= exploration <= 1):
        raise ValueError(
            f"active_one_shot: discount {discount}, exploration {exploration}; give numbers from 0 "
            "to 1."
        )
    of_step = Rewards() if rewards is None else rewards

    def explored(key: Key, best: Array, target: Array) -> Array:
        """The best action, or with probability ε another one."""
        mix_key, kind_key, class_key = jax.random.split(key, 3)
        wrong = (target + jax.random.randint(class_key, (), 1, ways)) % ways
        kinds = jnp.stack([jnp.full_like(target, ways), target, wrong.astype(target.dtype)])
        other = kinds[jax.random.randint(kind_key, (), 0, 3)]
        return jnp.where(jax.random.bernoulli(mix_key, exploration), other, best)

    def live(
        params: PyTree, inputs_TD: Array, choose: Callable[[Array, Array], Array]
    ) -> tuple[Array, Array]:
        """Q-values `[T, ways + 1]` and actions `[T]`; `choose(values, step) -> action`."""

        def step(carry: tuple[PyTree, Array], given: tuple[Array, Array]) -> Any:
            state, asked = carry
            inputs_D, number = given
            seen_D = jnp.concatenate([inputs_D[:-ways], jnp.where(asked, inputs_D[-ways:], 0)])
            after, values_A, _ = machine.step(params, state, seen_D)
            after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
            action = choose(values_A, number)
            return (after, action == ways), (values_A, action)

        steps = jnp.arange(len(inputs_TD))
        start = (machine.start(params), jnp.zeros((), bool))
        carry = varying_with(start, (params, inputs_TD))
        return jax.lax.scan(step, carry, (inputs_TD, steps))[1]

    def best_of(values_A: Array, step: Array) -> Array:
        return values_A.argmax().astype(jnp.int32)

    def stream_of(task: Task) -> tuple[Array, Array, Array, Array]:
        """Inputs and targets without padding, which steps count, and which another one follows."""
        inputs, targets, mask = task.query
        valid_T = valid_mask(mask, len(targets))
        # Masked steps are part of the stream if a valid one follows.
        ahead_T = jnp.flip(jax.lax.cummax(jnp.flip(valid_T).astype(jnp.int32))) > 0
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets, jnp.int32)
        if mask is not None:
            inputs, targets = fill_padding(inputs, ahead_T), fill_padding(targets, mask)
        return inputs, targets, valid_T, jnp.roll(ahead_T, -1).at[-1].set(False)

    def info_of(lived: _Lived, targets_T: Array, valid_T: Array) -> Info:
        asked_T, right_T = lived.actions_T == ways, lived.actions_T == targets_T
        dtype = lived.values_TA.dtype
        reward = masked_mean(lived.rewards_T, valid_T)
        asked, right = (masked_mean(own.astype(dtype), valid_T) for own in (asked_T, right_T))
        metrics = {
            "reward": reward,
            "requests": asked,
            "accuracy": right / jnp.where(asked < 1, 1 - asked, 1),
        }
        seen_T = instance_numbers(targets_T, valid_T)
        for number in instances:
            counted_T = valid_T & (seen_T == number)
            metrics[f"right_{number}"] = masked_mean(right_T.astype(dtype), counted_T)
            metrics[f"requests_{number}"] = masked_mean(asked_T.astype(dtype), counted_T)
        return Info(-reward, metrics)

    def follow(params: PyTree, task: Task, choose: Any) -> tuple[_Lived, Info, Array, Array]:
        inputs_TD, targets_T, valid_T, ahead_T = stream_of(task)
        is_class = class_indices("active_one_shot", task.query.targets, ways, task.query.mask)
        values_TA, actions_T = live(params, inputs_TD, choose(targets_T))
        given_T = stream_rewards(actions_T, targets_T, ways, of_step).astype(values_TA.dtype)
        rewards_T = or_nan(given_T, is_class)
        lived = _Lived(values_TA, actions_T, rewards_T)
        return lived, info_of(lived, targets_T, valid_T), valid_T, ahead_T

    def init(key: Key, task: Task) -> PyTree:
        return machine.init(key, task.query.inputs[0])

    def adapt(key: Key, meta_params: PyTree, support: PyTree) -> PyTree:
        return meta_params

    def predict(adapted: PyTree, inputs: Array, *, key: Key | None = None) -> Array:
        return live(adapted, jnp.asarray(inputs), best_of)[0]

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        _, info, _, _ = follow(meta_params, task, lambda targets: best_of)
        return info.loss, info

    def squared_difference(meta_params: PyTree, key: Key, task: Task) -> tuple[Array, Info]:
        def choose(targets_T: Array) -> Callable[[Array, Array], Array]:
            def act(values_A: Array, step: Array) -> Array:
                own_key = jax.random.fold_in(key, step)
                return explored(own_key, best_of(values_A, step), targets_T[step])

            return act

        lived, info, valid_T, ahead_T = follow(meta_params, task, choose)
        target_T = q_targets(lived.rewards_T, lived.values_TA, discount, ahead_T)
        taken_T = jnp.take_along_axis(lived.values_TA, lived.actions_T[:, None], axis=1)[:, 0]
        errors_T = jax.lax.stop_gradient(target_T) - taken_T
        return masked_mean(jnp.square(errors_T), valid_T), info

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info, Carry]:
        grads, info = jax.grad(squared_difference, has_aux=True)(meta_params, key, task)
        return grads, info, carry

    return MetaLearner(init, adapt, predict, loss, grad)
