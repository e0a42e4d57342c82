"""Models of a dynamics on the tasks of a run: the learner's, least squares, and the true one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree
from jaxmeta.data.control import Scales, encode_change, encode_step, next_observation
from jaxmeta.environment import Environment
from jaxmeta.learners.control import (
    Planner,
    Reward,
    adaptive_control,
    begin,
    episode,
    nothing_recent,
    returns,
)
from jaxmeta.learners.process import LastLayer, last_layer_posterior
from jaxmeta.learners.process.gaussian import mean_of
from jaxmeta.training.state import Trained, shared_of


class DynamicsModel(NamedTuple):
    """A model of the dynamics of one process.

    Attributes:
      adapt: `adapt(key, support) -> adapted`, from the last steps; the mask may be all False.
      dynamics: `dynamics(adapted, observation, action) -> next observation`.
    """

    adapt: Callable[[Key, Batch], PyTree]
    dynamics: Callable[[PyTree, Array, Array], Array]


ModelOf = Callable[[Trained, PyTree], DynamicsModel]
"""`model(trained, process) -> DynamicsModel`; only the true model looks at the process."""


def learned_model(
    learner: MetaLearner, trained: Trained, scales: Scales, *, adapts: bool
) -> DynamicsModel:
    """The model of a learner; without `adapts` it never sees a step, and keeps its prior."""

    def adapt(key: Key, support: Batch) -> PyTree:
        assert support.mask is not None, "windows have a mask"
        seen = support if adapts else support._replace(mask=jnp.zeros_like(support.mask))
        return learner.adapt(key, trained.meta_params, seen, **shared_of(learner, trained))

    def dynamics(adapted: PyTree, observation: Array, action: Array) -> Array:
        inputs = encode_step(scales, observation, action)
        change = mean_of(learner.predict(adapted, inputs[None]))[0]
        return next_observation(scales, observation, change)

    return DynamicsModel(adapt, dynamics)


def linear_features(inputs: Array) -> Array:
    """A constant and the inputs, `[..., 1 + X]`.

    >>> linear_features(jnp.array([2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    return jnp.concatenate([jnp.ones_like(inputs[..., :1]), inputs], axis=-1)


def quadratic_features(inputs: Array) -> Array:
    """A constant, the inputs, and their products, `[..., 1 + X + X (X + 1) / 2]`.

    >>> quadratic_features(jnp.array([2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]
    """
    one, other = np.triu_indices(inputs.shape[-1])
    products = inputs[..., one] * inputs[..., other]
    return jnp.concatenate([linear_features(inputs), products], axis=-1)


def least_squares(
    features_SD: Array, targets_SY: Array, mask: Array | None, ridge: float | Array, start_DY: Array
) -> Array:
    """Linear regression `[D, Y]`, with a penalty on the distance from `start_DY`.

        argmin_W Σ_s ‖y_s − Wᵀ φ_s‖² + ridge ‖W − W_0‖²

    >>> targets = jnp.full((2, 1), 3.0)
    >>> least_squares(jnp.ones((2, 1)), targets, None, 1.0, jnp.zeros((1, 1))).round(3)
    Array([[2.]], dtype=float32)
    """
    penalty = ridge * jnp.eye(features_SD.shape[-1], dtype=features_SD.dtype)
    belief = LastLayer(start_DY, penalty)
    return last_layer_posterior(belief, features_SD, targets_SY, mask).mean_DY


def regression_model(
    features: Callable[[Array], Array], ridge: float | Array, scales: Scales
) -> DynamicsModel:
    """Least squares on features of the inputs; without any step, nothing changes."""

    def adapt(key: Key, support: Batch) -> Array:
        features_SD = features(support.inputs)
        start = jnp.zeros((features_SD.shape[-1], support.targets.shape[-1]))
        return least_squares(features_SD, support.targets, support.mask, ridge, start)

    def dynamics(weights_DY: Array, observation: Array, action: Array) -> Array:
        row = features(encode_step(scales, observation, action))
        return next_observation(scales, observation, row @ weights_DY)

    return DynamicsModel(adapt, dynamics)


def decode(scales: Scales, batch: Batch) -> tuple[Array, Array, Array]:
    """Observations, actions and next observations `[S, ...]` of a set of steps."""
    size = len(scales.observation)
    units = jnp.asarray((*scales.observation, *scales.action), batch.inputs.dtype)
    values = batch.inputs * units[None]
    observation, action = values[:, :size], values[:, size:]
    change = batch.targets * jnp.asarray(scales.change, values.dtype)[None]
    return observation, action, observation + change  # the truth, which is not clipped


def open_loop_errors(
    model: DynamicsModel, adapted: PyTree, query: Batch, scales: Scales, steps: int
) -> Array:
    """The errors of predictions 1, 2, ... steps ahead, `[steps]`, in units of `observation`.

        ô_{k+1} = f(ô_k, a_k), ô_0 = o_0;  error_k = root mean square of (ô_k − o_k) / scale

    The query is a trajectory: its steps are in order.
    """
    observations, actions, after = decode(scales, query)

    def step(predicted: Array, action: Array) -> tuple[Array, Array]:
        predicted = model.dynamics(adapted, predicted, action)
        return predicted, predicted

    _, found = jax.lax.scan(step, observations[0], actions[:steps])
    units = jnp.asarray(scales.observation, found.dtype)
    return jnp.sqrt(jnp.square((found - after[:steps]) / units[None]).mean(axis=-1))


def episode_return(
    environment: Environment,
    model: DynamicsModel,
    key: Key,
    process: PyTree,
    *,
    reward: Reward,
    plan: Planner,
    scales: Scales,
    recent: int,
    horizon: int,
) -> Array:
    """The return of an episode of model predictive control, which adapts at every step."""

    def encode(observation: Array, action: Array, after: Array) -> tuple[Array, Array]:
        changes = encode_change(scales, observation, after)
        return encode_step(scales, observation, action), changes

    act = adaptive_control(encode, model.adapt, model.dynamics, reward, plan)
    start = begin(environment)
    actions = jnp.zeros((horizon, *start.action.shape))
    row = jnp.zeros((recent, start.observation.size + start.action.size))
    example = Batch(row, jnp.zeros((recent, start.observation.size)))
    memory = nothing_recent(example, start.observation, actions)
    lived = episode(environment, act, key, process, memory, start)[2]
    return returns(lived)
