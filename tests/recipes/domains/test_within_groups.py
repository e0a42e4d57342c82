"""`--within-groups`: training tasks, test tasks or both, all classes of a task of one group."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from jaxmeta.core import Task
from jaxmeta.data import Dataset, class_images, image_source
from jaxmeta.data.images.omniglot import lake_split
from jaxmeta.data.stream import TaskStream, read
from jaxmeta.recipes import find_domain, find_learner, known_learners, settings, start

GROUPS, CLASSES, IMAGES = "abcd", 3, 6  # of each part; `d` has one class less
NAMES = [f"{group}{number}" for group in GROUPS for number in range(CLASSES)][:-1]
TASK = {"ways": 3, "train_ways": 3, "shots": 1, "train_shots": 2, "queries": 2}


def _part(first: int):
    """A class is of one shade, so that an image tells its class."""
    classes = first + np.arange(len(NAMES))
    shades = np.repeat(classes, IMAGES).astype(np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (len(shades), 12, 12, 1))
    return class_images(images, np.repeat(np.arange(len(NAMES)), IMAGES), _names(first))


def _names(first: int) -> list[str]:
    return [f"{first} {name}" for name in NAMES]


FIRST = {"train": 0, "validation": 50, "test": 100}


@image_source("shades-in-groups")
def shades(*, split: str = "", image_size: int = 12, seed: int = 0) -> Dataset:
    groups = {name: name[:-1] for first in FIRST.values() for name in _names(first)}
    train, validation, test = map(_part, FIRST.values())
    return Dataset("shades", train, validation, test, {"split": "by shade"}, groups=groups)


def experiment_on(learner: str = "prototypical", **changes: Any) -> Any:
    base = start(find_domain("few-shot"), find_learner(learner)).changed(**TASK)
    # Statistics of training, the default of prototypical networks, do not support streams.
    given = {"dataset": "shades-in-groups", "train_queries": 1, "query_statistics": "group"}
    return base.changed(**{**given, **changes})


def tasks_of(experiment: Any) -> Any:
    settings.check(experiment)
    own = experiment.resolved()
    return own.domain.tasks(own.training, own.learner.needs)


def sources(tasks: Any) -> dict[str, Any]:
    return {
        "train": tasks.train(),
        "validation": tasks.validation().source,
        "test": tasks.tests["test"].source,
    }


@jax.jit
def draw_many(sample: Any, drawn: Any) -> Task:
    return jax.vmap(sample)(drawn)


def groups_of(source: Any, count: int = 60) -> list[set[str]]:
    """The groups in each of some tasks."""
    if isinstance(source, TaskStream):
        tasks = draw_many(source.prepare, read(source, 0, count))
    else:
        tasks = draw_many(source, jax.random.split(jax.random.key(0), count))
    corners = [np.asarray(part.inputs)[..., 0, 0, 0] for part in tasks]
    shades = np.round(255 * np.concatenate(corners, axis=1)).astype(int)
    return [{NAMES[shade % 50][0] for shade in task} for task in shades]


@pytest.mark.parametrize("pipeline", ["device", "stream"])
@pytest.mark.parametrize(
    ("within", "parts"),
    [
        pytest.param("none", set(), marks=pytest.mark.full),
        ("training", {"train"}),
        pytest.param("test", {"validation", "test"}, marks=pytest.mark.full),
        ("both", {"train", "validation", "test"}),
    ],
)
def test_the_tasks_of_these_parts_are_of_one_group(within, parts, pipeline):
    tasks = tasks_of(experiment_on(within_groups=within, pipeline=pipeline))
    for part, source in sources(tasks).items():
        found = groups_of(source)
        if part in parts:
            assert all(len(groups) == 1 for groups in found)
            assert set.union(*found) == {*"abc"}
        else:
            assert any(len(groups) > 1 for groups in found)
            assert set.union(*found) == {*GROUPS}
    assert tasks.protocol["within_groups"] == within
    counted = {"drawn": 3, "too_small": 1}
    assert tasks.protocol.get("groups", {}) == dict.fromkeys(parts, counted)
    assert len(tasks.notes) == len(parts)
    of_test = tasks.tests["test"].identity
    assert ("within_groups" in of_test) == ("test" in parts)  # else as before there were groups
    assert ("within a group" in tasks.title) == ("test" in parts)


@pytest.mark.full
def test_turned_classes_of_training_and_upright_ones_at_test():
    options = {"rotations": "as-classes", "test_rotations": "none", "train_ways": 9}
    tasks = tasks_of(experiment_on(within_groups="both", **options))
    assert all(len(groups) == 1 for groups in groups_of(tasks.train()))
    assert tasks.protocol["groups"]["train"] == {"drawn": 3, "too_small": 1}  # 12, 12, 12 and 8
    assert (tasks.protocol["rotations"], tasks.protocol["test_rotations"]) == ("as-classes", "none")
    assert tasks.tests["test"].identity["rotations"] == "none"
    found = {part: own.func.keywords["rotations"] for part, own in sources(tasks).items()}
    assert found == {"train": "as-classes", "validation": "none", "test": "none"}
    same = tasks_of(experiment_on(rotations="per-task"))
    assert same.tests["test"].identity["rotations"] == "per-task"


def test_unlabelled_examples_and_distractors_are_of_the_group_too():
    experiment = experiment_on(
        **{"within_groups": "both", "ways": 2, "train_ways": 2, "unlabelled": 1, "distractors": 1}
    )
    tasks = tasks_of(experiment)
    assert tasks.protocol["groups"]["test"] == {"drawn": 3, "too_small": 1}
    assert all(len(groups) == 1 for groups in groups_of(tasks.tests["test"].source))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 4, "within_groups": "test"}, "require a group of 4 classes.*100 a 3, 100 b 3"),
        ({"train_ways": 4, "within_groups": "training"}, "require a group of 4 classes.*0 a 3"),
        (
            {"within_groups": "both", "learner": "maml", "hard_tasks": True},
            "--hard-tasks cannot be combined with --within-groups both; give test or none",
        ),
        ({"within_groups": "Both"}, "--within-groups Both: choose from none, training, test, both"),
        ({"test_rotations": "as_classes"}, "--test-rotations as_classes: choose from same, none"),
    ],
)
def test_impossible_settings_are_refused_early(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        sources(tasks_of(experiment_on(**changes)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("within", ["training", "test", "both"])
@pytest.mark.parametrize("pipeline", ["device", "stream"])
def test_a_set_without_groups_is_refused(within, pipeline, images):
    options = {"dataset": str(images), "split": "6/6/6", "image_size": 12, "pipeline": pipeline}
    with pytest.raises(ValueError, match=f"--within-groups {within}: .* have no groups; give"):
        sources(tasks_of(experiment_on(within_groups=within, **options)))


@pytest.mark.parametrize(
    ("trained", "asked", "found"),
    [
        ("none", "test", "test"),
        ("test", "none", "none"),
        ("training", "test", "both"),
        ("training", "both", "both"),
        ("both", "none", "training"),
        ("both", "training", "training"),
    ],
)
def test_an_evaluation_changes_the_test_tasks_alone(trained, asked, found):
    domain = experiment_on(within_groups=trained).domain
    assert domain.evaluation_changes({"within_groups": asked}) == {"within_groups": found}


@pytest.mark.parametrize("asked", ["training", "both"])
def test_an_evaluation_does_not_say_that_training_was_within_groups(asked):
    domain = experiment_on(within_groups="test").domain
    with pytest.raises(ValueError, match=f"--within-groups {asked}: the training tasks of this"):
        domain.evaluation_changes({"within_groups": asked})


@pytest.mark.full
def test_a_run_and_its_evaluations(tiny, status, tmp_path, capsys):
    line = tiny("few-shot", "prototypical")
    line[line.index("--dataset") + 1] = "shades-in-groups"
    line += ["--train-ways", "3"]
    folder = tmp_path / "run"
    within = ["--within-groups", "training"]
    assert status("few-shot", *line, *within, "--out", folder) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["protocol"]["within_groups"] == "training"
    assert results["protocol"]["groups"] == {"train": {"drawn": 3, "too_small": 1}}

    assert status("evaluate", folder, "--within-groups", "test") == 0
    assert "3-way 1-shot within a group · " in capsys.readouterr().out
    again = json.loads((folder / "evaluation-within-groups-test.json").read_text())
    assert again["protocol"]["within_groups"] == "both"
    assert again["protocol"]["groups"]["test"] == {"drawn": 3, "too_small": 1}
    assert again["protocol"]["group_probabilities"] == "equal"
    assert status("evaluate", folder, "--within-groups", "test", "--ways", "4") == 1
    assert "require a group of 4 classes" in capsys.readouterr().err


def test_the_omniglot_challenge_is_a_preset():
    for name in known_learners("classification"):
        own: Any = start(find_domain("few-shot"), find_learner(name), "omniglot-challenge")
        settings.check(own)
        episode = own.domain.episode
        assert (own.domain.images.dataset, own.domain.images.split) == ("omniglot", "lake")
        assert (episode.ways, episode.shots) == (20, 1)
        assert (episode.within_groups, episode.test_rotations) == ("both", "none")
        twenty = start(find_domain("few-shot"), find_learner(name), "omniglot-20w1s")
        assert own.learner == twenty.learner and own.training == twenty.training


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["device", "stream"])
def test_tasks_of_the_challenge_are_of_one_alphabet(pipeline, omniglot_dir):
    own = start(find_domain("few-shot"), find_learner("prototypical"), "omniglot-challenge")
    few = {"queries": 1, "train_queries": 1, "query_statistics": "group"}
    tasks = tasks_of(own.changed(pipeline=pipeline, **few))
    alphabets = {name.split("/")[0] for name in lake_split()[2]}
    assert tasks.protocol["groups"]["test"] == {"drawn": len(alphabets), "too_small": 0}
    dataset = own.domain.images.load(0)  # pyright: ignore
    of_image = {
        np.round(dataset.test.images[start + row]).tobytes(): name.split("/")[0]
        for name, start in zip(dataset.test.names, dataset.test.starts, strict=True)
        for row in range(20)
    }
    source = tasks.tests["test"].source
    found = set()
    for number in range(40):
        if isinstance(source, TaskStream):
            images = source.tasks[number].support.inputs
        else:
            task = source(jax.random.key(number))
            images = np.round(255 * np.asarray(task.support.inputs)).astype(np.uint8)
        of_task = {of_image[image.tobytes()] for image in images}
        assert len(of_task) == 1
        found |= of_task
    assert found <= alphabets and len(found) > 10
