"""MedNIST from a zip or from folders, and CIFAR-10 as an image set."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.identity import Seen
from jaxmeta.data.images.dataset import classes_of, unseen
from jaxmeta.data.images.mednist import CLASSES, mednist


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def scans(tmp_path):
    """Folders of the six classes, 25 scans each; class and number are the shade."""
    for number, name in enumerate(CLASSES):
        folder = tmp_path / "scans" / "MedNIST" / name
        folder.mkdir(parents=True)
        for image in range(25):
            shade = 40 * number + image
            Image.new("L", (64, 64), shade).save(folder / f"{image:03}.png")
    return tmp_path / "scans"


def test_images_of_each_class_are_in_all_parts(scans, tmp_path):
    found = mednist(data_dir=scans)
    parts = (found.train, found.validation, found.test)
    for part, count in zip(parts, (16, 4, 5), strict=True):
        assert (part.names, part.counts.tolist()) == (CLASSES, [count] * 6)
        assert (part.images[:, 0, 0, 0] // 40).tolist() == np.repeat(np.arange(6), count).tolist()
    shades = np.concatenate([part.images[:, 0, 0, 0] for part in parts])
    assert len({*shades.tolist()}) == 150
    with zipfile.ZipFile(tmp_path / "mednist.zip", "w") as archive:
        for path in scans.rglob("*.png"):
            archive.write(path, path.relative_to(scans))
    of_zip = mednist(data_dir=tmp_path, image_size=8, color=True)
    assert of_zip.test.images.shape == (30, 8, 8, 3)
    np.testing.assert_array_equal(of_zip.test.images[:, 0, 0, 0], found.test.images[:, 0, 0, 0])
    assert mednist(data_dir=scans, split="2/2/2").protocol["split"] == "2/2/2"


def test_a_class_of_several_parts_is_one_class_of_an_evaluation(scans, monkeypatch):
    """A run on the split of classes, evaluated on the split of images."""
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(scans.parent))
    scans.rename(scans.parent / "mednist")
    run = load("mednist", split="2/2/2")
    known = tuple(classes_of(run, part) for part in ("train", "validation"))
    found = unseen(load("mednist"), Seen(run.protocol["images_sha256"], known))
    assert sorted(found.test.names) == sorted(run.test.names)
    assert found.test.counts.tolist() == [25, 25]
    number = [CLASSES.index(name) for name in found.test.names]
    shades = found.test.images[:, 0, 0, 0] // 40
    assert shades.tolist() == np.repeat(number, 25).tolist()
    assert "all classes but the 4 that were" in found.protocol["split"]


def test_what_is_missing_is_said(scans):
    for path in (scans / "MedNIST" / "Hand").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no images of Hand"):
        mednist(data_dir=scans)


@pytest.mark.full
def test_the_images_at_hand(data_dir):
    found = load("mednist")
    assert found.train.images.shape[1:] == (64, 64, 1)
    assert found.test.names == CLASSES
    assert (found.licence, found.ink) == ("CC BY-SA 4.0", False)


@pytest.mark.slow
def test_cifar10_has_its_published_test_images(data_dir):
    found = load("cifar10", image_size=28, color=False)
    assert found.test.images.shape == (10_000, 28, 28, 1)
    assert found.train.counts.tolist() == [4000] * 10
    assert found.validation.counts.tolist() == [1000] * 10
    assert load("cifar10", split="6/2/2").protocol["classes"]["test"] == 2
