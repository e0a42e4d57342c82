"""Robots of brax, with goals and faults as the task."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.data.control.dynamics import Scales
from jaxmeta.environment import Environment, SampleTask, Space, Transition, check_horizon
from jaxmeta.extras import extra

Backend = Literal["spring", "positional", "generalized"]


def from_brax(
    name: str,
    sample_task: SampleTask,
    reward: Callable[[Any, Array, PyTree], Array],
    *,
    observe: Callable[[Any, PyTree], Array] | None = None,
    act: Callable[[Array, PyTree], Array] | None = None,
    backend: Backend = "spring",
    horizon: int = 100,
) -> Environment:
    """A robot of brax, whose reward, and optionally actions and observations, depend on the task.

        action' = act(clip(action, ±1), task),  state' = step(state, action')
        observation = observe(state', task),  reward(state', action', task)

    Args:
      name: the name in brax, such as `halfcheetah`, `ant` or `reacher`.
      sample_task: draws the task.
      reward: of the state after a step, brax' `State` with its `metrics`.
      observe: Defaults to brax' own observation.
      act: Defaults to the action itself.
      backend: brax' physics; `spring` is the fastest.
      horizon: steps of an episode.

    Raises:
      ValueError: an unknown robot or backend; a horizon below 1.
      ModuleNotFoundError: brax is not installed.

    Source: Freeman, Frey, Raichuk, Girgin, Mordatch, Bachem 2021, "Brax: a differentiable physics
    engine for large scale rigid body simulation".

        hopper = from_brax("hopper", sample_task, lambda state, action, task: ...)
    """
    check_horizon("from_brax", horizon)
    made = _robot(name, backend)

    def start(key: Key) -> Any:
        with _quiet():
            return made.reset(key)

    blank = jax.eval_shape(start, jax.random.key(0))

    def seen(state: Any, task: PyTree) -> Array:
        return state.obs if observe is None else observe(state, task)

    def reset(key: Key, task: PyTree) -> tuple[PyTree, Array]:
        state = start(key)
        return state.pipeline_state, seen(state, task)

    def step(key: Key, physics: PyTree, action: Array, task: PyTree) -> Transition:
        action = jnp.clip(action, -1, 1)
        action = action if act is None else act(action, task)
        # brax writes into the metrics of the state that it is given, so it gets one of its own.
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
        with _quiet():
            state = made.step(state.replace(pipeline_state=physics), action)
        value = reward(state, action, task)
        return Transition(state.pipeline_state, seen(state, task), value, state.done > 0)

    key = jax.random.key(0)
    _, observation = jax.eval_shape(lambda key: reset(key, sample_task(key)), key)
    return Environment(
        reset,
        step,
        sample_task,
        Space(observation.shape),
        Space((made.action_size,)),
        horizon,
    )


CheetahTask = Literal["direction", "velocity", "joint"]


def half_cheetah(
    task: CheetahTask = "direction",
    *,
    joints: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    backend: Backend = "spring",
    horizon: int = 100,
) -> Environment:
    """The half-cheetah, with an unknown direction or velocity, or one joint without motor torque.

        direction:  reward d·v − 0.05 ‖a‖²,       d = ±1
        velocity:   reward −|v − v*| − 0.05 ‖a‖²,  v* ~ U[0, 2] m/s
        joint:      reward v − 0.05 ‖a‖²,          the action of one of `joints` is 0

    v is the velocity along x in m/s. A joint without motor torque still swings on its spring. The
    task is d, v*, or the mask `[6]` of the actions. Observations are `[17]`: height, pitch and six
    joint angles; then the velocities along x, of height, pitch and joints. Actions are `[6]`,
    clipped to ± 1.

    Args:
      task: what is unknown.
      joints: the joints of which one has no torque, with the task `joint`. 0 to 2 are the thigh,
        shin and foot of the back leg, 3 to 5 those of the front leg.
      backend: brax' physics, see `from_brax`.
      horizon: steps of an episode, of 0.05 s each.

    Raises:
      ValueError: an unknown task or joint; otherwise as `from_brax`.

    Source: Finn, Abbeel, Levine 2017, section 5.3; for the joint, Nagabandi, Clavera, Liu, Fearing,
    Abbeel, Levine, Finn 2019, "Learning to adapt in dynamic, real-world environments through
    meta-reinforcement learning", section 6. Returns differ from those of MuJoCo.

        environment = half_cheetah("velocity")
    """
    samplers: dict[str, SampleTask] = {
        "direction": lambda key: jax.random.rademacher(key, (), float),
        "velocity": lambda key: jax.random.uniform(key, maxval=2.0),
        "joint": lambda key: 1 - jax.nn.one_hot(jax.random.choice(key, jnp.array(joints)), 6),
    }
    gains: dict[str, Callable[[Array, Array], Array]] = {
        "direction": lambda velocity, own: own * velocity,
        "velocity": lambda velocity, own: -jnp.abs(velocity - own),
        "joint": lambda velocity, own: velocity,
    }
    if task not in samplers:
        raise ValueError(f"half_cheetah: task {task!r}; give {', '.join(samplers)}.")
    if not joints or not {*joints} <= {*range(6)}:
        raise ValueError(f"half_cheetah: joints {joints}; give some of 0 to 5.")
    gain = gains[task]

    def reward(state: Any, action: Array, own: Array) -> Array:
        return gain(state.metrics["x_velocity"], own) - 0.05 * jnp.square(action).sum()

    def masked(action: Array, own: Array) -> Array:
        return action * own

    act = masked if task == "joint" else None
    return from_brax(
        "halfcheetah", samplers[task], reward, act=act, backend=backend, horizon=horizon
    )


CHEETAH_SCALES = Scales(
    (1.0, 4.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 10.0, 8.0, 15.0, *6 * (40.0,)),
    6 * (1.0,),
    (0.05, 0.1, *6 * (0.25,), 0.8, 1.0, 2.0, 6.0, 8.0, 8.0, 5.0, 8.0, 14.0),
)
"""Units of height, pitch and joint angles (m, rad), of their velocities after that along x, of the
actions, and of the changes in a step of 0.05 s under random actions."""


def cheetah_reward(observation: Array, action: Array, after: Array) -> Array:
    """The reward of `half_cheetah("joint")` as a function of observations: v − 0.05 ‖a‖².

    v is the velocity after the step. Unlike the environment's reward, it also counts the action of
    the disabled joint.

    Args:
      observation, after: float `[..., 17]`, before and after the step, see `half_cheetah`.
      action: float `[..., 6]`.

    >>> still = jnp.zeros(17)
    >>> round(float(cheetah_reward(still, jnp.ones(6), still.at[8].set(2.0))), 3)
    1.7
    """
    return after[..., 8] - 0.05 * jnp.square(action).sum(axis=-1)


def cheetah_dynamics(backend: Backend = "spring") -> Callable[[Array, Array, Array], Array]:
    """The simulator of the half-cheetah as a function of observations.

        step(mask [6], observation [17], action [6]) -> next observation [17]

    The mask is 0 for a joint without motor torque, 1 for the others; actions are clipped to ± 1. A
    step starts from the positions and velocities in the observation. With `spring`, the state also
    has the stretch of each joint, which is not observed, so the prediction is approximate; with
    `generalized` it is exact.

    Args:
      backend: brax' physics, see `from_brax`.

    Raises:
      ValueError, ModuleNotFoundError: as `from_brax`.

        step = cheetah_dynamics()
    """
    made = _robot("halfcheetah", backend)

    def step(mask: Array, observation: Array, action: Array) -> Array:
        position = jnp.concatenate([jnp.zeros(1), observation[:8]])  # x is not observed
        with _quiet():
            physics = made.pipeline_init(position, observation[8:])
            physics = made.pipeline_step(physics, jnp.clip(action, -1, 1) * mask)
        return jnp.concatenate([physics.q[1:], physics.qd])

    return step


def cheetah_outline() -> Callable[[Array], Array]:
    """The body and the legs of half-cheetahs in the plane, for pictures.

        outline(observations [..., 17]) -> the ends (x, z) of capsules [..., 8, 2, 2]

    in m, x relative to the body's own, which is not observed.

    Raises:
      ModuleNotFoundError: brax is not installed.

        segments = cheetah_outline()(episodes.seen.observation)
    """
    made = _robot("halfcheetah", "spring")
    drawn = made.sys.mj_model
    parts = np.flatnonzero(drawn.geom_bodyid > 0)  # the floor belongs to no body
    links = drawn.geom_bodyid[parts] - 1
    with extra("control"), _quiet():
        from brax import kinematics, math
    centres, turns = (jnp.asarray(own[parts]) for own in (drawn.geom_pos, drawn.geom_quat))
    reach = jnp.zeros((len(parts), 3)).at[:, 2].set(drawn.geom_size[parts, 1])
    rotate = jax.vmap(math.rotate)
    half = rotate(reach, turns)  # a capsule lies along the z-axis of its own frame
    ends = jnp.stack([centres - half, centres + half], axis=1)

    def outline(observation: Array) -> Array:
        position = jnp.concatenate([jnp.zeros(1), observation[:8]])
        with _quiet():
            pose, _ = kinematics.forward(made.sys, position, jnp.zeros(9))
        turned = jax.vmap(rotate, (1, None), 1)(ends, pose.rot[links])
        return (pose.pos[links][:, None] + turned)[..., ::2]

    return jnp.vectorize(outline, signature="(d)->(s,e,x)")


def ant(*, backend: Backend = "spring", horizon: int = 100) -> Environment:
    """The ant, with an unknown direction along x.

        reward d·v + 1 − 0.5 ‖a‖², d = ±1; done if the body is outside 0.2 m to 1 m

    v is the velocity along x in m/s. The task is d. Observations are `[27]`: height, orientation
    and joint angles, then velocities, as in brax. Actions are `[8]`, clipped to ± 1.

    Args:
      backend: brax' physics, see `from_brax`.
      horizon: steps of an episode, of 0.05 s each.

    Raises:
      ValueError: as `from_brax`.

    Source: Finn, Abbeel, Levine 2017, section 5.3, with the other rewards of brax.

        environment = ant()
    """

    def reward(state: Any, action: Array, direction: Array) -> Array:
        forward = state.metrics["reward_forward"]
        return state.reward + (direction - 1) * forward

    return from_brax(
        "ant",
        lambda key: jax.random.rademacher(key, (), float),
        reward,
        backend=backend,
        horizon=horizon,
    )


def reacher(*, backend: Backend = "spring", horizon: int = 50) -> Environment:
    """A two-link arm whose tip moves to an unknown goal.

        reward −‖tip − g‖₂ − ‖a‖²,  g = r (cos φ, sin φ),  r ~ U[0, 0.2] m,  φ ~ U[0, 2π]

    The task is the goal g, `[2]`. Observations are `[8]`: cosines and sines of the angles, the
    velocity of the tip and its position; the goal in brax' own observation is left out. Actions are
    `[2]`, clipped to ± 1.

    Args:
      backend: brax' physics, see `from_brax`.
      horizon: steps of an episode, of 0.02 s each.

    Raises:
      ValueError: as `from_brax`.

    Source: brax' reacher, with its distribution of goals.

        environment = reacher()
    """

    def tip(state: Any) -> Array:
        return state.obs[4:6] + state.obs[8:10]  # brax' target, and the way from it to the tip

    def reward(state: Any, action: Array, goal: Array) -> Array:
        return -jnp.sqrt(jnp.square(tip(state) - goal).sum()) - jnp.square(action).sum()

    def sample_task(key: Key) -> Array:
        radius, angle = jax.random.uniform(key, (2,), maxval=jnp.array([0.2, 2 * jnp.pi]))
        return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def observe(state: Any, goal: Array) -> Array:
        return jnp.concatenate([state.obs[:4], state.obs[6:8], tip(state)])

    return from_brax(
        "reacher", sample_task, reward, observe=observe, backend=backend, horizon=horizon
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of brax and its libraries, and with broadcasting between ranks."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        yield


def _robot(name: str, backend: str) -> Any:
    """The robot; MuJoCo reads it, whose warnings would go to a file in the working folder."""
    if backend not in get_args(Backend):
        raise ValueError(f"from_brax: backend {backend!r}; give {', '.join(get_args(Backend))}.")
    with extra("control"), _quiet():
        from brax import envs
    mujoco: Any = importlib.import_module("mujoco")
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with _quiet():
            return envs.get_environment(name, backend=backend)
    except KeyError as error:
        raise ValueError(f"from_brax: no robot {name!r} in brax.envs.") from error
    finally:
        mujoco.set_mju_user_warning(None)
