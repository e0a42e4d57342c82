"""Regression of sine waves, the benchmark introduced with MAML."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.samplers import Sampler, sampler

Range = tuple[float, float]


class Sinusoid(NamedTuple):
    """The true function of one task, `amplitude · sin(frequency · x − phase)`.

    Attributes:
      amplitude: float32 scalar.
      phase: float32 scalar, radians.
      frequency: float32 scalar, radians per unit of x.
    """

    amplitude: Array
    phase: Array
    frequency: Array


def sinusoids(
    *,
    shots: int,
    queries: int,
    amplitude: Range = (0.1, 5.0),
    phase: Range = (0.0, math.pi),
    frequency: Range = (1.0, 1.0),
    domain: Range = (-5.0, 5.0),
) -> Sampler:
    """A sampler of sine-wave tasks: `sample(key) -> Task`, pure, for `jit` and `vmap`.

        y = amplitude · sin(frequency · x − phase),  x ~ U[domain]

    Each task has one amplitude, phase and frequency, drawn uniformly from their ranges. The
    defaults are those of MAML (Finn et al. 2017, section 5.1; the minus sign follows its code).
    Meta-SGD (Li et al. 2017, section 4.1) uses `frequency=(0.8, 1.2)` and `sin(ωx + b)`, which is
    the same distribution over a domain symmetric about zero: substitute (x, y) → (−x, −y).

    Args:
      shots: number of support points, drawn uniformly from the domain.
      queries: number of query points, drawn in the same way.
      amplitude, phase, frequency: `(low, high)`; equal ends fix the value.
      domain: `(low, high)` of x.

    Returns:
      a `jax.tree_util.Partial`, as `episodes` returns, without leaves. Inputs and targets of a
      task are float32 `[shots, 1]` in the support and `[queries, 1]` in the query.

    Raises:
      ValueError: shots or queries are below one; the ends of a range are in the wrong order or not
        finite; the domain is a single point.

    >>> sample = sinusoids(shots=10, queries=100)
    >>> sample(jax.random.key(0)).query.targets.shape
    (100, 1)
    """
    for name, value in (("shots", shots), ("queries", queries)):
        if value < 1:
            raise ValueError(f"{name} is {value}, but a task needs at least 1 point of each kind")
    sample = sampler(
        _draw_task,
        shots=shots,
        queries=queries,
        amplitude=_range("amplitude", amplitude),
        phase=_range("phase", phase),
        frequency=_range("frequency", frequency),
        domain=_range("domain", domain),
    )
    if domain[0] == domain[1]:
        raise ValueError(f"the domain {tuple(domain)} is one point: give (low, high), low < high")
    return sample


def sinusoid_parameters(
    key: Key,
    *,
    amplitude: Range = (0.1, 5.0),
    phase: Range = (0.0, math.pi),
    frequency: Range = (1.0, 1.0),
) -> Sinusoid:
    """The true function of the task that `sinusoids(...)` draws with `key` and the same ranges.

    >>> key = jax.random.key(0)
    >>> task = sinusoids(shots=5, queries=5)(key)
    >>> curve = sinusoid_curve(sinusoid_parameters(key), task.query.inputs)
    >>> bool(jnp.allclose(curve, task.query.targets))
    True
    """
    chex.assert_rank(key, 0)  # a typed key
    amplitude_key, phase_key, frequency_key, _ = jax.random.split(key, 4)
    return Sinusoid(
        _uniform(amplitude_key, (), amplitude),
        _uniform(phase_key, (), phase),
        _uniform(frequency_key, (), frequency),
    )


def sinusoid_curve(sinusoid: Sinusoid, inputs: Array) -> Array:
    """`amplitude · sin(frequency · x − phase)` at every x of `inputs`, of any shape.

    >>> half_pi = jnp.asarray(math.pi / 2)
    >>> float(sinusoid_curve(Sinusoid(jnp.asarray(3.0), half_pi, jnp.asarray(2.0)), half_pi))
    3.0
    """
    return sinusoid.amplitude * jnp.sin(sinusoid.frequency * inputs - sinusoid.phase)


def _draw_task(
    key: Key,
    *,
    shots: int,
    queries: int,
    amplitude: Range,
    phase: Range,
    frequency: Range,
    domain: Range,
) -> Task:
    sinusoid = sinusoid_parameters(key, amplitude=amplitude, phase=phase, frequency=frequency)
    *_, inputs_key = jax.random.split(key, 4)
    inputs = _uniform(inputs_key, (shots + queries, 1), domain)
    targets = sinusoid_curve(sinusoid, inputs)
    return Task(Batch(inputs[:shots], targets[:shots]), Batch(inputs[shots:], targets[shots:]))


def _uniform(key: Key, shape: tuple[int, ...], ends: Range) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, minval=ends[0], maxval=ends[1])


def _range(name: str, ends: Range) -> Range:
    low, high = map(float, ends)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(
            f"the {name} range ({low}, {high}) is empty: give two finite numbers, the smaller first"
        )
    return low, high
