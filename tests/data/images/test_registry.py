"""`load` finds a set by its exact name, and no other set."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import Dataset, class_images, image_source, load
from jaxmeta.data.images import registry


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    yield
    registry._SOURCES.pop("dots", None)


def make_folder(path):
    for index in range(6):
        file = path / str(index) / "0.png"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9), (index, 0, 0)).save(file)


@pytest.fixture
def omniglot_folder(tmp_path):
    make_folder(tmp_path / "omniglot")


def dots(*, image_size: int = 4, seed: int = 0) -> Dataset:
    images = np.full((4, image_size, image_size, 1), seed, np.uint8)
    part = class_images(images, np.arange(4) % 2, ("a", "b"))
    return Dataset("dots", part, part, part, {"split": "one"}, rotations="per-task", ink=True)


def test_a_path_is_a_folder_whatever_its_name(omniglot_folder, tmp_path, monkeypatch):
    for name in ("./omniglot", str(tmp_path / "omniglot"), "../" + tmp_path.name + "/omniglot"):
        assert load(name, image_size=9).protocol["classes"]["train"] == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/omniglot", image_size=9).name == "~/omniglot"


def test_a_path_object_is_a_folder_whatever_its_name(omniglot_folder, tmp_path):
    for path in (Path("omniglot"), tmp_path / "omniglot"):
        dataset = load(path, image_size=9)
        assert (dataset.channels, len(dataset.train.names)) == (3, 2)
        assert load(dataset.name, image_size=9).train.names == dataset.train.names
    with pytest.raises(FileNotFoundError, match="cifar100"):
        load(Path("cifar100"))


@pytest.mark.parametrize("name", ["~", "~nobody-of-this-name", "./omniglot/../nowhere"])
def test_a_path_that_leads_nowhere_is_told_in_one_line(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="give a folder that exists") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_class_is_known_by_the_set_and_not_by_how_it_was_written(omniglot_folder):
    names = ("./omniglot", Path("omniglot").resolve())
    (origin,) = {load(name, image_size=9).origin for name in names}
    assert "omniglot" not in origin
    image_source("dots")(dots)
    assert load("dots").origin == "dots"


def test_a_folder_needs_no_dot_where_no_set_is_called_so(tmp_path):
    make_folder(tmp_path / "photos" / "fruit")
    dataset = load("photos/fruit", image_size=9)
    assert (dataset.name, dataset.source, dataset.licence) == ("photos/fruit", "photos/fruit", None)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Omniglot", "omniglot"),
        ("omniglot ", "omniglot"),
        (" omniglot", "omniglot"),
        ("omniglot/", "omniglot"),
        ("omniglot:3.0.0", "omniglot"),
        ("omniglot/small1", "omniglot"),
        ("data/omniglot", "omniglot"),
        ("omniglots", "omniglot"),
        ("glyph", "glyphs"),
        ("GLYPHS", "glyphs"),
        ("glyphs:1.0.0", "glyphs"),
        ("grocery ", "grocery"),
        ("Grocery", "grocery"),
        ("mini-imagenet", "miniimagenet"),
        ("miniImageNet", "miniimagenet"),
        ("dataset", "nearest"),  # files beside those of the sets
        ("registry", "the sets of jaxmeta are"),
        ("digits", "the sets of jaxmeta are"),
        ("__init__", "nearest"),
        ("Cifar100", "cifar100"),
        ("CIFAR100", "cifar100"),
        ("cifar-100", "cifar100"),
        ("cifar_100", "cifar100"),
        ("cifar_100:", "cifar100"),
        ("cifar100:", "cifar100"),
        ("cifar100/", "cifar100"),
        ("cifar100:3.*.*", "cifar100"),
        ("cifar100/version=3.0.2", "cifar100"),
        ("kaggle:cifar100", "nearest"),
        ("huggingface:cifar100", "the sets of jaxmeta are"),
        ("data/cifar100", "cifar100"),
        ("cifar100\n", "cifar100"),
        ("cifar100/.", "cifar100"),
        ("cifar100/..", "cifar100"),
        ("cifar100:٣.0.2", "cifar100"),
        ("cifar100:3.0.2 ", "cifar100"),
        ("ｇlyphs", "glyphs"),
        ("omniglot\u200b", "omniglot"),
    ],
)
@pytest.mark.parametrize("folder_there", [False, True])
def test_a_near_miss_is_no_name(name, nearest, folder_there, tmp_path):
    if folder_there:  # as near: a folder by the right name
        make_folder(tmp_path / nearest.split()[-1])
    with pytest.raises(ValueError, match="unknown dataset") as caught:
        load(name)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("name", ["Omniglot", "omniglot ", "omniglot/", "omniglot/sub", "GLYPHS"])
def test_a_folder_called_nearly_like_a_set_is_asked_about(name, tmp_path):
    make_folder(tmp_path / name)
    with pytest.raises(ValueError, match=f"for the set, or './{name}' for the folder"):
        load(name)
    assert load(f"./{name}", image_size=9).protocol["classes"]["test"] == 2


def test_a_name_means_the_set_where_a_folder_is_called_so_too(omniglot_folder, tmp_path):
    with pytest.raises(ValueError, match="the splits vinyals, maml, background"):
        load("omniglot", split="1/1/1")
    make_folder(tmp_path / "cifar100")
    with pytest.raises(FileNotFoundError, match="cifar100 is not prepared"):
        load("cifar100")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("glyphs", {"split": "vinyals"}, "glyphs does not support split"),
        ("glyphs", {"color": True}, "glyphs does not support color"),
        ("omniglot", {"color": False}, "omniglot does not support color"),
        ("omniglot", {"split": "vinyal"}, "lake-small2, not 'vinyal'"),
        ("glyphs", {"image_size": 0}, "an image size of 0 pixels"),
        ("omniglot", {"rotations": "per_task"}, "unknown rotations 'per_task'"),
    ],
)
def test_arguments_that_a_set_does_not_have_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_rotations_are_the_sets_own_unless_told(omniglot_folder):
    image_source("dots")(dots)
    for name, own in (("./omniglot", "none"), ("dots", "per-task")):
        for asked, expected in ((None, own), ("as-classes", "as-classes")):
            dataset = load(name, rotations=asked)
            assert dataset.rotations == dataset.protocol["rotations"] == expected


def test_a_set_of_ones_own_is_found_by_its_name():
    assert image_source("dots")(dots) is dots
    dataset = load("dots", image_size=6, seed=3)
    assert dataset.train.images.shape == (4, 6, 6, 1) and dataset.train.images.max() == 3
    assert dataset.protocol["dataset"] == "dots" and dataset.protocol["ink"] is True
    with pytest.raises(ValueError, match="dots does not support split"):
        load("dots", split="1/1/1")
    with pytest.raises(ValueError, match="nearest: dots"):
        load("dot")
    image_source("dots")(dots)  # a cell run again


@pytest.mark.parametrize("name", ["", "Dots", "two words", "a/b", "a:b", "1st", "./dots", "dots\n"])
def test_a_name_that_could_be_a_path_or_misread_is_refused(name):
    with pytest.raises(ValueError, match="can't be the name of a set"):
        image_source(name)


def test_a_name_belongs_to_one_set():
    for name in ("omniglot", "grocery", "miniimagenet"):  # whether its file was imported or not
        with pytest.raises(ValueError, match=f"already the name of jaxmeta.data.images.{name}"):
            image_source(name)(dots)


@pytest.mark.full
def test_no_set_is_imported_before_it_is_asked_for():
    script = (
        "import sys\n"
        "from jaxmeta.data import load\n"
        "sets = ('glyphs', 'omniglot', 'grocery', 'miniimagenet', 'folder', 'tfds_images')\n"
        "here = lambda: [s for s in sets if f'jaxmeta.data.images.{s}' in sys.modules]\n"
        "assert not here(), here()\n"
        "try:\n"
        "    load('grocery')\n"
        "except FileNotFoundError:\n"
        "    pass\n"
        "assert here() == ['grocery'], here()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
