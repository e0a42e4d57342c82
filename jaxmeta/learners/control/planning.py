"""Planning with a model of the dynamics, and control by planning again at every step."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, PyTree
from jaxmeta.learners.control.gathering import Act, Seen
from jaxmeta.ops import varying_with

Dynamics = Callable[[Array, Array], Array]
"""`dynamics(observation, action) -> next observation`, of one step."""
Reward = Callable[[Array, Array, Array], Array]
"""`reward(observation, action, next observation) -> scalar`, of one step."""


class Planner(Protocol):
    """`plan(key, dynamics, reward, observation, before) -> actions`, `[H, A]`.

    The first action is for the current step. `before` `[H, A]` is the plan to start from; a planner
    may ignore it.
    """

    def __call__(
        self, key: Key, dynamics: Dynamics, reward: Reward, observation: Array, before: Array, /
    ) -> Array: ...


def predicted_return(
    dynamics: Dynamics, reward: Reward, observation: Array, actions_HA: Array
) -> Array:
    """The sum of rewards along the predicted trajectory, a scalar.

        Σ_h r(o_h, a_h, o_{h+1}),  o_{h+1} = f(o_h, a_h)

    >>> move = lambda observation, action: observation + action
    >>> height = lambda observation, action, after: after.sum()
    >>> float(predicted_return(move, height, jnp.zeros(1), jnp.ones((3, 1))))
    6.0
    """
    chex.assert_rank(actions_HA, 2)

    def step(observation: Array, action: Array) -> tuple[Array, Array]:
        after = dynamics(observation, action)
        return after, reward(observation, action, after)

    return jax.lax.scan(step, observation, actions_HA)[1].sum()


def random_shooting(candidates: int, largest: tuple[float, ...]) -> Planner:
    """A planner: the best of random sequences of actions.

        a^i_h ~ U[−largest, largest],  plan: the a^i with the largest predicted return

    Args:
      candidates: number of sequences.
      largest: the largest absolute action of each component, `[A]`.

    Raises:
      ValueError: fewer than 1 candidate; an action that is not positive.

    Source: Nagabandi, Clavera, Liu, Fearing, Abbeel, Levine, Finn 2019, "Learning to adapt in
    dynamic, real-world environments through meta-reinforcement learning", section 4.

    >>> move = lambda observation, action: observation + action
    >>> near_one = lambda observation, action, after: -((after - 1) ** 2).sum()
    >>> plan = random_shooting(500, (2.0,))
    >>> actions = plan(jax.random.key(0), move, near_one, jnp.zeros(1), jnp.zeros((1, 1)))
    >>> 0.9 < float(actions[0, 0]) < 1.1
    True
    """
    _check("random_shooting", largest, candidates=candidates)

    def plan(
        key: Key, dynamics: Dynamics, reward: Reward, observation: Array, before: Array
    ) -> Array:
        drawn = jax.random.uniform(key, (candidates, *before.shape), before.dtype, -1, 1)
        drawn_NHA = drawn * _like(largest, drawn)
        values_N = _values(dynamics, reward, observation, drawn_NHA)
        return drawn_NHA[jnp.argmax(values_N)]

    return plan


def cross_entropy_method(
    candidates: int,
    largest: tuple[float, ...],
    *,
    elites: int,
    iterations: int,
    std: float = 0.5,
) -> Planner:
    """A planner: a normal distribution of sequences, fitted repeatedly to its best samples.

        a^i ~ N(μ, σ²), clipped to ± largest;  μ, σ ← mean and std of the `elites` best a^i

    It starts from μ = `before` and σ = `std` · largest; the plan is the last μ.

    Args:
      candidates: number of sequences of an iteration.
      largest: the largest absolute action of each component, `[A]`.
      elites: number of best sequences, at most `candidates`.
      iterations: number of fits.
      std: initial standard deviation, in units of `largest`.

    Raises:
      ValueError: a number below 1 (elites below 2), more elites than candidates; an action or a std
        that is not positive.

    Source: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous
    optimization"; as a planner, Chua, Calandra, McAllister, Levine 2018, "Deep reinforcement
    learning in a handful of trials using probabilistic dynamics models", section 5.

    >>> move = lambda observation, action: observation + action
    >>> near_one = lambda observation, action, after: -((after - 1) ** 2).sum()
    >>> plan = cross_entropy_method(50, (2.0,), elites=5, iterations=10)
    >>> actions = plan(jax.random.key(0), move, near_one, jnp.zeros(1), jnp.zeros((1, 1)))
    >>> abs(float(actions[0, 0]) - 1) < 0.01
    True
    """
    _check("cross_entropy_method", largest, candidates=candidates, iterations=iterations)
    if not 2 <= elites <= candidates or not std > 0:
        raise ValueError(
            f"cross_entropy_method: {elites} elites of {candidates} candidates, std {std}; give at "
            "least 2 elites, at most as many as candidates, and a positive std."
        )

    def plan(
        key: Key, dynamics: Dynamics, reward: Reward, observation: Array, before: Array
    ) -> Array:
        bound = _like(largest, before)

        def fit(fitted: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], None]:
            mean_HA, std_HA = fitted
            noise = jax.random.normal(key, (candidates, *mean_HA.shape), mean_HA.dtype)
            drawn_NHA = jnp.clip(mean_HA[None] + std_HA[None] * noise, -bound[None], bound[None])
            values_N = _values(dynamics, reward, observation, drawn_NHA)
            best_EHA = drawn_NHA[jax.lax.top_k(values_N, elites)[1]]
            return (best_EHA.mean(axis=0), best_EHA.std(axis=0)), None

        start = varying_with((before, std * bound), (observation, before, key))
        return jax.lax.scan(fit, start, jax.random.split(key, iterations))[0][0]

    return plan


def _values(dynamics: Dynamics, reward: Reward, observation: Array, drawn_NHA: Array) -> Array:
    """The predicted returns `[N]`; minus infinity where they are NaN, so that none is chosen."""
    values_N = jax.vmap(lambda own: predicted_return(dynamics, reward, observation, own))(drawn_NHA)
    return jnp.where(jnp.isnan(values_N), -jnp.inf, values_N)


def _like(largest: tuple[float, ...], actions: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(largest, actions.dtype), actions.shape)


def _check(name: str, largest: tuple[float, ...], **counts: int) -> None:
    if min(counts.values()) < 1 or not largest or not min(largest) > 0:
        shown = ", ".join(f"{value} {of}" for of, value in counts.items())
        raise ValueError(
            f"{name}: {shown}, largest action {largest}; give at least 1 of each, and positive "
            "actions."
        )


class Recent(NamedTuple):
    """The memory of `adaptive_control`.

    Attributes:
      steps: the last steps as a support set, the newest last; its mask marks those of the episode.
      observation: `[O]`, the observation before the last action.
      plan: `[H, A]`, the plan for the current step and the next ones.
    """

    steps: Batch
    observation: Array
    plan: Array


def nothing_recent(example: Batch, observation: Array, plan: Array) -> Recent:
    """The memory before an episode: no steps, and zeros in the shapes of the arguments.

    `example` is a support set of as many steps as the model adapts from.

    >>> batch = Batch(jnp.ones((16, 4)), jnp.ones((16, 3)))
    >>> int(nothing_recent(batch, jnp.ones(3), jnp.ones((10, 1))).steps.mask.sum())
    0
    """
    inputs, targets, observation, plan = jax.tree.map(
        jnp.zeros_like, (*example[:2], observation, plan)
    )
    return Recent(Batch(inputs, targets, jnp.zeros(len(inputs), bool)), observation, plan)


def adaptive_control(
    encode: Callable[[Array, Array, Array], tuple[Array, Array]],
    adapt: Callable[[Key, Batch], PyTree],
    dynamics: Callable[[PyTree, Array, Array], Array],
    reward: Reward,
    plan: Planner,
) -> Act:
    """A policy that adapts its model to the last steps and plans again, at every step.

        θ = adapt(the last S steps),  a_{t:t+H} = plan(f_θ, r, o_t),  act: a_t

    It is an `Act` for `episode`, which is one compiled scan; its memory starts as `nothing_recent`.
    Planning starts from the last plan, shifted by one step, with 0 as the new last action.

    Args:
      encode: `encode(observation, action, next observation) -> (inputs, targets)`, one step as an
        example of the support.
      adapt: `adapt(key, support) -> adapted`, as a learner's; the mask may be all False.
      dynamics: `dynamics(adapted, observation, action) -> next observation`.
      reward: `reward(observation, action, next observation) -> scalar`.
      plan: see `random_shooting` and `cross_entropy_method`.

    Source: Nagabandi et al. 2019, algorithm 2: the last 16 steps, model predictive control.

    In navigation the model is known, so there is nothing to adapt; with a learner, `adapt` and
    `dynamics` call its `adapt` and `predict`.

    >>> from jaxmeta.data.control import navigation
    >>> from jaxmeta.learners.control import begin, episode
    >>> environment, goal = navigation(horizon=10), jnp.array([0.3, -0.2])
    >>> act = adaptive_control(
    ...     encode=lambda seen, action, after: (jnp.concatenate([seen, action]), after - seen),
    ...     adapt=lambda key, support: (),
    ...     dynamics=lambda adapted, observation, action: observation + action,
    ...     reward=lambda observation, action, after: -jnp.linalg.norm(after - goal),
    ...     plan=random_shooting(100, (0.1, 0.1)),
    ... )
    >>> example, start = Batch(jnp.zeros((5, 4)), jnp.zeros((5, 2))), begin(environment)
    >>> memory = nothing_recent(example, start.observation, jnp.zeros((4, 2)))
    >>> lived = episode(environment, act, jax.random.key(0), goal, memory, start)[2]
    >>> bool(lived.rewards[5] > -0.1)
    True
    """

    def act(key: Key, memory: Recent, seen: Seen) -> tuple[Recent, Array, Array]:
        adapt_key, plan_key = jax.random.split(key)
        steps, before = memory.steps, memory.plan
        row = encode(memory.observation, seen.action, seen.observation)
        newest = Batch(*row, ~seen.first)
        shifted = jax.tree.map(lambda old, new: jnp.roll(old, -1, 0).at[-1].set(new), steps, newest)
        # Before the first action of an episode there is no step, and no step of the last episode.
        nothing = steps._replace(mask=jnp.zeros(len(steps.inputs), bool))
        steps = jax.tree.map(lambda a, b: jnp.where(seen.first, a, b), nothing, shifted)
        adapted = adapt(adapt_key, steps)
        actions = plan(
            plan_key,
            lambda observation, action: dynamics(adapted, observation, action),
            reward,
            seen.observation,
            before,
        )
        later = jnp.roll(actions, -1, 0).at[-1].set(0)
        after = Recent(steps, seen.observation, later)
        return after, actions[0], jnp.zeros((), actions.dtype)

    return act
