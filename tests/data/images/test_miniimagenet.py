"""miniImageNet in both layouts in circulation, drawn here with few tiny images of each class."""

import csv

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images import miniimagenet as module
from jaxmeta.data.images.miniimagenet import SPLITS, miniimagenet, split_synsets
from jaxmeta.data.stream import task_stream

IMAGES = 3
COLUMNS = ("filename", "label")
FILES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
TERMS = "non-commercial research.*may not be redistributed.*https://image-net.org/download"


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IMAGES", IMAGES)
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))


def names(synset):
    return [f"{synset}{number:08}.png" for number in range(IMAGES)]


def save(path, row, number, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (row, 50 * number, 200)).save(path)


def draw(place, split="ravi"):
    """The images, each at the path `place(part, synset, number)`; red is the row of the class."""
    for part, synsets in split_synsets(split).items():
        for row, synset in enumerate(synsets):
            for number, name in enumerate(names(synset)):
                save(place(part, synset, number) / name, row, number)


def class_folders(root, split="ravi"):
    """The last image of a class is in another part, as in a split for ordinary classification."""
    draw(lambda part, synset, number: root / ("val" if number == 2 else "train") / synset, split)
    return root


def part_folders(root):
    """A folder of classes for each part."""
    draw(lambda part, synset, number: root / FILES[part].removesuffix(".csv") / synset)
    return root


def lists(root, folder=lambda synset: ""):
    """The published lists, beside the folder `images`."""
    draw(lambda part, synset, number: root / "images" / folder(synset))
    for part, synsets in split_synsets("ravi").items():
        with (root / FILES[part]).open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            # in no order
            rows.writerows((name, each) for each in synsets for name in reversed(names(each)))
    return root


@pytest.fixture
def folders(tmp_path):
    return class_folders(tmp_path / "miniimagenet")


@pytest.fixture
def listed(tmp_path):
    return lists(tmp_path / "miniimagenet")


def test_a_folder_for_each_class(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    (folders / "train" / "n01532829" / "notes.txt").write_text("no image")
    save(folders / "train" / "n00000000" / "other.png", 0, 0)  # not one of the 100 classes
    dataset = load("miniimagenet", image_size=8)
    for part, synsets in split_synsets("ravi").items():
        classes = dataset.parts[part]
        assert classes.names == tuple(synsets)
        assert classes.counts.tolist() == [IMAGES] * len(synsets)
        assert classes.images.shape == (IMAGES * len(synsets), 8, 8, 3)
        for row, start in enumerate(classes.starts):
            pixels = classes.images[start : start + IMAGES, 0, 0].tolist()
            assert pixels == [[row, 50 * number, 200] for number in range(IMAGES)]


def test_what_the_set_says_of_itself(folders):
    dataset = miniimagenet(data_dir=folders)
    assert (dataset.rotations, dataset.ink, dataset.channels) == ("none", False, 3)
    assert "no redistribution" in str(dataset.licence)
    assert dataset.source == "https://image-net.org"
    assert dataset.protocol == {
        "split": "ravi",
        "split_seed": None,
        "resize": "largest centre square, bilinear with antialiasing (Pillow)",
    }
    assert dataset.train.images.shape[1:] == (84, 84, 3)  # drawn in 8x8
    assert miniimagenet(data_dir=folders, image_size=6, color=False).channels == 1


def test_every_layout_gives_the_same_images(folders, tmp_path):
    first = miniimagenet(data_dir=folders, image_size=8)
    for other in (
        part_folders(tmp_path / "parts"),
        lists(tmp_path / "flat"),
        lists(tmp_path / "nested", folder=lambda synset: synset),
    ):
        again = miniimagenet(data_dir=other, image_size=8)
        for part, classes in first.parts.items():
            assert again.parts[part].names == classes.names
            np.testing.assert_array_equal(again.parts[part].images, classes.images)


def test_the_lists_choose_the_images(listed):
    save(listed / "images" / "n0153282900000099.png", 0, 0)
    dataset = miniimagenet(data_dir=listed, image_size=8)
    assert dataset.train.counts.tolist() == [IMAGES] * 64


def test_the_images_are_decoded_once(folders, monkeypatch):
    before = miniimagenet(data_dir=folders, image_size=8)
    monkeypatch.setattr(module, "read_images", None)
    after = miniimagenet(data_dir=folders, image_size=8)
    np.testing.assert_array_equal(after.test.images, before.test.images)


def test_tasks_are_streamed(folders):
    dataset = miniimagenet(data_dir=folders, image_size=8)
    # Views of one array: copies would take gigabytes.
    assert dataset.train.images.base is dataset.test.images.base is not None
    task = task_stream(dataset.train, ways=5, shots=1, queries=2).tasks[0]
    assert task.query.inputs.shape == (10, 8, 8, 3)
    reds = task.query.inputs[:, 0, 0, 0].reshape(5, 2)
    assert (reds[:, 0] == reds[:, 1]).all() and len({*reds[:, 0].tolist()}) == 5


def test_the_published_class_lists():
    sizes = {"ravi": [64, 16, 20], "vinyals": [60, 20, 20]}
    every = {}
    for split in SPLITS:
        parts = split_synsets(split)
        assert [len(part) for part in parts.values()] == sizes[split]
        every[split] = {synset for part in parts.values() for synset in part}
        assert len(every[split]) == 100  # no class in two parts
    assert len(every["ravi"] & every["vinyals"]) == 6
    assert split_synsets("ravi")["test"][0] == "n01930112"
    assert split_synsets("vinyals")["test"][-1] == "n12768682"


def test_both_splits_may_share_a_folder(folders, tmp_path):
    # With one file name per class and number, the six common classes have the same images.
    class_folders(folders, "vinyals")
    for split in SPLITS:
        dataset = miniimagenet(split=split, data_dir=folders, image_size=8)
        assert dataset.test.names == tuple(split_synsets(split)["test"])
    with pytest.raises(ValueError, match="splits ravi and vinyals, not '64/16/20'"):
        miniimagenet(split="64/16/20")


def test_an_empty_folder_says_where_to_get_the_images_and_their_terms(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no images of miniImageNet.*{TERMS}"):
            miniimagenet(data_dir=folder)
    (tmp_path / "images").mkdir()  # without lists
    with pytest.raises(FileNotFoundError, match="train.csv, val.csv, test.csv beside a folder"):
        miniimagenet(data_dir=tmp_path)


def test_incomplete_folders_are_refused(folders):
    with pytest.raises(ValueError, match=f"9. of the 100 classes .* give split='ravi'. .*{TERMS}"):
        miniimagenet(split="vinyals", data_dir=folders)
    (folders / "train" / "n01532829" / names("n01532829")[0]).unlink()
    save(folders / "val" / "n13133613" / "one-more.png", 0, 0)
    message = "2 of the 100 classes have another number of images than 3, such as n01532829 with 2"
    with pytest.raises(ValueError, match=f"{message}; .*{TERMS}"):
        miniimagenet(data_dir=folders)
    for part in ("train", "val"):
        for file in (folders / part / "n01930112").iterdir():
            file.unlink()
    with pytest.raises(ValueError, match="1 of the 100 classes .* missing, such as n01930112; The"):
        miniimagenet(data_dir=folders)


def test_incomplete_lists_are_refused(listed):
    (listed / "images" / names("n01532829")[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of the 300 images .*00001.png. .*{TERMS}"):
        miniimagenet(data_dir=listed)
    (listed / "val.csv").unlink()
    with pytest.raises(FileNotFoundError, match="val.csv missing; get it from https://github.com"):
        miniimagenet(data_dir=listed)


@pytest.mark.parametrize("row", ["one", "a.jpg,bird", "../a.jpg,n01532829", ",n01532829", "a,b,c"])
def test_a_damaged_list_is_refused(row, listed):
    with (listed / "val.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match="val.csv, row 50: .* is not the name of a file and a cl"):
        miniimagenet(data_dir=listed)


def test_a_broken_image_is_named(folders):
    broken = folders / "val" / "n01532829" / names("n01532829")[2]
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"{broken.name} is not an image that can be read"):
        miniimagenet(data_dir=folders, image_size=8)
