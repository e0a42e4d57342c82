"""The sampler's properties, on images of noise that tell class, index and turn apart."""

from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmeta.core import Task
from jaxmeta.data import load
from jaxmeta.data._episodes import Rotations, episodes
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.stream import read, task_stream

COUNTS = (4, 5, 9, 6, 8, 4, 7)
TOTAL = 7 * 9  # images; those behind the last class belong to none
WAYS, SHOTS, QUERIES = 5, 1, 3  # 1 + 3 is all that the smallest class has
ROTATIONS: tuple[Rotations, ...] = ("none", "per-task", "as-classes")
quick = hypothesis.settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


class Origin(NamedTuple):
    """Where an image of a task comes from."""

    class_: int
    image: int
    turns: int


def noise_classes(counts=COUNTS, size=(4, 4), channels=1) -> ClassImages:
    counts = np.asarray(counts, np.int32)
    images = np.random.default_rng(0).integers(0, 256, (TOTAL, *size, channels), np.uint8)
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    return ClassImages(images, starts, counts, tuple(f"class {i}" for i in range(len(counts))))


def directory(classes: ClassImages) -> dict[bytes, Origin]:
    """Every image in each of its four turns by numpy."""
    found = {
        np.ascontiguousarray(np.rot90(classes.images[start + index], turns)).tobytes(): Origin(
            class_, index, turns
        )
        for class_, (start, count) in enumerate(zip(classes.starts, classes.counts, strict=True))
        for index in range(count)
        for turns in range(4)
    }
    assert len(found) == 4 * classes.counts.sum(), "two images of the test look alike"
    return found


def origins(images, found: dict[bytes, Origin]) -> np.ndarray:
    """The `Origin` of each image, int `[images, 3]`."""
    images = np.asarray(images)
    assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    pixels = np.round(images * 255).astype(np.uint8)
    return np.array([found[image.tobytes()] for image in pixels])


@jax.jit
def draw(sample, key) -> Task:
    return sample(key)


@jax.jit
def draw_many(sample, keys) -> Task:
    return jax.vmap(sample)(keys)


def sampler(classes=None, *, ways=WAYS, shots=SHOTS, queries=QUERIES, **options):
    classes = noise_classes() if classes is None else classes
    return episodes(classes, ways=ways, shots=shots, queries=queries, **options)


def drawn_on_the_device(classes, tasks, seed, **options) -> Task:
    keys = jax.random.split(jax.random.key(seed), tasks)
    return draw_many(sampler(classes, **options), keys)


def read_from_the_host(classes, tasks, seed, **options) -> Task:
    sizes = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES} | options
    stream = task_stream(noise_classes() if classes is None else classes, **sizes, seed=seed)
    return draw(stream.prepare, read(stream, 0, tasks))


# `draw_tasks(classes, tasks, seed, **options)`, by either pipeline: the tests that take it show
# that both have the one distribution.
either_pipeline = pytest.mark.parametrize("draw_tasks", [drawn_on_the_device, read_from_the_host])


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_uniform(observed):
    """Pearson's statistic of equally likely cells, within five deviations of its mean."""
    observed = np.asarray(observed, np.float64).ravel()
    expected = observed.sum() / observed.size
    assert expected > 20, "too few draws for the test to mean anything"
    freedom = observed.size - 1
    statistic = np.square(observed - expected).sum() / expected
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


@either_pipeline
@pytest.mark.parametrize("rotations", ROTATIONS)
@quick
@hypothesis.given(seed=seeds, counts=st.lists(st.integers(4, 9), min_size=7, max_size=7))
def test_a_task_is_distinct_classes_with_distinct_images(draw_tasks, rotations, seed, counts):
    classes = noise_classes(counts)  # of one shape whatever the counts: compiled once
    found = directory(classes)
    tasks = draw_tasks(classes, 1, seed, rotations=rotations)
    task = jax.tree.map(lambda leaf: leaf[0], tasks)

    support = np.reshape(origins(task.support.inputs, found), (WAYS, SHOTS, 3))
    query = np.reshape(origins(task.query.inputs, found), (WAYS, QUERIES, 3))
    drawn = np.concatenate([support, query], axis=1)

    np.testing.assert_array_equal(task.support.targets, np.repeat(np.arange(WAYS), SHOTS))
    np.testing.assert_array_equal(task.query.targets, np.repeat(np.arange(WAYS), QUERIES))
    assert task.support.targets.dtype == task.query.targets.dtype == jnp.int32
    assert task.support.mask is None and task.query.mask is None
    for way in drawn:  # one class, turned alike, and no image twice, in support or query
        assert len({(class_, turns) for class_, _, turns in way}) == 1
        assert len({index for _, index, _ in way}) == SHOTS + QUERIES
    if rotations == "as-classes":
        assert len({(way[0, 0], way[0, 2]) for way in drawn}) == WAYS
    else:
        assert len({way[0, 0] for way in drawn}) == WAYS
    if rotations == "none":
        assert not drawn[..., 2].any()


@pytest.mark.full
@pytest.mark.parametrize("rotations", ROTATIONS)
@quick
@hypothesis.given(seed=seeds)
def test_the_same_key_gives_the_same_task_and_another_key_another(rotations, seed):
    key = jax.random.key(seed)
    sample = sampler(rotations=rotations)
    task = draw(sample, key)
    assert_same(task, draw(sampler(rotations=rotations), key))
    others = draw_many(sample, jax.random.split(key, 4))
    tasks = [task.support.inputs, *others.support.inputs]
    assert len({np.asarray(inputs).tobytes() for inputs in tasks}) == 5


@pytest.mark.full
@pytest.mark.parametrize(
    ("rotations", "shuffle_labels"), [("none", True), ("per-task", False), ("as-classes", False)]
)
def test_compiled_is_eager_and_mapped_is_looped(rotations, shuffle_labels):
    sample = sampler(rotations=rotations, shuffle_labels=shuffle_labels)
    keys = jax.random.split(jax.random.key(1), 4)
    tasks = draw_many(sample, keys)
    assert_same(sample(keys[0]), draw(sample, keys[0]))
    looped = [draw(sample, key) for key in keys]
    assert_same(jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped), tasks)


def test_whole_split_and_whole_class_may_be_drawn():
    classes = noise_classes((5, 5, 5))
    found = directory(classes)
    for rotations, ways in (("none", 3), ("as-classes", 12)):
        sample = sampler(classes, ways=ways, shots=2, queries=3, rotations=rotations)
        task = draw(sample, jax.random.key(2))
        both = [*origins(task.support.inputs, found), *origins(task.query.inputs, found)]
        assert len({tuple(origin) for origin in both}) == ways * 5 == len(both)


def test_colour_keeps_its_channels():
    classes = noise_classes(channels=3)
    task = draw(sampler(classes, rotations="per-task"), jax.random.key(3))
    assert task.support.inputs.shape == (WAYS * SHOTS, 4, 4, 3)
    assert len(origins(task.support.inputs, directory(classes))) == WAYS * SHOTS


def test_upright_images_need_not_be_square():
    classes = noise_classes(size=(4, 6))
    task = draw(sampler(classes), jax.random.key(3))
    assert task.query.inputs.shape == (WAYS * QUERIES, 4, 6, 1)


def drawn_origins(drawn, found):
    """Origins `[tasks, ways, shots + queries, 3]` of stacked tasks."""
    tasks = len(drawn.query.targets)
    parts = [
        np.reshape(
            origins(part.inputs.reshape(-1, *part.inputs.shape[2:]), found),
            (tasks, WAYS, -1, 3),
        )
        for part in drawn
    ]
    return np.concatenate(parts, axis=2)


@either_pipeline
def test_classes_and_images_are_covered_uniformly(draw_tasks):
    classes = noise_classes()
    drawn = drawn_origins(draw_tasks(classes, 3000, seed=4), directory(classes))
    class_ = drawn[:, :, 0, 0]
    for label in range(WAYS):
        assert_uniform(np.bincount(class_[:, label], minlength=7))
    pairs = np.zeros((7, 7))
    np.add.at(pairs, (class_[:, 1], class_[:, 3]), 1)
    assert not pairs.diagonal().any()
    assert_uniform(pairs[~np.eye(7, dtype=bool)])
    for wanted, count in enumerate(COUNTS):
        index = drawn[class_ == wanted][..., 1]
        for place in range(SHOTS + QUERIES):
            assert_uniform(np.bincount(index[:, place], minlength=count))


@pytest.mark.full
@either_pipeline
def test_turns_are_uniform_and_independent(draw_tasks):
    classes = noise_classes()
    found = directory(classes)
    turned = draw_tasks(classes, 2000, seed=4, rotations="per-task")
    turns = drawn_origins(turned, found)[:, :, 0, 2]
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (turns[:, 0], turns[:, 1]), 1)
    assert_uniform(pairs)  # each class of a task has a turn of its own

    as_classes = draw_tasks(classes, 2000, seed=4, rotations="as-classes")
    drawn = drawn_origins(as_classes, found)[:, :, 0]
    cells = np.zeros((7, 4))
    np.add.at(cells, (drawn[:, 2, 0], drawn[:, 2, 2]), 1)
    assert_uniform(cells)
    twice = [len(set(task[:, 0])) < WAYS for task in drawn]
    assert any(twice), "two turns of one class never met in a task"


@pytest.mark.full
@either_pipeline
def test_shuffled_labels_say_nothing(draw_tasks):
    options = {"ways": 3, "shots": 1, "queries": 2}
    plain = draw_tasks(None, 3000, seed=5, **options)
    shuffled = draw_tasks(None, 3000, seed=5, **options, shuffle_labels=True)
    assert_same(shuffled.support.inputs, plain.support.inputs)
    assert_same(shuffled.query.inputs, plain.query.inputs)
    for part, each in ((shuffled.support, 1), (shuffled.query, 2)):
        np.testing.assert_array_equal(
            np.sort(part.targets), np.tile(np.repeat(np.arange(3), each), (3000, 1))
        )
        for example in range(3 * each):
            assert_uniform(np.bincount(part.targets[:, example], minlength=3))
    joint = np.zeros((3, 3))  # support and query of one class don't agree more than by chance
    np.add.at(joint, (shuffled.support.targets[:, 0], shuffled.query.targets[:, 0]), 1)
    assert_uniform(joint)


@pytest.mark.full
def test_the_number_of_devices_changes_nothing():
    devices = jax.devices()
    assert len(devices) > 1, "the test needs several devices, virtual ones will do"
    mesh = jax.make_mesh((len(devices),), ("tasks",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("tasks"), PartitionSpec()
    sample = sampler(rotations="per-task", shuffle_labels=True)
    keys = jax.random.split(jax.random.key(6), 2 * len(devices))
    expected = draw_many(sample, keys)

    sharded_keys = jax.device_put(keys, NamedSharding(mesh, split))
    replicated = jax.device_put(sample, NamedSharding(mesh, whole))
    sharded = draw_many(replicated, sharded_keys)
    assert len(sharded.support.inputs.sharding.device_set) == len(devices)
    assert_same(sharded, expected)

    by_hand = jax.jit(
        jax.shard_map(
            lambda sample, keys: jax.vmap(sample)(keys),
            mesh=mesh,
            in_specs=(whole, split),
            out_specs=split,
        )
    )
    assert_same(by_hand(sample, keys), expected)


def test_one_trace_serves_all_keys_and_samplers_alike():
    traces = []

    @jax.jit
    def count(sample, key):
        traces.append(key)
        return sample(key)

    for seed in range(3):
        count(sampler(), jax.random.key(seed))
    assert len(traces) == 1
    count(sampler(shuffle_labels=True), jax.random.key(0))
    assert len(traces) == 2


def test_images_are_an_argument_and_not_a_constant_of_the_program():
    sample = sampler()
    program = jax.make_jaxpr(lambda sample, key: sample(key))(sample, jax.random.key(0))
    assert sum(np.size(constant) for constant in program.consts) < 100
    assert [leaf.dtype for leaf in jax.tree.leaves(sample)] == [
        jnp.uint8,
        jnp.int32,
        jnp.int32,
    ]


@pytest.mark.full
def test_double_precision_draws_the_same_task():
    sample = sampler(rotations="per-task", shuffle_labels=True)
    key = jax.random.key(7)
    expected = draw(sample, key)
    with jax.enable_x64(True):
        task = sample(key)
    assert_same(task, expected)
    assert [leaf.dtype for leaf in jax.tree.leaves(task)] == [jnp.float32, jnp.int32] * 2


def test_a_whole_data_set_is_not_classes():
    with pytest.raises(TypeError, match=r"Dataset is not a set of classes; give a part .*\.train"):
        episodes(load("glyphs"), ways=5, shots=1, queries=1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways is 1"),
        ({"ways": -3}, "ways is -3"),
        (
            {"ways": 8},
            "8-way tasks require 8 classes, but there are 7 in this part of the set; lower",
        ),
        (
            {"ways": 29, "rotations": "as-classes"},
            "there are 28 with their rotations",
        ),
        ({"shots": 0}, "shots is 0"),
        ({"queries": -1}, "queries is -1"),
        ({"queries": 4}, "need 5 images of every class, but class 'class 0' has 4"),
        ({"rotations": "as_classes"}, "'as_classes'; did you mean 'as-classes'?"),
        ({"rotations": "Nope!"}, "'Nope!'; there are none, per-task, as-classes"),
    ],
)
def test_bad_settings_are_told_in_one_line(options, message):
    with pytest.raises(ValueError) as error:
        sampler(**options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("rotations", ["per-task", "as-classes"])
def test_images_that_are_not_square_cannot_be_turned(rotations):
    with pytest.raises(ValueError, match="4x6 images are not square"):
        sampler(noise_classes(size=(4, 6)), rotations=rotations)
