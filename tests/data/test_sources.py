"""`load` finds the source of a name."""

import pytest
from PIL import Image

from jaxmeta.data import load


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def omniglot_folder(tmp_path):
    for index in range(6):
        path = tmp_path / "omniglot" / str(index) / "0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9), (index, 0, 0)).save(path)


def test_a_path_is_a_folder_whatever_its_name(omniglot_folder, tmp_path, monkeypatch):
    for name in ("./omniglot", str(tmp_path / "omniglot"), "../" + tmp_path.name + "/omniglot"):
        assert load(name, image_size=9).protocol["classes"]["train"] == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/omniglot", image_size=9).name == "~/omniglot"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("glyphs", {"split": "vinyals"}, "glyphs has one split alone"),
        ("glyphs", {"color": True}, "glyphs has one color alone"),
        ("omniglot", {"color": False}, "omniglot has one color alone"),
        ("omniglot", {"split": "vinyal"}, "the splits vinyals and maml, not 'vinyal'"),
        ("glyphs", {"image_size": 0}, "an image size of 0 pixels"),
        ("omniglot", {"rotations": "per_task"}, "unknown rotations 'per_task'"),
    ],
)
def test_arguments_that_a_set_does_not_have_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_rotations_are_recorded(omniglot_folder):
    assert load("./omniglot").protocol["rotations"] == "none"
    assert load("./omniglot", rotations="per-task").protocol["rotations"] == "per-task"
