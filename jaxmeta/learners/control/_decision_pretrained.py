"""Decision-pretrained transformer: supervised learning of the best arm, from random histories."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Info, Key, MetaLearner, PyTree, Task, meta_learner
from jaxmeta.environment import Environment
from jaxmeta.learners.control.gathering import Episodes, Seen, begin, episode
from jaxmeta.learners.control.policies import categorical
from jaxmeta.learners.control.policy_gradient import no_objective
from jaxmeta.learners.process.transformer import Transformer


class History(NamedTuple):
    """What happened so far in a bandit.

    Attributes:
      tokens: one for each pull, and a first one for the beginning, `[H + 1, arms + 3]`.
      pulls: int32 scalar, the number of pulls so far.
    """

    tokens: Array
    pulls: Array


class Remembering(NamedTuple):
    """The adapted state of `decision_pretrained`.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      history: the pulls of the adaptation.
    """

    meta_params: PyTree
    history: History


def decision_pretrained(
    environment: Environment, *, width: int = 32, layers: int = 2, heads: int = 2
) -> MetaLearner:
    """A transformer that is trained to name the best arm, after any part of a random history.

        minimised: 1/(H + 1) Σ_{t=0}^H −log p_φ(a* | a_1, r_1, ..., a_t, r_t),  a* = argmax_a p_a
        acting: a_{t+1} ~ p_φ(· | a_1, r_1, ..., a_t, r_t)

    The arms of a training history are drawn with the probabilities (1 − w) q + w e, where q is a
    sample of Dirichlet(1, ..., 1), e one of the arms, and w one of 0, 0.1, ..., 1, as in the
    published code. Sampling from the predicted distribution of the best arm is Thompson sampling,
    as far as the prediction is the posterior.

    Args:
      environment: bandits; a task holds the probability of each arm.
      width, layers, heads: sizes of the transformer; the width must be a multiple of the heads.

    `adapt` acts for one episode; `predict` gives the logits of the best arm after it.

    Raises:
      ValueError: the actions are not choices; a size below 1, or a width that is not a multiple of
        the heads.

    Source: Lee, Xie, Pacchiano, Chandak, Finn, Nachum, Brunskill 2023, "Supervised pretraining can
    learn in-context reinforcement learning", Algorithm 1 and section 4.

    >>> from jaxmeta.data.control import bandits
    >>> learner = decision_pretrained(bandits(5, horizon=10), width=8, layers=1)
    """
    arms, horizon = environment.actions.choices, environment.horizon
    if not arms:
        raise ValueError("decision_pretrained: real actions; give an environment of choices.")
    if min(width, layers, heads) < 1 or width % heads:
        raise ValueError(
            f"decision_pretrained: width {width}, {layers} layers, {heads} heads; give at least 1 "
            "each, and a width that is a multiple of the heads."
        )
    network = Transformer(arms, width, layers, heads)
    earlier = jnp.tril(jnp.ones((horizon + 1, horizon + 1), bool))

    def token(arm: Array, reward: Array, number: Array | int) -> Array:
        """`[arm one-hot, reward, time, 0]` of the pull of this number, from 1."""
        time = jnp.asarray(number / horizon, reward.dtype)
        rest = jnp.stack([reward, time, jnp.zeros_like(reward)])
        return jnp.concatenate([jax.nn.one_hot(arm, arms, dtype=reward.dtype), rest])

    def tokens_of(pulls: Array, rewards: Array) -> Array:
        """The tokens of all pulls, behind a token of the beginning."""
        rows = jax.vmap(token)(pulls, rewards, jnp.arange(1, len(pulls) + 1))
        return jnp.concatenate([jnp.zeros_like(rows[:1]).at[0, -1].set(1), rows])

    def logits_of(params: PyTree, tokens: Array) -> Array:
        return network.apply({"params": params}, tokens, earlier)  # pyright: ignore

    def empty() -> History:
        tokens = tokens_of(jnp.zeros((horizon,), jnp.int32), jnp.zeros((horizon,)))
        return History(tokens, jnp.zeros((), jnp.int32))

    def act_with(params: PyTree) -> Any:
        def act(key: Key, memory: History, seen: Seen) -> tuple[History, Array, Array]:
            row = token(seen.action, seen.reward, memory.pulls)
            tokens = jnp.where(seen.first, memory.tokens, memory.tokens.at[memory.pulls].set(row))
            logits = logits_of(params, tokens)[memory.pulls]
            action = categorical.sample(key, logits)
            log_probability = categorical.log_probability(logits, action)
            return History(tokens, memory.pulls + 1), action, log_probability

        return act

    def live(key: Key, params: PyTree, task: PyTree) -> tuple[History, Seen, Episodes]:
        return episode(environment, act_with(params), key, task, empty(), begin(environment))

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        shares_key, arm_key, weight_key, pulls_key, rewards_key = jax.random.split(key, 5)
        shares = jax.random.dirichlet(shares_key, jnp.ones((arms,)))
        one = jax.nn.one_hot(jax.random.randint(arm_key, (), 0, arms), arms, dtype=shares.dtype)
        weight = jax.random.randint(weight_key, (), 0, 11) / 10
        mixed = (1 - weight) * shares + weight * one
        pulls = jax.random.categorical(pulls_key, jnp.log(mixed), shape=(horizon,))
        observed = jax.vmap(lambda key, arm: environment.step(key, (), arm, task.query).reward)(
            jax.random.split(rewards_key, horizon), pulls
        )
        log_probabilities = jax.nn.log_softmax(logits_of(meta_params, tokens_of(pulls, observed)))
        best = task.query.argmax()
        right = log_probabilities.argmax(axis=1) == best
        value = -log_probabilities[:, best].mean()
        return value, Info(value, {"best_arm": right.mean(dtype=value.dtype)})

    def init(key: Key, task: Task) -> PyTree:
        return network.init(key, empty().tokens, earlier)["params"]

    def adapt(key: Key, meta_params: PyTree, support: PyTree) -> Remembering:
        history, last, _ = live(key, meta_params, support)
        row = token(last.action, last.reward, horizon)
        return Remembering(meta_params, History(history.tokens.at[horizon].set(row), history.pulls))

    def predict(adapted: Remembering, inputs: PyTree, *, key: Key | None = None) -> Array:
        logits = logits_of(adapted.meta_params, adapted.history.tokens)[-1]
        return jnp.broadcast_to(logits, (len(inputs), arms))

    def rollout(key: Key, meta_params: PyTree, task: Task) -> Episodes:
        lived = live(key, meta_params, task.query)[2]
        return jax.tree.map(lambda leaf: leaf[None, None], lived)

    learner = meta_learner(init, adapt, predict, no_objective, loss=loss)
    return learner._replace(rollout=rollout)
