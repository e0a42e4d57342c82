"""The pendulum as a function of observations: its true dynamics, its reward, its parameters."""

import jax.numpy as jnp

from jaxmeta.core import Array
from jaxmeta.data.control.dynamics import Scales

GRAVITY, TIME_STEP, LARGEST_SPEED = 10.0, 0.05, 8.0
PENDULUM_SCALES = Scales((1.0, 1.0, LARGEST_SPEED), (2.0,), (0.1, 0.1, 0.5))
"""Units of [cos θ, sin θ, θ̇ in rad/s], of the torque, and of the changes in a step of 0.05 s."""


def pendulum_parameters(mass: Array, length: Array) -> Array:
    """The parameters in which the dynamics are linear, `[2]`: 1 / l and 1 / (m l²).

    >>> pendulum_parameters(jnp.array(2.0), jnp.array(0.5)).tolist()
    [2.0, 2.0]
    """
    return jnp.stack([1 / length, 1 / (mass * length**2)])


def pendulum_features(observation: Array, action: Array) -> Array:
    """The features `[..., 2]` of which the change of speed in a step is a linear function.

        Δθ̇ = [3/2 g sin θ Δt, 3 u Δt] · [1 / l, 1 / (m l²)]

    where the speed stays below its limit of 8 rad/s. g is 10 m/s², Δt is 0.05 s.

    Args:
      observation: float `[..., 3]`, see `PENDULUM_SCALES`.
      action: float `[..., 1]`, the torque, clipped to ± 2.

    >>> upright, torque = jnp.array([1.0, 0.0, 0.0]), jnp.array([2.0])
    >>> pendulum_features(upright, torque).round(3)
    Array([0. , 0.3], dtype=float32)
    """
    torque = jnp.clip(action[..., 0], -2, 2)
    gravity = 1.5 * GRAVITY * TIME_STEP * observation[..., 1]
    return jnp.stack([gravity, 3 * TIME_STEP * torque], axis=-1)


def pendulum_step(parameters: Array, observation: Array, action: Array) -> Array:
    """The true next observation `[..., 3]` of gymnax' `Pendulum-v1`.

        θ̇' = clip(θ̇ + Δθ̇, ± 8),  θ' = θ + θ̇' Δt;  Δθ̇ as in `pendulum_features`

    Args:
      parameters: float `[2]`, see `pendulum_parameters`.
      observation: float `[..., 3]`: cos θ, sin θ, θ̇; rescaled to cos² + sin² = 1.
      action: float `[..., 1]`.

    >>> down = jnp.array([-1.0, 0.0, 0.0])
    >>> pendulum_step(jnp.ones(2), down, jnp.array([2.0])).round(3)
    Array([-1.   , -0.015,  0.3  ], dtype=float32)
    """
    change = pendulum_features(observation, action) @ parameters
    speed = jnp.clip(observation[..., 2] + change, -LARGEST_SPEED, LARGEST_SPEED)
    angle = _angle(observation) + TIME_STEP * speed
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed], axis=-1)


def pendulum_reward(observation: Array, action: Array) -> Array:
    """The reward of a step, `[...]`: −(θ² + 0.1 θ̇² + 0.001 u²), before the step.

    >>> round(float(pendulum_reward(jnp.array([1.0, 0.0, 0.0]), jnp.array([2.0]))), 4)
    -0.004
    """
    torque = jnp.clip(action[..., 0], -2, 2)
    speed = observation[..., 2]
    return -(_angle(observation) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)


def _angle(observation: Array) -> Array:
    return jnp.arctan2(observation[..., 1], observation[..., 0])
