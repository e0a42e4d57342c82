"""Streams of sine waves: one wave between two switches, and the true switches."""

import itertools

import jax
import numpy as np
import pytest

from jaxmeta.data import switches_of, switching_sinusoids


def test_between_two_switches_there_is_one_wave():
    sample = switching_sinusoids(length=60, switch_rate=0.1, noise=0.0)
    key = jax.random.key(3)
    task, switches = sample(key), np.asarray(switches_of(sample, key))
    assert len(task.support.targets) == 0
    assert task.query.inputs.shape == task.query.targets.shape == (60, 1)
    assert not switches[0]
    assert switches.sum() >= 3
    x, y = (np.asarray(leaf, np.float64)[:, 0] for leaf in task.query[:2])
    starts = [0, *np.flatnonzero(switches), 60]
    fits = []
    for first, end in itertools.pairwise(starts):
        if end - first < 3:
            continue
        waves = np.stack([np.sin(x[first:end]), np.cos(x[first:end])], axis=1)
        fit, *_ = np.linalg.lstsq(waves, y[first:end], rcond=None)
        np.testing.assert_allclose(waves @ fit, y[first:end], atol=1e-4)
        fits.append(fit)
    assert len(np.unique(np.round(fits, 3), axis=0)) == len(fits) > 1  # each another one


def test_the_rate_is_that_of_the_switches_and_noise_is_added():
    sample = switching_sinusoids(length=500, switch_rate=0.2, noise=0.3, amplitude=(0.0, 0.0))
    keys = jax.random.split(jax.random.key(0), 20)
    switches = jax.vmap(lambda key: switches_of(sample, key))(keys)
    assert abs(float(switches[:, 1:].mean()) - 0.2) < 0.02
    targets = jax.vmap(sample)(keys).query.targets
    assert abs(float(targets.std()) - 0.3) < 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 0}, "length 0; give at least 1"),
        ({"switch_rate": 1.5}, "switch_rate 1.5, noise 0.1; give a rate from 0 to 1"),
        ({"noise": -1.0}, "noise -1.0; give"),
        ({"phase": (1.0, 0.0)}, r"phase \(1.0, 0.0\); give the smaller number first"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        switching_sinusoids(**options)
