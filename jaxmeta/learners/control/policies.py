"""Policies: networks whose outputs are the parameters of a distribution over actions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.environment import Space


class Distribution(NamedTuple):
    """A distribution over actions, given the outputs of a policy for one observation.

    Attributes:
      sample: `sample(key, outputs) -> action`.
      log_probability: `log_probability(outputs, action) -> scalar`; a density for real actions.
      divergence: `divergence(old, new) -> scalar`, KL(old ‖ new) in nats.
      entropy: `entropy(outputs) -> scalar`, in nats.
    """

    sample: Callable[[Key, PyTree], Array]
    log_probability: Callable[[PyTree, Array], Array]
    divergence: Callable[[PyTree, PyTree], Array]
    entropy: Callable[[PyTree], Array]


class Normal(NamedTuple):
    """The outputs of a policy of real actions.

    Attributes:
      mean: `[..., A]`.
      log_std: `[..., A]`.
    """

    mean: Array
    log_std: Array


def _log_density(outputs: Normal, action: Array) -> Array:
    chex.assert_equal_shape([outputs.mean, action])
    z = (action - outputs.mean) * jnp.exp(-outputs.log_std)
    return -(jnp.square(z) / 2 + outputs.log_std + math.log(2 * math.pi) / 2).sum()


def _normal_divergence(old: Normal, new: Normal) -> Array:
    ratio = jnp.exp(2 * (old.log_std - new.log_std))
    squares = jnp.square((old.mean - new.mean) * jnp.exp(-new.log_std))
    return (new.log_std - old.log_std + (ratio + squares - 1) / 2).sum()


normal: Distribution = Distribution(
    sample=lambda key, outputs: (
        outputs.mean
        + jnp.exp(outputs.log_std) * jax.random.normal(key, outputs.mean.shape, outputs.mean.dtype)
    ),
    log_probability=_log_density,
    divergence=_normal_divergence,
    entropy=lambda outputs: (outputs.log_std + math.log(2 * math.pi * math.e) / 2).sum(),
)
"""Independent normal distributions, with outputs `Normal`."""


def _categorical_divergence(old: Array, new: Array) -> Array:
    log_old, log_new = jax.nn.log_softmax(old), jax.nn.log_softmax(new)
    return (jnp.exp(log_old) * (log_old - log_new)).sum()


def _categorical_entropy(logits: Array) -> Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probabilities) * log_probabilities).sum()


categorical: Distribution = Distribution(
    sample=lambda key, logits: jax.random.categorical(key, logits).astype(jnp.int32),
    log_probability=lambda logits, action: jax.nn.log_softmax(logits)[action],
    divergence=_categorical_divergence,
    entropy=_categorical_entropy,
)
"""A choice, with logits `[choices]` as outputs."""


def distribution_of(actions: Space) -> Distribution:
    """The distribution for a space of actions: `categorical` for choices, otherwise `normal`.

    >>> distribution_of(Space((), 3)) is categorical
    True
    """
    return categorical if actions.choices else normal


def outputs_of(actions: Space) -> int:
    """The size of the network's output: logits of the choices, or means of real actions.

    >>> outputs_of(Space((2,))), outputs_of(Space((), 5))
    (2, 5)
    """
    return actions.choices or math.prod(actions.shape)


def scaled_normal(largest: float, mean: Array, log_std: Array) -> Normal:
    """A normal distribution whose mean and standard deviation are in units of `largest`.

    Normal(largest · mean, log largest + log σ)
    """
    return Normal(largest * mean, math.log(largest) + jnp.broadcast_to(log_std, mean.shape))


def with_log_std(
    network: Model, *, largest: float = 1.0, initial: float = 0.0, least: float = -10.0
) -> Model:
    """A policy of real actions: a network of the means, and a learned standard deviation.

        outputs = Normal(largest · network(observation), log largest + max(log σ, least))

    log σ is a parameter of each action.

    Args:
      network: the network of the means, `[N, ...]` to `[N, A]`, in units of `largest`.
      largest: the largest action of the environment; the standard deviation before training is
        `largest · exp(initial)`.
      initial: log σ before training, in nats.
      least: a lower bound of log σ, in nats.

    Raises:
      ValueError: `largest` is not positive.

    Source: Schulman, Levine, Moritz, Jordan, Abbeel 2015, "Trust region policy optimization",
    appendix D.

    >>> from jaxmeta.models import mlp
    >>> policy = with_log_std(mlp((8,), 2))
    >>> params = policy.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> policy.apply(params, jnp.ones((4, 3))).log_std.shape
    (4, 2)
    """
    if not largest > 0:
        raise ValueError(f"with_log_std: largest action {largest}; give a positive number.")

    def init(key: Key, inputs: PyTree) -> dict[str, Any]:
        params = network.init(key, inputs)
        mean = jax.eval_shape(network.apply, params, inputs)
        return {"network": params, "log_std": jnp.full(mean.shape[1:], initial, mean.dtype)}

    def apply(
        params: PyTree, inputs: PyTree, *, reference: PyTree = None, key: Key | None = None
    ) -> Normal:
        mean = network.apply(params["network"], inputs, reference=reference, key=key)
        log_std = jnp.maximum(params["log_std"], least)
        return scaled_normal(largest, mean, log_std[None])

    return Model(init, apply)


def policy_model(network: Model, actions: Space) -> Model:
    """A policy from a network with `outputs_of(actions)` outputs.

    For choices it is the network itself: `[N, ...]` to logits `[N, choices]`. For real actions the
    network gives means, and the policy maps `[N, ...]` to `Normal` with `[N, A]`; see
    `with_log_std`.

    >>> from jaxmeta.models import mlp
    >>> actions = Space((2,), largest=0.1)
    >>> policy = policy_model(mlp((8,), outputs_of(actions)), actions)
    >>> params = policy.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> outputs = policy.apply(params, jnp.ones((4, 3)))
    >>> outputs.mean.shape, outputs.log_std.shape
    ((4, 2), (4, 2))
    """
    return network if actions.choices else with_log_std(network, largest=actions.largest)
