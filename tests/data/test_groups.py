"""Tasks whose classes are all of one group, drawn on the device and on the host.

Four groups: `few` is too small for a task, the others have 3, 4 and 6 classes, interleaved.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import Task
from jaxmeta.data import episodes, task_stream
from jaxmeta.data._episodes import drawn_classes, weighted
from jaxmeta.data.classes import class_images
from jaxmeta.data.groups import group_sizes, large_groups
from jaxmeta.data.stream import read

SIZES = {"few": 2, "three": 3, "four": 4, "six": 6}
WAYS, IMAGES = 3, 3
OF_CLASS = sorted(
    (f"{number} {group}", group) for group, size in SIZES.items() for number in range(size)
)
GROUPS = dict(OF_CLASS)
NAMES = tuple(GROUPS)
TOTAL = len(NAMES)


def _numbered():
    """Images of 2×2 pixels: class, image, and two pixels that show the turn."""
    images = np.zeros((TOTAL * IMAGES, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(TOTAL * IMAGES) // IMAGES + 100
    images[:, 0, 1, 0] = np.arange(TOTAL * IMAGES) % IMAGES + 10
    images[:, 1, 1, 0] = 1
    return class_images(images, np.arange(TOTAL * IMAGES) // IMAGES, NAMES)


CLASSES = _numbered()
TASK: Any = {"ways": WAYS, "shots": 1, "queries": 2, "groups": GROUPS}


@jax.jit
def draw_many(sample, keys) -> Task:
    return jax.vmap(sample)(keys)


def on_the_device(tasks, seed, **options) -> Task:
    sample = episodes(CLASSES, **TASK | options)
    return draw_many(sample, jax.random.split(jax.random.key(seed), tasks))


def from_the_host(tasks, seed, **options) -> Task:
    stream = task_stream(CLASSES, **TASK | options, seed=seed)
    return jax.jit(stream.prepare)(read(stream, 0, tasks))


either_pipeline = pytest.mark.parametrize("draw_tasks", [on_the_device, from_the_host])


def drawn(tasks: Task, ways=WAYS) -> tuple[np.ndarray, np.ndarray]:
    """Classes and turns of each way of each task, int `[tasks, ways]`."""
    found = []
    for part in tasks:
        pixels = np.round(np.asarray(part.inputs) * 255).astype(int)[..., 0]
        by_way = pixels.reshape(len(pixels), ways, -1, 2, 2)
        corners = np.stack([by_way[..., y, x] for y, x in ((0, 0), (1, 0), (1, 1), (0, 1))], -1)
        # Every image of a way has the class and the turn of the first.
        assert (corners.argmax(-1) == corners.argmax(-1)[..., :1]).all()
        assert (corners.max(-1) == corners.max(-1)[..., :1]).all()
        found.append((corners.max(-1)[..., 0] - 100, corners.argmax(-1)[..., 0]))
    np.testing.assert_array_equal(found[0], found[1])  # support and query
    return found[0]


def groups_in(classes: np.ndarray) -> list[set[str]]:
    return [{GROUPS[NAMES[index]] for index in task} for task in classes]


def assert_uniform(observed):
    """Pearson's statistic of equally likely cells, within five deviations of its mean."""
    observed = np.asarray(observed, np.float64)
    expected, freedom = observed.mean(), observed.size - 1
    assert expected > 20
    assert np.square(observed - expected).sum() / expected < freedom + 5 * np.sqrt(2 * freedom)


@either_pipeline
def test_a_task_has_distinct_classes_of_one_group(draw_tasks):
    classes, turns = drawn(draw_tasks(300, seed=0))
    assert all(len(found) == 1 for found in groups_in(classes))
    assert set.union(*groups_in(classes)) == {"three", "four", "six"}  # `few` is left out
    assert all(len({*task}) == WAYS for task in classes)
    assert not turns.any()


@either_pipeline
def test_groups_and_the_classes_of_a_group_are_equally_likely(draw_tasks):
    classes, _ = drawn(draw_tasks(3000, seed=1))
    of_task = np.array([found.pop() for found in groups_in(classes)])
    names, counts = np.unique(of_task, return_counts=True)
    assert names.tolist() == ["four", "six", "three"]
    assert_uniform(counts)  # and not in proportion to their 4, 6 and 3 classes
    for group, size in SIZES.items():
        for way in range(WAYS):
            seen = np.bincount(classes[of_task == group, way], minlength=TOTAL)
            seen = seen[[GROUPS[name] == group for name in NAMES]]
            if group != "few":
                assert len(seen) == size
                assert_uniform(seen)


@either_pipeline
def test_turned_classes_stay_in_their_group(draw_tasks):
    classes, turns = drawn(draw_tasks(300, seed=2, ways=8, rotations="as-classes"), ways=8)
    assert all(len(found) == 1 for found in groups_in(classes))
    assert set.union(*groups_in(classes)) == {*SIZES}  # two classes are eight with their turns
    both = 4 * classes + turns
    assert all(len({*task}) == 8 for task in both)
    assert any(len({*task}) < 8 for task in classes)


@pytest.mark.full
def test_the_same_key_gives_the_same_task():
    first, again, other = (on_the_device(20, seed) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (drawn(first)[0] != drawn(other)[0]).any()
    sample = episodes(CLASSES, **TASK)
    alone = jax.jit(lambda sample, key: sample(key))(
        sample, jax.random.split(jax.random.key(3), 20)[5]
    )
    np.testing.assert_array_equal(alone.query.inputs, first.query.inputs[5])


@pytest.mark.parametrize("rotations", ["none", "as-classes"])
def test_the_drawn_classes_are_those_of_the_task(rotations):
    sample = episodes(CLASSES, **TASK, rotations=rotations)
    keys = jax.random.split(jax.random.key(5), 20)
    classes, turns = drawn(draw_many(sample, keys))
    found = np.asarray(jax.jit(jax.vmap(lambda key: drawn_classes(sample, key)))(keys))
    if rotations == "as-classes":
        assert turns.any()
        np.testing.assert_array_equal(found // 4, classes)
    else:
        np.testing.assert_array_equal(found, classes)


def test_groups_are_an_argument_and_not_a_constant_of_the_program():
    sample = episodes(CLASSES, **TASK)
    program = jax.make_jaxpr(lambda sample, key: sample(key))(sample, jax.random.key(0))
    assert sum(np.size(constant) for constant in program.consts) == 0
    assert [leaf.dtype for leaf in jax.tree.leaves(sample)] == [jnp.uint8, *[jnp.int32] * 5]


def test_members_are_sorted_by_group():
    assert group_sizes(CLASSES, GROUPS) == {"six": 6, "four": 4, "three": 3, "few": 2}
    found = large_groups(CLASSES, GROUPS, 3)
    assert (found.starts.tolist(), found.counts.tolist()) == ([0, 4, 10], [4, 6, 3])
    assert [GROUPS[NAMES[index]] for index in found.members] == 4 * ["four"] + 6 * ["six"] + 3 * [
        "three"
    ]


@pytest.mark.parametrize("make", [episodes, task_stream])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 7}, r"\(six 6, four 4, three 3, few 2\): lower the ways to 6 at most"),
        ({"ways": 16}, "16-way tasks require 16 classes, but there are 15"),
        (
            {"ways": 25, "rotations": "as-classes"},
            r"fewer with their rotations \(six 24, four 16, three 12, few 8\).* to 24 at most",
        ),
        ({"groups": {"0 six": "six"}}, "the class '0 few' has no group; give groups an entry"),
        (
            {"groups": {name: name for name in NAMES}},
            r"\(0 few 1, 0 four 1, .*, and 5 with fewer\): lower the ways to 1",
        ),
    ],
)
def test_impossible_tasks_are_refused_with_the_sizes_of_the_groups(make, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make(CLASSES, **TASK | options)
    assert "\n" not in str(error.value)


def test_weights_of_classes_are_refused():
    with pytest.raises(ValueError, match="weights of classes are not supported"):
        weighted(episodes(CLASSES, **TASK), jnp.ones(TOTAL))
