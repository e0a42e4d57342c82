"""A user's images are read as those of the data set that the run was trained on."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images.omniglot import _ink
from jaxmeta.data.scaling import scaled
from jaxmeta.recipes.images import Images, data_identity

OMNIGLOT = {"image_shape": [28, 28, 1], "ink": True}


@pytest.fixture(scope="module")
def characters(data_dir, tmp_path_factory) -> Path:
    """The drawings of three characters, as published: `FOLDER/0001/0001_01.png`, 105×105."""
    folder = tmp_path_factory.mktemp("characters")
    with zipfile.ZipFile(data_dir / "omniglot" / "images_background.zip") as archive:
        for entry in archive.namelist():
            file = Path(entry)
            if file.suffix == ".png" and file.name[:4] in ("0001", "0300", "0900"):
                place = folder / f"{file.parts[1]} {file.parts[2]}"
                place.mkdir(exist_ok=True)
                (place / file.name).write_bytes(archive.read(entry))
    return folder


def of_user(folder, dataset, data):
    """By class, the images that a user's folder gives, as support and as query."""
    given = Images(dataset=dataset).user_task(data, folder, folder, None)
    assert np.array_equal(given.support.inputs, given.inputs)
    assert given.truth == tuple(given.names[label] for label in given.support.targets)
    return {
        name: given.support.inputs[given.support.targets == label]
        for label, name in enumerate(given.names)
    }


def test_a_drawing_of_omniglot_is_what_the_set_decodes(characters):
    found = of_user(characters, "omniglot", OMNIGLOT)
    assert len(found) == 3
    for name, images in found.items():
        files = sorted((characters / name).iterdir())
        assert np.array_equal(images, scaled(np.stack([_ink(f.read_bytes(), 28) for f in files])))
        assert len(files) == 20 and 0.02 < images.mean() < 0.3
    # A bilinear filter, as for photographs, gives other images.
    other = of_user(characters, "./omniglot", OMNIGLOT)
    assert all(np.abs(other[name] - found[name]).max() > 0.1 for name in found)


@pytest.mark.full
def test_a_drawing_of_omniglot_is_what_a_run_is_trained_on(characters, omniglot_dir):
    """Exactly the arrays of the set, scaled as `episodes` scales them."""
    dataset = load("omniglot", split="lake")
    found = of_user(characters, "omniglot", data_identity(dataset))
    arrays = {
        name: part.images[start : start + 20]
        for part in (dataset.train, dataset.validation)
        for name, start in zip(part.names, part.starts)
    }
    for name, images in found.items():
        trained_on = scaled(arrays[name.replace(" ", "/")])
        # The set has the 20 drawings of a class in another order.
        assert sorted(map(bytes, images)) == sorted(map(bytes, trained_on))


def test_grey_scans_and_photographs(tmp_path):
    """Ink is read by its darkness; a set without ink is resized bilinearly, and not inverted."""
    rows = np.tile(np.array([0, 0, 128, 255], np.uint8), (4, 1))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(rows).save(tmp_path / name / "0.png")
    small = {"image_shape": [2, 2, 1], "ink": True}
    inked = of_user(tmp_path, "omniglot", small)["a"][0, 0, :, 0]
    assert inked == pytest.approx([1.0, (127 / 2) / 255], abs=1 / 255)  # means of two pixels
    plain = of_user(tmp_path, "photographs", {**small, "ink": False})["a"][0, 0, :, 0]
    assert plain[0] < 0.1 < 0.6 < plain[1] < 0.73  # of three
    given = Images(dataset="photographs").user_task(
        {**small, "ink": False}, tmp_path, tmp_path, True
    )
    assert given.inputs[0, 0, :, 0] == pytest.approx(1 - plain, abs=1 / 255)
