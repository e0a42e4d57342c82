"""Grocery Store as its zip holds it."""

import collections
import csv
import os
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from jaxmeta.data import load
from jaxmeta.data.images.grocery import grocery

with_data = pytest.mark.skipif(
    "JAXMETA_DATA_DIR" not in os.environ, reason="JAXMETA_DATA_DIR is not set"
)


@pytest.mark.full
@with_data
def test_all_photographs_by_their_fine_classes():
    source = Path(os.environ["JAXMETA_DATA_DIR"]) / "grocery"
    with (source / "files.csv").open() as rows:
        names = [PurePosixPath(row["path"]).parent.name for row in csv.DictReader(rows)]
    counts = collections.Counter(names)

    dataset = load("grocery")
    assert dataset.protocol["split"] == "50/11/20"
    assert dataset.protocol["classes"] == {"train": 50, "validation": 11, "test": 20}
    for part in dataset[1:4]:
        assert part.images.shape[1:] == (84, 84, 3)
        assert part.counts.tolist() == [counts[name] for name in part.names]
    assert {name for part in dataset[1:4] for name in part.names} == counts.keys()
    assert load("grocery", seed=1).test.names != dataset.test.names


@pytest.mark.full
@with_data
def test_the_groups_are_the_published_coarse_classes():
    source = Path(os.environ["JAXMETA_DATA_DIR"]) / "grocery"
    with (source / "classes.csv").open() as rows:
        coarse = {
            row["Class Name (str)"]: row["Coarse Class Name (str)"] for row in csv.DictReader(rows)
        }
    dataset = load("grocery")
    assert dataset.groups == coarse
    assert (dataset.licence, dataset.ink, dataset.channels) == ("MIT", False, 3)


@pytest.mark.full
@with_data
def test_the_published_folders_may_lie_deeper(tmp_path):
    """As in a zip of the repository, whose iconic pictures are left out."""
    source = Path(os.environ["JAXMETA_DATA_DIR"]) / "grocery" / "grocery_84.zip"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "master.zip", "w") as new:
        for entry in old.namelist():
            new.writestr(f"GroceryStoreDataset-master/dataset/{entry}", old.read(entry))
        icon = "GroceryStoreDataset-master/dataset/iconic-images-and-descriptions/Fruit/Kiwi/a.jpg"
        new.writestr(icon, b"")
    deeper = grocery(data_dir=tmp_path)
    np.testing.assert_array_equal(deeper.validation.images, load("grocery").validation.images)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no zip of Grocery Store"):
        grocery(data_dir=tmp_path)
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
        archive.writestr("train/Fruit/Kiwi/Kiwi_001.jpg", b"")
    with pytest.raises(ValueError, match="1 photographs of 1 classes"):
        grocery(data_dir=tmp_path)
    (tmp_path / "part.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="not the complete Grocery Store"):
        grocery(data_dir=tmp_path)
