"""Tasks of dynamics: windows of an environment's trajectory, as regression of its changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, PyTree, Task
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.environment import Environment

Numbers = tuple[float, ...]


class Scales(NamedTuple):
    """Fixed units of observations, actions and changes, one positive number per component.

    Attributes:
      observation: the largest absolute observation; predictions are clipped to it.
      action: the largest absolute action.
      change: a typical change of the observation in one step.
    """

    observation: Numbers
    action: Numbers
    change: Numbers


def encode_step(scales: Scales, observation: Array, action: Array) -> Array:
    """The inputs of a dynamics model, `[..., O + A]`, from `[..., O]` and `[..., A]`.

        [observation / scale, action / scale]

    >>> encode_step(Scales((2.0,), (4.0,), (1.0,)), jnp.ones(1), jnp.ones(1)).tolist()
    [0.5, 0.25]
    """
    parts = [observation / _like(scales.observation, observation)]
    parts += [action / _like(scales.action, action)]
    return jnp.concatenate(parts, axis=-1)


def encode_change(scales: Scales, observation: Array, after: Array) -> Array:
    """The targets of a dynamics model, `[..., O]`: the change of the observation over its scale.

    >>> encode_change(Scales((2.0,), (4.0,), (0.5,)), jnp.ones(1), jnp.full((1,), 1.5)).tolist()
    [1.0]
    """
    return (after - observation) / _like(scales.change, observation)


def next_observation(scales: Scales, observation: Array, change: Array) -> Array:
    """The next observation, from a predicted target; the inverse of `encode_change`.

        clip(observation + scale · change, ± largest observation)

    >>> scales = Scales((2.0,), (4.0,), (0.5,))
    >>> next_observation(scales, jnp.ones(1), jnp.array([1.0])).tolist()
    [1.5]
    >>> next_observation(scales, jnp.ones(1), jnp.array([9.0])).tolist()
    [2.0]
    """
    largest = _like(scales.observation, observation)
    return jnp.clip(observation + change * _like(scales.change, change), -largest, largest)


def _like(numbers: Numbers, array: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(numbers, array.dtype), array.shape)


def transition_windows(
    environment: Environment,
    scales: Scales,
    *,
    recent: tuple[int, int] = (0, 16),
    queries: int = 16,
    skip: int = 100,
) -> Sampler:
    """A sampler of windows of trajectories: `sample(key) -> Task`, for regression of the dynamics.

        inputs [o_t, a_t] / scales,  targets (o_{t+1} − o_t) / scale
        support: the last steps before a random time, query: the next ones, in order

    Each task is one process of the environment, such as a pendulum of one mass and length. The
    exploring policy draws actions uniformly in ± `scales.action`, and keeps each for a random
    number of steps:

        a_t ~ U[−largest, largest] with probability p, else a_{t−1};  p ~ U[0, 1] per task

    so that some tasks have almost constant actions and some independent ones. The support always
    has the largest number of steps; its mask marks the last n, n uniform in `recent`, so that a
    learner is trained for the beginning of an episode, too.

    Args:
      environment: with real observations `[O]` and actions `[A]`; `done` and the horizon are
        ignored.
      scales: the units, see `Scales`.
      recent: smallest and largest number of support steps.
      queries: number of query steps.
      skip: the window starts after 0 to `skip` steps, uniformly.

    Raises:
      ValueError: `recent` is not 0 ≤ low ≤ high with high ≥ 1; queries below 1, skip below 0; the
        environment has other shapes than the scales.

    >>> from jaxmeta.data.control import navigation
    >>> scales = Scales((2.0, 2.0), (0.1, 0.1), (0.1, 0.1))
    >>> task = transition_windows(navigation(), scales)(jax.random.key(0))
    >>> task.support.inputs.shape, task.query.targets.shape, int(task.support.mask.sum()) <= 16
    ((16, 4), (16, 2), True)
    """
    _check_sizes("transition_windows", recent, queries, skip)
    _check_shapes("transition_windows", environment, scales)
    return sampler(
        _draw_task,
        environment=environment,
        scales=scales,
        recent=recent,
        queries=queries,
        skip=skip,
    )


def process_of(sample: Sampler, key: Key) -> PyTree:
    """The process, such as mass and length, of the task that `sample` draws with this key.

    Args:
      sample: a sampler from `transition_windows`.
      key: the key of the task.

    Raises:
      ValueError: `sample` is not from `transition_windows`.

    >>> from jaxmeta.data.control import navigation
    >>> scales = Scales((2.0, 2.0), (0.1, 0.1), (0.1, 0.1))
    >>> process_of(transition_windows(navigation(), scales), jax.random.key(0)).shape
    (2,)
    """
    bound: Any = getattr(sample, "func", None)
    if getattr(bound, "func", None) is not _draw_task:
        raise ValueError("process_of: `sample` must be from `transition_windows`.")
    return bound.keywords["environment"].sample_task(_keys(_window_keys(key)[0])[0])


class Trajectories(NamedTuple):
    """Trajectories of an exploring policy, each in a process of its own.

    Attributes:
      inputs: `[trajectories, steps, O + A]`, see `encode_step`.
      targets: `[trajectories, steps, O]`, see `encode_change`.
    """

    inputs: Array
    targets: Array


def explored(
    key: Key, environment: Environment, scales: Scales, *, trajectories: int, steps: int = 132
) -> Trajectories:
    """Explores `trajectories` processes for `steps` steps each, as `transition_windows` does.

    For environments that are slow to simulate: draw windows from the result by `pooled_windows`.
    With the default number of steps, 100 + 16 + 16, windows start after 0 to 100 steps, as those of
    `transition_windows` do by default.

    Raises:
      ValueError: fewer than one trajectory or step; otherwise as `transition_windows`.

    >>> from jaxmeta.data.control import navigation
    >>> scales = Scales((2.0, 2.0), (0.1, 0.1), (0.1, 0.1))
    >>> explored(jax.random.key(0), navigation(), scales, trajectories=3, steps=9).inputs.shape
    (3, 9, 4)
    """
    if trajectories < 1 or steps < 1:
        raise ValueError(
            f"explored: {trajectories} trajectories of {steps} steps; give at least 1 of each."
        )
    _check_shapes("explored", environment, scales)

    @jax.jit
    def explore_all(keys: Key) -> Trajectories:
        def explore(key: Key) -> Trajectories:
            return _explore(key, environment, scales, steps)

        return jax.lax.map(explore, keys, batch_size=64)

    return explore_all(jax.random.split(key, trajectories))


def pooled_windows(
    pool: Trajectories, *, recent: tuple[int, int] = (0, 16), queries: int = 16
) -> Sampler:
    """As `transition_windows`, from trajectories that are explored already.

    A task is a window of a random trajectory, which starts at a random step.

    Raises:
      ValueError: `recent` and `queries` as in `transition_windows`; shorter trajectories.

    >>> from jaxmeta.data.control import navigation
    >>> scales = Scales((2.0, 2.0), (0.1, 0.1), (0.1, 0.1))
    >>> pool = explored(jax.random.key(0), navigation(), scales, trajectories=3, steps=40)
    >>> pooled_windows(pool)(jax.random.key(1)).query.inputs.shape
    (16, 4)
    """
    _check_sizes("pooled_windows", recent, queries)
    steps = pool.inputs.shape[1]
    if steps < recent[1] + queries:
        raise ValueError(
            f"pooled_windows: trajectories of {steps} steps; give at least {recent[1] + queries}."
        )
    return sampler(_draw_pooled, pool, recent=recent, queries=queries)


def _check_sizes(name: str, recent: tuple[int, int], queries: int, skip: int = 0) -> None:
    low, high = recent
    if not 0 <= low <= high or high < 1 or queries < 1 or skip < 0:
        raise ValueError(
            f"{name}: recent {recent}, {queries} queries, skip {skip}; give 0 ≤ low ≤ "
            "high and at least 1 step of each kind."
        )


def _check_shapes(name: str, environment: Environment, scales: Scales) -> None:
    shapes = (environment.observations.shape, environment.actions.shape)
    given = ((len(scales.observation),), (len(scales.action),))
    if shapes != given or environment.actions.choices or len(scales.change) != shapes[0][0]:
        raise ValueError(
            f"{name}: the scales are of observations {given[0]} and actions "
            f"{given[1]}, but the environment has {shapes[0]} and {shapes[1]}; give one scale per "
            "component of real observations and actions."
        )


def _keys(key: Key) -> Key:
    return jax.random.split(key, 4)


def _window_keys(key: Key) -> Key:
    return jax.random.split(key)


def _draw_task(
    key: Key,
    *,
    environment: Environment,
    scales: Scales,
    recent: tuple[int, int],
    queries: int,
    skip: int,
) -> Task:
    explore_key, window_key = _window_keys(key)
    steps = skip + recent[1] + queries
    return _window(window_key, _explore(explore_key, environment, scales, steps), recent, queries)


def _draw_pooled(pool: Trajectories, key: Key, *, recent: tuple[int, int], queries: int) -> Task:
    choice_key, window_key = _window_keys(key)
    chosen = jax.random.randint(choice_key, (), 0, len(pool.inputs))
    return _window(window_key, jax.tree.map(lambda leaf: leaf[chosen], pool), recent, queries)


def _explore(key: Key, environment: Environment, scales: Scales, steps: int) -> Trajectories:
    """One trajectory, without an axis of trajectories."""
    process_key, reset_key, switch_key, steps_key = _keys(key)
    process = environment.sample_task(process_key)
    state, observation = environment.reset(reset_key, process)
    switch = jax.random.uniform(switch_key)
    largest = jnp.asarray(scales.action, observation.dtype)

    def step(carry: tuple[PyTree, Array, Array], key: Key) -> tuple[PyTree, Trajectories]:
        state, observation, action = carry
        action_key, change_key, step_key = jax.random.split(key, 3)
        fresh = largest * jax.random.uniform(action_key, action.shape, action.dtype, -1, 1)
        action = jnp.where(jax.random.uniform(change_key) < switch, fresh, action)
        after = environment.step(step_key, state, action, process)
        change = encode_change(scales, observation, after.observation)
        row = Trajectories(encode_step(scales, observation, action), change)
        return (after.state, after.observation, action), row

    first_key, steps_key = jax.random.split(steps_key)
    action = largest * jax.random.uniform(first_key, largest.shape, largest.dtype, -1, 1)
    keys = jax.random.split(steps_key, steps)
    return jax.lax.scan(step, (state, observation, action), keys)[1]


def _window(key: Key, lived: Trajectories, recent: tuple[int, int], queries: int) -> Task:
    """A window of one trajectory."""
    start_key, count_key = jax.random.split(key)
    low, high = recent
    window = high + queries
    start = jax.random.randint(start_key, (), 0, len(lived.inputs) - window + 1)
    inputs, targets = (jax.lax.dynamic_slice_in_dim(leaf, start, window) for leaf in lived)
    valid_S = jnp.arange(high) >= high - jax.random.randint(count_key, (), low, high + 1)
    support = Batch(inputs[:high], targets[:high], valid_S)
    return Task(support, Batch(inputs[high:], targets[high:]))
