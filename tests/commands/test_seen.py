"""No class of training or validation is ever tested, whatever data an evaluation is given."""

import json
import shutil
from pathlib import Path

import pytest

from jaxmeta.commands.baselines import Baselines
from jaxmeta.commands.baselines import run as run_baselines
from jaxmeta.commands.evaluate import _load_unseen
from jaxmeta.data import load
from jaxmeta.recipes import find_domain, find_learner, restoring, start
from jaxmeta.recipes.domains import few_shot
from jaxmeta.recipes.folders import read_config, read_identity
from jaxmeta.recipes.loading import load as load_tasks
from jaxmeta.recipes.seen import refuse_seen, seen_of


@pytest.fixture
def run(trained, images, tmp_path, monkeypatch):
    """A run of six classes each on a folder of its own, and that folder."""
    before = read_identity(trained("few-shot", "prototypical"))  # its checkpoint's
    monkeypatch.setattr(restoring, "read_identity", lambda folder: before)
    folder = shutil.copytree(trained("few-shot", "prototypical"), tmp_path / "run")
    data = shutil.copytree(images, tmp_path / "data")
    fields = json.loads((folder / "config.json").read_text())
    fields["tasks"]["images"] |= {"dataset": str(data), "split": None}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder, data


@pytest.fixture
def tested(run, status, tmp_path, monkeypatch):
    """`tested(*options)`: the names of the classes that an evaluation tests, and its result."""
    folder, _ = run
    found = {}

    def episodes(classes, **options):
        found["names"] = classes.names
        return few_shot_episodes(classes, **options)

    few_shot_episodes = few_shot.episodes
    monkeypatch.setattr(few_shot, "episodes", episodes)

    def evaluate(*options):
        found.clear()
        out = tmp_path / "result.json"
        for path in (out, out.with_suffix(".npz")):
            path.unlink(missing_ok=True)
        assert status("evaluate", folder, "--out", out, *options) == 0
        return {*found["names"]}, json.loads(out.read_text())

    return evaluate


@pytest.fixture
def seen(images):
    """The names of the classes of training and validation."""
    dataset = load(str(images), image_size=12, split="6/6/6")
    return {*dataset.train.names, *dataset.validation.names}


ALL = {f"class-{number:02}" for number in range(18)}


@pytest.mark.full
def test_the_run_keeps_what_its_classes_are_known_by(run, seen, images):
    fields = json.loads((run[0] / "classes.json").read_text())
    assert {*fields["train"]["classes"], *fields["validation"]["classes"]} == seen
    assert str(images) not in (run[0] / "classes.json").read_text()


def test_a_folder_that_has_grown(run, tested, seen, draw_classes, tmp_path):
    _, data = run
    new = draw_classes(tmp_path / "more", 1, 8, seed=5)
    shutil.move(new / "class-00", data / "class-new")
    names, result = tested()
    assert names == (ALL - seen) | {"class-new"}  # those of the split before, and the new one
    assert result["protocol"]["split"].startswith("test on all classes but the 12 that were")
    assert result["protocol"]["classes"]["test"] == 7


def test_a_copy_elsewhere_under_other_names(run, tested, seen, tmp_path, capsys):
    copy = shutil.copytree(run[1], tmp_path / "copy")
    for folder in [*copy.iterdir()]:
        folder.rename(copy / folder.name.replace("class", "renamed"))
    names, _ = tested("--dataset", copy)
    assert names == {name.replace("class", "renamed") for name in ALL - seen}
    assert "other data than in training" in capsys.readouterr().err


def test_another_split_of_the_same_set(run, tested, seen):
    names, _ = tested("--split", "2/2/14")
    assert names == ALL - seen


def test_classes_of_the_same_names_that_hold_other_images(tested, draw_classes, tmp_path):
    other = draw_classes(tmp_path / "other", 18, 8, seed=7)
    names, result = tested("--dataset", other, "--split", "6/6/6")
    assert len(names) == 6
    assert result["protocol"]["split"] == "6/6/6"


def test_images_that_are_all_replaced_in_their_place(run, tested, seen, draw_classes, tmp_path):
    folder, data = run
    fields = json.loads((folder / "classes.json").read_text())
    for part in ("train", "validation"):  # as if it had been trained there
        fields[part]["source"] = load(str(data), image_size=12).origin
    (folder / "classes.json").write_text(json.dumps(fields))
    shutil.rmtree(data)
    draw_classes(data, 18, 8, seed=7)
    names, _ = tested()
    assert names == ALL - seen


@pytest.fixture
def refused(status, capsys):
    def evaluate(folder, *options):
        capsys.readouterr()
        assert status("evaluate", folder, *options) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return evaluate


def test_a_set_of_nothing_but_seen_classes(run, refused, seen):
    folder, data = run
    for name in ALL - seen:
        shutil.rmtree(data / name)
    assert "trained or validated on all of its classes" in refused(folder)


@pytest.mark.full
def test_a_run_of_before_goes_by_its_data_as_a_whole(run, tested, refused, images):
    folder, data = run
    (folder / "classes.json").unlink()
    fields = json.loads((folder / "config.json").read_text())
    fields["tasks"]["images"]["split"] = "6/6/6"
    (folder / "config.json").write_text(json.dumps(fields))
    names, _ = tested()  # the very data
    assert len(names) == 6
    names, result = tested("--dataset", images, "--split", "2/2/14")  # it is looked up there
    assert len(names) == 6 and "but the 12" in result["protocol"]["split"]
    shutil.rmtree(data / "class-03")
    assert "does not list the classes that it was trained on" in refused(
        folder, "--dataset", images
    )
    shutil.rmtree(data)
    assert "does not list the classes that it was trained on" in refused(
        folder, "--dataset", images
    )
    fields = {"source": "", "classes": {}}
    fields = {"data": "of another run", "train": fields, "validation": fields}
    (folder / "classes.json").write_text(json.dumps(fields))
    assert "it belongs to a run on other data" in refused(folder)
    (folder / "classes.json").write_text("{")
    assert "classes.json can't be read" in refused(folder)


def test_tasks_that_do_not_leave_them_out_are_refused(run, monkeypatch, draw_classes, tmp_path):
    folder, data = run
    new = draw_classes(tmp_path / "more", 1, 8, seed=5)
    shutil.move(new / "class-00", data / "class-new")
    experiment, stored = read_config(folder)
    monkeypatch.setattr("jaxmeta.recipes.images.unseen", lambda dataset, seen: dataset)
    with pytest.raises(ValueError, match=r"validated on [1-4] of these test classes \(class-"):
        _load_unseen(folder, experiment, stored)


CHANGES = {
    "few-shot": {"ways": 3, "queries": 5},
    "regression": {"task": "images", "points": (2, 9)},
    "sequence": {"task": "labels", "ways": 2, "instances": 2},
    "pretrain": {"split": "6/6/6"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_domain_of_images_leaves_them_out(name, images, tmp_path, draw_classes):
    data = shutil.copytree(images, tmp_path / "data")
    domain = find_domain(name)
    experiment = start(domain, find_learner(domain.default_learner))
    experiment = experiment.changed(dataset=str(data), **CHANGES[name]).resolved()
    seen = seen_of(load_tasks(experiment).tasks)
    new = draw_classes(tmp_path / "more", 1, 8, seed=5)
    shutil.move(new / "class-00", data / "class-new")
    more = {"split": "6/6/7"} if name == "pretrain" else {}
    grown = experiment.changed(**more)
    count = sum(len(part.examples) for part in seen.classes)
    protocol = load_tasks(grown, seen).tasks.protocol
    assert protocol["classes"]["test"] == 19 - count
    refuse_seen(load_tasks(grown, seen).tasks, seen)
    with pytest.raises(ValueError, match=r"of these test classes \(class-"):
        refuse_seen(load_tasks(grown).tasks, seen)  # it was not asked to


@pytest.mark.slow
def test_baselines_are_of_the_very_images(trained, images, tmp_path, draw_classes):
    folder = shutil.copytree(trained("pretrain"), tmp_path / "run")
    fields = json.loads((folder / "config.json").read_text())
    fields["tasks"]["images"]["dataset"] = str(draw_classes(tmp_path / "other", 18, 8, seed=7))
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="was trained on other images than"):
        run_baselines(Baselines(folder))


@pytest.mark.full
def test_a_run_without_classes_has_no_such_file(trained, status, tmp_path):
    folder = trained("regression")
    assert not (Path(folder) / "classes.json").exists()
    assert status("evaluate", folder, "--out", tmp_path / "again.json") == 0
