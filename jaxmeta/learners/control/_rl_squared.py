"""RL²: a recurrent policy that learns a process within its memory."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import Array, Info, Key, MetaLearner, PyTree, Task, meta_learner
from jaxmeta.environment import Environment
from jaxmeta.learners.control.advantages import generalized_advantages
from jaxmeta.learners.control.gathering import (
    Episodes,
    Seen,
    begin,
    episode,
    mean_of_steps,
    over_steps,
    returns,
)
from jaxmeta.learners.control.policies import distribution_of, outputs_of, scaled_normal
from jaxmeta.learners.control.policy_gradient import PolicyGradient, no_objective
from jaxmeta.learners.control.surrogates import clipped, mean_surrogate
from jaxmeta.ops import varying_with


class Recalled(NamedTuple):
    """The adapted state of `rl_squared`.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      memory: the memory after the episodes.
      last: the last action and reward.
    """

    meta_params: PyTree
    memory: "Memory"
    last: Seen


class Memory(NamedTuple):
    """The memory of a recurrent policy.

    Attributes:
      hidden: the state of the recurrent network, `[width]`.
      observation: the last observation, flat; empty if it is not an input.
    """

    hidden: Array
    observation: Array


class Trial(NamedTuple):
    """The episodes of one task, with the outputs of the policy that acted; constants.

    Attributes:
      episodes: `[N, H]`.
      outputs: `[N, H, ...]`.
      advantages, targets: `[N, H]`, and the returns that values are fitted to.
    """

    episodes: Episodes
    outputs: PyTree
    advantages: Array
    targets: Array


class _Recurrent(nn.Module):
    """One step: the next hidden state, the policy's outputs, and the value."""

    width: int
    outputs: int
    largest: float | None  # of real actions

    @nn.compact
    def __call__(self, hidden: Array, features: Array) -> tuple[Array, PyTree, Array]:
        hidden, _ = nn.GRUCell(self.width, name="cell")(hidden, features)
        # The memory is read beside what the policy sees now, which its slow units hardly show.
        seen = jnp.concatenate([hidden, features])
        seen = nn.relu(nn.Dense(self.width, name="read")(seen))
        small = nn.initializers.variance_scaling(1e-2, "fan_in", "normal")
        outputs: Any = nn.Dense(self.outputs, kernel_init=small, name="policy")(seen)
        if self.largest is not None:
            log_std = self.param("log_std", nn.initializers.zeros_init(), (self.outputs,))
            outputs = scaled_normal(self.largest, outputs, log_std)
        # Advantages must not depend on random values before any are learned.
        value = nn.Dense(1, kernel_init=nn.initializers.zeros_init(), name="value")(seen)[0]
        return hidden, outputs, value


def rl_squared(
    environment: Environment,
    *,
    episodes: int,
    width: int = 64,
    transitions: bool = False,
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.9,
    value_weight: float = 0.5,
    entropy_weight: float = 0.05,
) -> MetaLearner:
    """RL²: a recurrent policy that is trained for the return of several episodes of one process.

        x_t = [s_t, a_{t−1}, r_{t−1}, first_t],  h_t = GRU(h_{t−1}, x_t)
        outputs_t, v_t = linear(relu(linear([h_t, x_t])))
        minimised: −clipped(ε) + c_v (V_t − V̂_t)² / Z − c_e entropy,  means over N episodes
        V_t = Z v_t,  Z = Σ_{k < NH} γᵏ, the discounted length of a trial of N episodes of H steps

    The state h is kept from one episode to the next, so that the policy learns the process by what
    it remembers. Adaptation is reading; no parameter changes.

    The network predicts values in units of Z. Before training, the kernel of the value is 0, and
    the biases of the GRU's update gates are drawn so that its units remember for 1 to NH − 1 steps,
    uniformly on a logarithmic scale (after the chrono initialisation of Tallec & Ollivier 2018,
    "Can recurrent neural networks warp time?").

    Args:
      environment: the processes; a bandit is one episode of its pulls.
      episodes: N, of a trial.
      width: width of the GRU.
      transitions: also give it s_{t−1}, so that the input holds a whole transition; otherwise it
        has to remember the observation that it acted on.
      clip: ε of the clipped ratio.
      discount, trace: γ and λ of the advantages, over the whole trial.
      value_weight: c_v.
      entropy_weight: c_e, in units of reward per nat, since the advantages are not normalised.

    `adapt` lives through N − 1 episodes; `predict` gives the outputs for first observations
    `[N, ...]` of the next episode. Train it with `jaxmeta.training.proximal_update`.

    Raises:
      ValueError: fewer than 1 episode or unit; a discount or trace that is not between 0 and 1;
        `clip` is not positive.

    Source: Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel 2016, "RL²: fast reinforcement
    learning via slow reinforcement learning", section 2; with PPO instead of TRPO.

    >>> from jaxmeta.data.control import bandits
    >>> learner = rl_squared(bandits(5, horizon=10), episodes=1, width=8)
    """
    if episodes < 1 or width < 1 or not (0 <= discount <= 1 and 0 <= trace <= 1):
        raise ValueError(
            f"rl_squared: {episodes} episodes, width {width}, discount {discount}, trace {trace}; "
            "give at least 1 episode and unit, and numbers from 0 to 1."
        )
    space, distribution = environment.actions, distribution_of(environment.actions)
    largest = None if space.choices else space.largest
    kept = math.prod(environment.observations.shape) if transitions else 0
    network = _Recurrent(width, outputs_of(space), largest)
    surrogate_of = clipped(clip)
    # Values are as large as a trial is long. The network predicts them in units of the discounted
    # length: otherwise their errors saturate its memory long before the policy learns.
    trial_steps = episodes * environment.horizon
    longest = sum(discount**t for t in range(trial_steps))

    def features(seen: Seen, before: Array) -> Array:
        if largest is None:
            action = jax.nn.one_hot(seen.action, space.choices)
        else:
            action = seen.action / largest
        rest = jnp.stack([seen.reward, seen.first.astype(seen.reward.dtype)])
        return jnp.concatenate([seen.observation.ravel(), action.ravel(), rest, before])

    def nothing() -> Memory:
        return Memory(jnp.zeros((width,)), jnp.zeros((kept,)))

    def step(params: PyTree, memory: Memory, seen: Seen) -> tuple[Memory, PyTree, Array]:
        given = (memory.hidden, features(seen, memory.observation))
        hidden, outputs, value = network.apply({"params": params}, *given)  # pyright: ignore
        return Memory(hidden, seen.observation.ravel()[:kept]), outputs, longest * value

    def act_with(params: PyTree) -> Any:
        def act(key: Key, memory: Memory, seen: Seen) -> tuple[Memory, Array, Array]:
            memory, outputs, _ = step(params, memory, seen)
            action = distribution.sample(key, outputs)
            return memory, action, distribution.log_probability(outputs, action)

        return act

    def live(key: Key, params: PyTree, task: PyTree, count: int) -> tuple[Recalled, Episodes]:
        """So many episodes, one after the other, `[count, H]`."""

        def one(carry: tuple[Memory, Seen], key: Key) -> tuple[tuple[Memory, Seen], Episodes]:
            memory, last, lived = episode(environment, act_with(params), key, task, *carry)
            return (memory, last), lived

        start = varying_with((nothing(), begin(environment)), (task, key))
        keys = jax.random.split(key, episodes)[:count]
        (memory, last), lived = jax.lax.scan(one, start, keys)
        return Recalled(params, memory, last), lived

    def read(params: PyTree, lived: Episodes) -> tuple[PyTree, Array]:
        """The outputs `[N, H, ...]` and values `[N, H]` along a trial."""
        lead = lived.rewards.shape
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), lived)

        def forward(memory: Memory, row: tuple[Seen, Array]) -> tuple[Memory, tuple[PyTree, Array]]:
            seen, valid = row
            after, outputs, value = step(params, memory, seen)
            after = jax.tree.map(lambda new, old: jnp.where(valid > 0, new, old), after, memory)
            return after, (outputs, value)

        start = varying_with(nothing(), flat.rewards)
        found = jax.lax.scan(forward, start, (flat.seen, flat.mask))[1]
        return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), found)

    def gather(key: Key, meta_params: PyTree, task: Task) -> Trial:
        _, lived = live(key, meta_params, task.query, episodes)
        outputs, values = read(meta_params, lived)
        values = values * lived.mask
        flat = generalized_advantages(
            lived.rewards.ravel(), values.ravel(), discount, trace, mask_H=lived.mask.ravel()
        )
        advantages = flat.reshape(values.shape)
        targets = advantages + values
        # Not normalised: the mean of a single trial depends on its actions, so that subtracting it
        # would take away the credit for finding out early what the process is.
        trial = Trial(lived, outputs, advantages, targets)
        return jax.lax.stop_gradient(trial)

    def surrogate(meta_params: PyTree, trial: Trial) -> Array:
        lived, mask = trial.episodes, trial.episodes.mask
        outputs, values = read(meta_params, lived)
        ratios = over_steps(distribution.log_probability)(outputs, lived.actions)
        ratios = ratios - lived.log_probabilities
        gain = mean_surrogate(surrogate_of, ratios, trial.advantages, mask)
        errors = mean_of_steps(jnp.square(values - trial.targets) / longest, mask)
        entropy = mean_of_steps(over_steps(distribution.entropy)(outputs), mask)
        return value_weight * errors - gain - entropy_weight * entropy

    def divergence(meta_params: PyTree, trial: Trial) -> Array:
        outputs, _ = read(meta_params, trial.episodes)
        divergences = over_steps(distribution.divergence)(trial.outputs, outputs)
        return mean_of_steps(divergences, trial.episodes.mask)

    def info(trial: Trial) -> Info:
        of_episodes = returns(trial.episodes)
        metrics = {"return": of_episodes[-1], "return_before": of_episodes[0]}
        return Info(-of_episodes.mean(), metrics)

    def init(key: Key, task: Task) -> PyTree:
        network_key, gate_key = jax.random.split(key)
        seen = begin(environment)
        memory = nothing()
        params = network.init(network_key, memory.hidden, features(seen, memory.observation))
        params = params["params"]
        # Units remember for 1 to so many steps at first, evenly on a logarithmic scale; with biases
        # of 0, the memory and its gradient fade within a few steps (Tallec & Ollivier 2018).
        most = math.log(max(2, trial_steps - 1))
        gate = {**params["cell"]["iz"], "bias": jax.random.uniform(gate_key, (width,), maxval=most)}
        return {**params, "cell": {**params["cell"], "iz": gate}}

    def adapt(key: Key, meta_params: PyTree, support: PyTree) -> Recalled:
        return live(key, meta_params, support, episodes - 1)[0]

    def predict(adapted: Recalled, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        def of_observation(observation: Array) -> PyTree:
            seen = adapted.last._replace(observation=observation, first=jnp.ones((), bool))
            return step(adapted.meta_params, adapted.memory, seen)[1]

        return jax.vmap(of_observation)(inputs)

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        found = info(gather(key, meta_params, task))
        return found.loss, found

    def rollout(key: Key, meta_params: PyTree, task: Task) -> Episodes:
        _, lived = live(key, meta_params, task.query, episodes)
        return jax.tree.map(lambda leaf: leaf[:, None], lived)

    learner = meta_learner(init, adapt, predict, no_objective, loss=loss)
    grad = PolicyGradient(gather, surrogate, divergence, info, fits_values=True)
    return learner._replace(grad=grad, rollout=rollout)
