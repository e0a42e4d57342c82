"""Streams of regression that switch between sine waves at random times."""

import math

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.synthetic._sinusoids import Sinusoid, sinusoid_curve

Range = tuple[float, float]


def switching_sinusoids(
    *,
    length: int = 100,
    switch_rate: float = 0.05,
    noise: float = 0.1,
    amplitude: Range = (0.1, 5.0),
    phase: Range = (0.0, math.pi),
    domain: Range = (-5.0, 5.0),
) -> Sampler:
    """A sampler of streams: points of a sine wave, which is another one after each switch.

        y_t = amplitude_k sin(x_t − phase_k) + ε_t,  x_t ~ U[domain],  ε_t ~ N(0, noise²)

    Before each example but the first, the wave k switches with a probability of `switch_rate`. The
    support of a task has no examples; its query is the stream in its order, inputs and targets
    float32 `[length, 1]`. `switches_of` gives the true switches.

    Args:
      length: examples per stream.
      switch_rate: probability of a switch before an example.
      noise: standard deviation of ε.
      amplitude, phase, domain: `(low, high)`; uniform.

    Raises:
      ValueError: a length below 1, a rate outside [0, 1], negative noise, or ends of a range in
        the wrong order.

    Source: Harrison et al. 2020, "Continuous meta-learning without tasks", section 6.1.

    >>> sample = switching_sinusoids(length=20, switch_rate=0.2)
    >>> task = sample(jax.random.key(0))
    >>> task.query.targets.shape, switches_of(sample, jax.random.key(0)).shape
    ((20, 1), (20,))
    """
    if length < 1:
        raise ValueError(f"switching_sinusoids: length {length}; give at least 1.")
    if not 0 <= switch_rate <= 1 or not noise >= 0:
        raise ValueError(
            f"switching_sinusoids: switch_rate {switch_rate}, noise {noise}; give a rate from 0 to "
            "1, and noise of 0 or more."
        )
    for name, (low, high) in {"amplitude": amplitude, "phase": phase, "domain": domain}.items():
        if not low <= high:
            raise ValueError(
                f"switching_sinusoids: {name} {(low, high)}; give the smaller number first."
            )
    return sampler(
        _draw_stream,
        length=length,
        switch_rate=switch_rate,
        noise=noise,
        amplitude=amplitude,
        phase=phase,
        domain=domain,
    )


def switches_of(sample: Sampler, key: Key) -> Array:
    """Where the stream switches that `switching_sinusoids` draws with this key, bool `[length]`.

    True at the first example of a new wave; False at the first example of the stream.

    >>> switches_of(switching_sinusoids(length=4, switch_rate=1.0), jax.random.key(0)).tolist()
    [False, True, True, True]
    """
    options = sample.func.keywords  # pyright: ignore[reportAttributeAccessIssue]
    chex.assert_rank(key, 0)
    return _switches(key, options["length"], options["switch_rate"])


def _switches(key: Key, length: int, switch_rate: float) -> Array:
    drawn = jax.random.bernoulli(jax.random.fold_in(key, 0), switch_rate, (length,))
    return drawn & (jnp.arange(length) > 0)


def _draw_stream(
    key: Key,
    *,
    length: int,
    switch_rate: float,
    noise: float,
    amplitude: Range,
    phase: Range,
    domain: Range,
) -> Task:
    switches_T = _switches(key, length, switch_rate)
    wave_T = jnp.cumsum(switches_T)  # a new wave for each switch
    keys = [jax.random.fold_in(key, number) for number in range(1, 5)]

    def uniform(own: Key, ends: Range) -> Array:
        return jax.random.uniform(own, (length,), jnp.float32, minval=ends[0], maxval=ends[1])

    amplitudes, phases = uniform(keys[0], amplitude), uniform(keys[1], phase)
    inputs_T = uniform(keys[2], domain)
    waves = Sinusoid(amplitudes[wave_T], phases[wave_T], jnp.ones(length))
    targets_T = sinusoid_curve(waves, inputs_T)
    targets_T += noise * jax.random.normal(keys[3], (length,))
    stream = Batch(inputs_T[:, None], targets_T[:, None])
    return Task(jax.tree.map(lambda leaf: leaf[:0], stream), stream)
