"""Sine-wave tasks: the right curve, the right ranges, and a pure function of the key."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmeta.data.synthetic._sinusoids import (
    Sinusoid,
    sinusoid_curve,
    sinusoid_parameters,
    sinusoids,
)

SHOTS, QUERIES = 5, 20
META_SGD = {"frequency": (0.8, 1.2)}
quick = hypothesis.settings(max_examples=25, deadline=None)


def sampler(**options):
    return sinusoids(**{"shots": SHOTS, "queries": QUERIES, **options})


@jax.jit
def draw(sample, key):
    return sample(key)


@jax.jit
def draw_many(sample, keys):
    return jax.vmap(sample)(keys)


def assert_close(tree, other):
    # The sine of compiled and of eager code differ in the last bit, of values up to 5.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=4e-6), tree, other)


@pytest.mark.parametrize("ranges", [{}, META_SGD], ids=["maml", "meta-sgd"])
@quick
@hypothesis.given(seed=st.integers(0, 2**32 - 1))
def test_a_task_is_points_of_the_curve_of_its_key(ranges, seed):
    key = jax.random.key(seed)
    task = draw(sampler(**ranges), key)
    amplitude, phase, frequency = map(np.float64, sinusoid_parameters(key, **ranges))
    assert 0.1 <= amplitude <= 5.0 and 0.0 <= phase <= np.float32(math.pi)
    assert 0.8 <= np.float32(frequency) <= np.float32(1.2) if ranges else frequency == 1.0
    for part, points in ((task.support, SHOTS), (task.query, QUERIES)):
        assert part.inputs.shape == part.targets.shape == (points, 1)
        assert part.inputs.dtype == part.targets.dtype == jnp.float32
        assert np.all(np.abs(part.inputs) <= 5.0)
        x = np.asarray(part.inputs, np.float64)
        assert_close(part.targets, amplitude * np.sin(frequency * x - phase))
    points = np.concatenate([task.support.inputs, task.query.inputs])
    assert len(np.unique(points)) > SHOTS + QUERIES - 3  # float32 points may meet, but hardly


def test_the_curve_by_hand():
    sinusoid = Sinusoid(jnp.float32(2.0), jnp.float32(math.pi / 2), jnp.float32(3.0))
    inputs = jnp.asarray([[0.0], [math.pi / 6], [math.pi / 3], [math.pi / 2]])
    np.testing.assert_allclose(
        sinusoid_curve(sinusoid, inputs), [[-2.0], [0.0], [2.0], [0.0]], atol=1e-6
    )


def test_the_ranges_are_covered_uniformly():
    ranges = {"amplitude": (0.1, 5.0), "phase": (0.0, math.pi), "frequency": (0.8, 1.2)}
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: sinusoid_parameters(key, **ranges))(keys)
    task = draw_many(sampler(**ranges), keys)
    values = {**ranges, "support": (-5.0, 5.0), "query": (-5.0, 5.0)}
    samples = {
        **drawn._asdict(),
        "support": task.support.inputs[:, 0, 0],
        "query": task.query.inputs[:, 0, 0],
    }
    for name, (low, high) in values.items():
        counts, _ = np.histogram(np.asarray(samples[name]), bins=10, range=(low, high))
        assert counts.sum() == 4000, name
        assert np.square(counts - 400).sum() / 400 < 9 + 5 * math.sqrt(18), name
    correlation = np.corrcoef(np.stack([np.asarray(sample) for sample in samples.values()]))
    assert np.abs(correlation - np.eye(5)).max() < 5 / math.sqrt(4000)


def test_the_same_key_gives_the_same_task_compiled_mapped_or_sharded():
    devices = jax.devices()
    assert len(devices) > 1, "the test needs several devices, virtual ones will do"
    sample = sampler(**META_SGD)
    keys = jax.random.split(jax.random.key(1), 2 * len(devices))
    tasks = draw_many(sample, keys)
    assert len(np.unique(tasks.support.targets)) > SHOTS * len(keys) - 3
    looped = [draw(sample, key) for key in keys]
    assert_close(jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped), tasks)
    assert_close(draw(sample, keys[0]), sample(keys[0]))

    mesh = jax.make_mesh((len(devices),), ("tasks",), axis_types=(AxisType.Auto,))
    sharded = draw_many(sample, jax.device_put(keys, NamedSharding(mesh, PartitionSpec("tasks"))))
    assert len(sharded.query.inputs.sharding.device_set) == len(devices)
    assert_close(sharded, tasks)
    np.testing.assert_array_equal(sharded.support.inputs, tasks.support.inputs)


def test_one_trace_serves_all_keys_and_samplers_alike():
    traces = []

    @jax.jit
    def count(sample, key):
        traces.append(key)
        return sample(key)

    for seed in range(3):
        count(sampler(domain=[-5, 5]), jax.random.key(seed))
    assert len(traces) == 1
    count(sampler(domain=(0, 1)), jax.random.key(0))
    assert len(traces) == 2


def test_double_precision_keeps_the_types():
    with jax.enable_x64(True):
        task = sampler()(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(task)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 0}, "shots is 0"),
        ({"queries": -2}, "queries is -2"),
        ({"amplitude": (5.0, 0.1)}, "the amplitude range (5.0, 0.1) is empty"),
        ({"phase": (0.0, math.nan)}, "the phase range (0.0, nan) is empty"),
        ({"frequency": (-math.inf, 1.0)}, "the frequency range (-inf, 1.0) is empty"),
        ({"domain": (2.0, 2.0)}, "the domain (2.0, 2.0) is one point"),
        ({"domain": (5.0, -5.0)}, "the domain range (5.0, -5.0) is empty"),
    ],
)
def test_bad_settings_are_told_in_one_line(options, message):
    with pytest.raises(ValueError) as error:
        sampler(**options)
    assert message in str(error.value) and "\n" not in str(error.value)
