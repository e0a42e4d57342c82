"""Files of MedMNIST in every form that it publishes, and what can't be used."""

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images.medmnist import medmnist
from jaxmeta.data.images.pixels import resized

COUNTS = {"train": 20, "val": 8, "test": 12}


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))


def arrays_of(side=28, depth=(), classes=4, seed=0):
    random, found = np.random.default_rng(seed), {}
    for part, count in COUNTS.items():
        found[f"{part}_images"] = random.integers(0, 256, (count, side, side, *depth), np.uint8)
        found[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return found


@pytest.fixture
def written(tmp_path):
    """`written(arrays)`: the path of a file with these arrays."""

    def write(arrays):
        path = tmp_path / "own.npz"
        np.savez_compressed(path, **arrays)
        return path

    return write


@pytest.mark.parametrize("depth", [(), (1,), (3,)])
def test_a_file_keeps_its_own_parts(depth, written):
    arrays = arrays_of(depth=depth)
    path = written(arrays)
    found = load(path)
    assert found.channels == (3 if depth == (3,) else 1)
    assert found.protocol["split"].startswith("by images")
    assert found.origin.startswith("file ") and str(path) not in found.origin
    for part, own in zip(COUNTS, (found.train, found.validation, found.test), strict=True):
        assert own.names == ("0", "1", "2", "3")
        order = np.argsort(arrays[f"{part}_labels"][:, 0], kind="stable")
        expected = arrays[f"{part}_images"].reshape(-1, 28, 28, found.channels)[order]
        np.testing.assert_array_equal(own.images, expected)


@pytest.mark.parametrize(("side", "default"), [(64, 64), (128, 84), (224, 84)])
def test_larger_images_are_resized_in_groups(side, default, written):
    arrays = arrays_of(side, (3,))
    arrays["train_images"] = np.repeat(arrays["train_images"], 14, axis=0)  # 280: two groups
    arrays["train_labels"] = np.repeat(arrays["train_labels"], 14, axis=0)
    path = written(arrays)
    found = medmnist(path)
    assert found.train.images.shape == (280, default, default, 3)
    order = np.argsort(arrays["train_labels"][:, 0], kind="stable")
    last = Image.fromarray(arrays["train_images"][order[-1]])
    expected = np.asarray(last.resize((default, default), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found.train.images[-1], expected)
    grey = medmnist(path, image_size=8, color=False)
    expected = np.asarray(last.convert("L").resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(grey.train.images[-1, :, :, 0], expected)


def test_classes_can_be_split_too(written):
    path = written(arrays_of(classes=8))
    found = load(str(path), split="4/2/2", seed=1)
    parts = [found.train, found.validation, found.test]
    assert sorted(name for part in parts for name in part.names) == [*"01234567"]
    assert sum(len(part.images) for part in parts) == sum(COUNTS.values())
    with pytest.raises(ValueError, match="the split 4/2/4 has 10 classes"):
        load(path, split="4/2/4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros((20, 14), np.uint8)}, "14 labels per image .multi-label"),
        ({"val_labels": None}, "it has no array val_labels; it must have train_images"),
        ({"test_images": None}, "it has no array test_images"),
        ({"test_images": np.zeros((12, 28, 28, 28), np.uint8)}, "which are volumes"),
        ({"test_images": np.zeros((12, 28, 30), np.uint8)}, "square images"),
        ({"test_images": np.zeros((11, 28, 28), np.uint8)}, "11 images, but test_labels 12"),
        ({"val_images": np.zeros((8, 64, 64), np.uint8)}, r"val_images has the shape \[8, 64, 64"),
        ({"train_images": np.zeros((20, 28, 28), np.float32)}, "float32; uint8 is required"),
        ({"train_labels": np.zeros((20, 1), np.float32)}, "whole numbers"),
        ({"train_labels": np.full((20, 1), -1)}, "labels from -1 to -1"),
        ({"train_labels": np.array([[None]] * 20)}, "whole numbers"),
    ],
)
def test_what_cannot_be_used(changes, message, written):
    arrays = {**arrays_of(), **changes}
    path = written({name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "own.npz can't be used as a MedMNIST file" in str(caught.value)


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="broken.npz can't be used"):
        load(path)
    with pytest.raises(OSError, match="No such file"):
        load(tmp_path / "absent.npz")


def test_channels_and_sizes_are_converted_by_one_rule():
    random = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
    assert resized(random, 6, color=True) is random
    luma = (random @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(resized(random, 6, color=False)[..., 0] - luma).max() <= 1
    grey = random[..., :1]
    np.testing.assert_array_equal(resized(grey, 6, color=True), grey.repeat(3, axis=3))
    assert resized(grey, 3, color=True).shape == (2, 3, 3, 3)
