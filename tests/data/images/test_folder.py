"""Any folder of images."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images.folder import folder, folder_images, image_files, read_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))


def save(path, color, size=(12, 12), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def shades(tmp_path):
    """Ten classes of one to three images; the red of class n is 20 n, the green counts images."""
    for index in range(10):
        for image in range(1 + index % 3):
            save(tmp_path / "shades" / f"class-{index}" / f"{image}.png", (20 * index, image, 0))
    return tmp_path / "shades"


def test_every_image_is_found_in_its_class(shades):
    save(shades / "class-0" / "extra.JPG", "white")
    save(shades / "class-0" / "extra.jpeg", "white")
    (shades / "class-0" / "notes.txt").write_text("no image")
    (shades / "README.md").write_text("no class")
    (shades / ".hidden").mkdir()
    classes = folder_images(shades, image_size=8)
    assert classes.names == tuple(f"class-{index}" for index in range(10))
    assert classes.counts.tolist() == [3, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    assert classes.images.shape == (21, 8, 8, 3)
    for index in range(1, 10):
        start, count = classes.starts[index], classes.counts[index]
        pixels = classes.images[start : start + count, 4, 4]
        assert pixels.tolist() == [[20 * index, image, 0] for image in range(count)]


def test_parts_share_no_class_and_the_seed_deals_them(shades):
    parts = load(str(shades))
    names = [part.names for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in names] == [6, 2, 2]
    assert sorted(sum(names, ())) == [f"class-{index}" for index in range(10)]
    assert load(str(shades)).test.names == parts.test.names
    assert len({load(str(shades), seed=seed).test.names for seed in range(6)}) > 1
    assert len(load(str(shades), split="4/3/3").test.names) == 3


def test_the_protocol_says_what_was_read(shades):
    protocol = load(str(shades), image_size=8, split="4/3/3", seed=5).protocol
    sha256 = protocol.pop("images_sha256")
    assert protocol == {
        "dataset": str(shades),
        "split": "4/3/3",
        "split_seed": 5,
        "rotations": "none",
        "ink": False,
        "image_size": 8,
        "channels": 3,
        "resize": "largest centre square, bilinear with antialiasing (Pillow)",
        "classes": {"train": 4, "validation": 3, "test": 3},
    }
    assert len(sha256) == 64
    assert (
        load(str(shades), image_size=8, split="4/3/3", seed=6).protocol["images_sha256"] != sha256
    )


def test_a_changed_image_is_read_anew(shades):
    before = folder_images(shades, image_size=8)
    save(shades / "class-3" / "0.png", (1, 2, 3))
    os.utime(shades / "class-3" / "0.png", ns=(1, 1))
    changed = folder_images(shades, image_size=8)
    assert changed.images[changed.starts[3], 0, 0].tolist() == [1, 2, 3]
    assert before.images[before.starts[3], 0, 0].tolist() == [60, 0, 0]


def test_colour_follows_the_images_unless_told(tmp_path):
    greys = tmp_path / "greys"
    for index in range(6):
        save(greys / str(index) / "0.png", 9, mode="L")
    assert folder(greys, image_size=8).train.images.shape == (2, 8, 8, 1)
    assert folder(greys, image_size=8, color=True).train.images.shape == (2, 8, 8, 3)
    save(greys / "5" / "0.png", "red")
    assert folder(greys, image_size=8).train.images.shape == (2, 8, 8, 3)
    assert folder(greys, image_size=8, color=False).train.images.shape == (2, 8, 8, 1)


def refused(path, kind, *parts, **options):
    with pytest.raises(kind) as caught:
        load(str(path), **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def test_folders_that_cannot_be_used_are_told_in_one_line(tmp_path, shades):
    refused(tmp_path / "nowhere", FileNotFoundError, tmp_path / "nowhere", "give a folder")
    refused(shades / "class-0" / "0.png", NotADirectoryError, "0.png", "give a folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, ValueError, empty, "holds no class", "*.png")
    (empty / "class").mkdir()
    refused(empty, ValueError, empty / "class", "holds no image")
    save(empty / "class" / "0.png", "red")
    refused(empty, ValueError, empty, "holds one class, class")
    save(empty / "other" / "0.png", "red")
    refused(empty, ValueError, empty, "2 classes are too few")
    refused(shades, ValueError, shades, "has 12 classes, but there are 10", split="4/4/4")


def test_a_folder_that_fails_keeps_the_kind_of_error(shades, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", forbidden)
    refused(shades, PermissionError, shades, "Permission denied", "can be read")


@pytest.mark.parametrize("image", ["0.png", "1.png"])
@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped"])
def test_a_broken_image_is_named(shades, damage, image):
    path = shades / "class-5" / image
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "text": b"no image",
            "empty": b"",
            "cut": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        }[damage]
    )
    refused(shades, ValueError, path, "replace or remove it")


def test_images_without_a_class_can_be_read_too(shades):
    files = image_files(shades / "class-5")
    images = read_images(files, image_size=8, color=True)
    assert images[:, 0, 0].tolist() == [[100, 0, 0], [100, 1, 0], [100, 2, 0]]


def test_a_path_object_is_a_folder_whatever_its_name(shades, monkeypatch):
    assert load(shades, image_size=8).train.names == load(str(shades), image_size=8).train.names
    shades.rename(shades.parent / "omniglot")
    monkeypatch.chdir(shades.parent)
    assert load(Path("omniglot"), image_size=8).protocol["dataset"] == "./omniglot"
    with pytest.raises(OSError, match="can't read the folder"):
        load(Path("glyphs"))
