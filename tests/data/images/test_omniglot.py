"""Omniglot, prepared and read without TensorFlow."""

import functools
import hashlib
import http.server
import io
import os
import shutil
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import episodes, load
from jaxmeta.data._episodes import Rotations, drawn_classes
from jaxmeta.data.images.omniglot import (
    SPLITS,
    _ink,
    background_split,
    lake_split,
    omniglot,
    prepare_omniglot,
    vinyals_split,
)

ZIPS = (
    "images_background.zip",
    "images_evaluation.zip",
    "images_background_small1.zip",
    "images_background_small2.zip",
)

needs_zips = pytest.mark.skipif(
    "JAXMETA_DATA_DIR" not in os.environ, reason="JAXMETA_DATA_DIR is not set"
)
needs_prepared = pytest.mark.skipif(
    "TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set"
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMETA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("no_proxy", "*")
        patch.delenv("JAXMETA_OMNIGLOT_SOURCE", raising=False)
        yield


@pytest.fixture(autouse=True)
def quiet():
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()


def png(picture):
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def checksums(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ZIPS}


@pytest.fixture(scope="module")
def small_zips(tmp_path_factory):
    """The four zips with Omniglot's alphabets and characters, but one drawing of each.

    Its pixels are the number of the file in binary, ink for 1.
    """
    folder = tmp_path_factory.mktemp("zips")
    train, validation, test = vinyals_split()
    names = sorted(train + validation + test)
    parts = {
        "images_background.zip": range(964),
        "images_evaluation.zip": range(964, 1623),
        "images_background_small1.zip": range(3),
        "images_background_small2.zip": range(3, 6),
    }
    for file, labels in parts.items():
        with zipfile.ZipFile(folder / file, "w") as archive:
            archive.writestr("__MACOSX/.DS_Store", "no drawing")
            for label in labels:
                bits = np.array([label >> bit & 1 for bit in range(16)], bool)
                drawing = np.repeat(~bits, 690)[: 105 * 105 - 1]
                drawing = np.append(drawing, np.ones(105 * 105 - len(drawing), bool))
                path = f"{file.removesuffix('.zip')}/{names[label]}/{label + 1:04d}_07.png"
                archive.writestr(path, png(Image.fromarray(drawing.reshape(105, 105))))
    return folder, names


def drawings(prepared, split):
    import tensorflow_datasets as tfds

    builder = cast(Any, tfds.builder_from_directory(prepared))
    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.info.features, builder.as_data_source(split=split, decoders=decoders)


@pytest.fixture(scope="module")
def small_set(small_zips, tmp_path_factory):
    folder, _ = small_zips
    root = tmp_path_factory.mktemp("small")
    return prepare_omniglot(root, source=str(folder), checksums=checksums(folder))


def test_a_prepared_set_holds_every_drawing_with_its_labels(small_zips, small_set):
    folder, names = small_zips
    for split, file, total in (
        ("train", ZIPS[0], 964),
        ("test", ZIPS[1], 659),
        ("small1", ZIPS[2], 3),
        ("small2", ZIPS[3], 3),
    ):
        features, records = drawings(small_set, split)
        assert len(records) == total
        with zipfile.ZipFile(folder / file) as archive:
            for record in records:
                label = int(record["label"])
                alphabet, character = names[label].split("/")
                assert features["alphabet"].int2str(int(record["alphabet"])) == alphabet
                assert int(record["alphabet_char_id"]) == int(character[-2:]) - 1
                path = f"{file.removesuffix('.zip')}/{names[label]}/{label + 1:04d}_07.png"
                assert record["image"] == archive.read(path)
    assert "tensorflow" not in sys.modules


def test_a_download_that_was_interrupted_goes_on(small_zips, tmp_path):
    source, _ = small_zips
    served = tmp_path / "served"
    shutil.copytree(source, served)
    (served / ZIPS[1]).unlink()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code=None, size=None):
            asked.append(self.path.strip("/"))

    handler = functools.partial(Handler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{service.server_port}/"
        root = tmp_path / "tfds"
        with pytest.raises(OSError, match=f"can't download {url}{ZIPS[1]}"):
            prepare_omniglot(root, source=url, checksums=checksums(source))
        assert not (root / "omniglot" / "3.0.0").exists()
        shutil.copy(source / ZIPS[1], served)
        prepared = prepare_omniglot(root, source=url, checksums=checksums(source))
        service.shutdown()
        thread.join()
    assert sorted(asked) == sorted([*ZIPS, ZIPS[1]])
    assert len(drawings(prepared, "train+test")[1]) == 1623


def test_other_zips_than_the_public_ones_are_refused(small_zips, tmp_path, monkeypatch):
    source, _ = small_zips
    monkeypatch.setenv("JAXMETA_OMNIGLOT_SOURCE", str(source))
    public = "[0-9a-f]{64}"
    with pytest.raises(ValueError, match=f"sha256 is {public}, not {public}; run again"):
        omniglot(data_dir=tmp_path)
    assert not (tmp_path / "omniglot" / "3.0.0").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="set TFDS_DATA_DIR to a folder that can be written"):
        omniglot(data_dir=tmp_path / "file")


def test_a_set_with_too_few_drawings_is_refused(small_set):
    with pytest.raises(ValueError, match="not 20 drawings of each of the 1623 characters"):
        omniglot(data_dir=small_set.parent.parent)


@pytest.mark.parametrize(
    "damage", ["dataset_info.json", "features.json", "label.labels.txt", "train", "test", "all"]
)
def test_a_damaged_set_is_named_with_the_remedy(small_set, tmp_path, damage):
    prepared = tmp_path / "omniglot" / "3.0.0"
    shutil.copytree(small_set, prepared)
    for file in prepared.iterdir():
        if damage == "all" or file.name == damage:
            file.unlink()
        elif f"-{damage}." in file.name:
            whole = file.read_bytes()
            file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="remove the folder and prepare it again") as caught:
        omniglot(data_dir=tmp_path)
    assert str(prepared) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ink_is_255_whatever_the_depth_of_the_file():
    rng = np.random.default_rng(0)
    paper = rng.random((105, 105)) > 0.1
    for picture in (
        Image.fromarray(paper),
        Image.fromarray(255 * paper.astype(np.uint8)),
        Image.fromarray(paper).convert("RGB"),
    ):
        assert np.array_equal(_ink(png(picture), 105)[..., 0], np.where(paper, 0, 255))
    ink = _ink(png(Image.fromarray(paper)), 28)
    assert ink.shape == (28, 28, 1)
    assert abs(ink.mean() / 255 - (~paper).mean()) < 0.002
    # 105 = 35 * 3: there, a box filter is the mean of each 3x3 block
    blocks = (~paper).reshape(35, 3, 35, 3).mean(axis=(1, 3))
    assert np.abs(_ink(png(Image.fromarray(paper)), 35)[..., 0] - 255 * blocks).max() < 1


@needs_zips
def test_the_split_is_the_published_list():
    folder = Path(os.environ["JAXMETA_DATA_DIR"]) / "omniglot" / "splits_vinyals"
    for names, file in zip(vinyals_split(), ("train", "val", "test"), strict=True):
        listed = (folder / f"{file}.txt").read_text().split()
        assert [f"{name}/rot{turn:03d}" for name in names for turn in (0, 90, 180, 270)] == listed


@needs_zips
@needs_prepared
@pytest.mark.slow
def test_prepared_from_the_real_zips_it_equals_tfds_own_record_for_record(tmp_path):
    source = Path(os.environ["JAXMETA_DATA_DIR"]) / "omniglot"
    prepared = prepare_omniglot(tmp_path, source=source.as_uri(), checksums=checksums(source))
    original = Path(os.environ["TFDS_DATA_DIR"]) / "omniglot" / "3.0.0"
    for file in ("alphabet.labels.txt", "label.labels.txt", "features.json"):
        assert (prepared / file).read_bytes() == (original / file).read_bytes()
    for split, total in {"train": 19280, "test": 13180, "small1": 2720, "small2": 3120}.items():
        records, originals = drawings(prepared, split)[1], drawings(original, split)[1]
        assert len(records) == len(originals) == total
        assert all(map(dict.__eq__, records, originals))


@pytest.fixture(scope="module")
def real(cache):
    return load("omniglot")


@pytest.mark.full
@needs_prepared
def test_the_real_set_in_the_published_split(real):
    for part, names, total in zip(real[1:4], vinyals_split(), (1028, 172, 423), strict=True):
        assert part.names == tuple(names)
        assert len(names) == total
        assert part.counts.tolist() == [20] * total
        assert part.images.shape == (20 * total, 28, 28, 1)
        assert part.images.dtype == np.uint8
    assert real.protocol | {"images_sha256": ""} == {
        "dataset": "omniglot",
        "tfds": "omniglot:3.0.0",
        "split": "vinyals",
        "split_seed": None,
        "rotations": "as-classes",
        "ink": True,
        "image_size": 28,
        "channels": 1,
        "resize": "ink = (pixel == 0), box filter from 105x105 (Pillow)",
        "classes": {"train": 1028, "validation": 172, "test": 423},
        "images_sha256": "",
    }
    assert real.rotations == "as-classes" and real.ink and real.channels == 1
    assert real.licence == "MIT"
    assert len(real.groups) == 1623 and len({*real.groups.values()}) == 50
    assert real.groups["Angelic/character01"] == "Angelic"


@pytest.mark.full
@needs_zips
@needs_prepared
@pytest.mark.parametrize("file", ZIPS[:2])
def test_a_class_holds_the_drawings_of_its_folder(real, file):
    parts = {name: part for part in real[1:4] for name in part.names}
    with zipfile.ZipFile(Path(os.environ["JAXMETA_DATA_DIR"]) / "omniglot" / file) as archive:
        entries = [name for name in archive.namelist() if name.endswith(".png")]
        for first in (0, 4000, 12980):
            _, alphabet, character, _ = entries[first].split("/")
            name = f"{alphabet}/{character}"
            part = parts[name]
            start = part.starts[part.names.index(name)]
            expected = [
                _ink(archive.read(entry), 28).tobytes() for entry in entries if f"/{name}/" in entry
            ]
            found = [image.tobytes() for image in part.images[start : start + 20]]
            assert sorted(found) == sorted(expected)


TURNS: dict[Rotations, int] = {"none": 1, "as-classes": 4}
LAKE = [split for split in SPLITS if split.startswith("lake")]


def alphabets_of(names):
    return {name.split("/")[0] for name in names}


@pytest.mark.parametrize(("split", "alphabets"), [*zip(LAKE, (30, 5, 5), strict=True)])
def test_the_parts_of_a_lake_split_share_no_alphabet(split, alphabets):
    parts = [*map(alphabets_of, lake_split(split))]
    assert [*map(len, parts)] == [alphabets * 4 // 5, alphabets // 5, 20]
    assert len(set.union(*parts)) == alphabets + 20
    assert parts[2] == alphabets_of(lake_split()[2])
    # Validation has 20-way tasks within an alphabet.
    names = lake_split(split)[1]
    assert max(sum(name.startswith(f"{own}/") for name in names) for own in parts[1]) >= 20


def test_the_split_background_trains_on_all_of_the_background_set():
    train, validation, test = background_split()
    background, validated, evaluated = lake_split()
    assert {*train} == {*background, *validated}
    assert {*validation, *test} == {*evaluated}
    assert not alphabets_of(validation) & alphabets_of(test)
    assert (len(alphabets_of(validation)), len(alphabets_of(test))) == (7, 13)


@needs_zips
@pytest.mark.parametrize(("split", "file"), [*zip(LAKE, (ZIPS[0], *ZIPS[2:]), strict=True)])
def test_a_lake_split_has_the_characters_of_the_published_sets(split, file):
    folder = Path(os.environ["JAXMETA_DATA_DIR"]) / "omniglot"

    def characters(file):
        with zipfile.ZipFile(folder / file) as archive:
            entries = [name.split("/") for name in archive.namelist() if name.endswith(".png")]
        return {f"{alphabet}/{character}" for _, alphabet, character, _ in entries}

    train, validation, test = lake_split(split)
    assert {*train, *validation} == characters(file)
    assert {*test} == characters(ZIPS[1])
    assert len(train) + len(validation) == len({*train, *validation})


@pytest.mark.full
@needs_prepared
@pytest.mark.parametrize("split", LAKE)
def test_every_task_within_a_group_is_of_one_alphabet(real, split):
    dataset = load("omniglot", split=split)
    assert dataset.protocol["split"] == split
    assert "first of every 5 alphabets" in dataset.protocol["validation"]
    for names, classes in zip(lake_split(split), dataset[1:4], strict=True):
        assert classes.names == tuple(names)
        assert classes.counts.tolist() == [20] * len(names)
        assert dataset.groups is not None
        for rotations, turns in TURNS.items():
            sample = episodes(
                classes, ways=20, shots=1, queries=1, rotations=rotations, groups=dataset.groups
            )
            keys = jax.random.split(jax.random.key(0), 100)
            drawn = np.asarray(
                jax.vmap(lambda key, sample=sample: drawn_classes(sample, key))(keys)
            )
            for task in drawn:
                assert len({*task}) == 20
                assert len(alphabets_of(names[index // turns] for index in task)) == 1


@pytest.mark.full
@needs_prepared
def test_the_random_split_follows_its_seed(real):
    first, again, other = (load("omniglot", split="maml", seed=seed) for seed in (1, 1, 2))
    assert [len(part.names) for part in first[1:4]] == [1100, 100, 423]
    names = sum((part.names for part in first[1:4]), ())
    assert len(set(names)) == 1623
    assert [part.names for part in first[1:4]] == [part.names for part in again[1:4]]
    assert first.test.names != other.test.names
    assert (first.protocol["split_seed"], other.protocol["split_seed"]) == (1, 2)
    assert first.protocol["images_sha256"] != other.protocol["images_sha256"]


@pytest.mark.full
@needs_prepared
def test_a_second_reading_needs_the_cache_alone(real, monkeypatch):
    import tensorflow_datasets as tfds

    def not_again(*_, **__):
        raise AssertionError("the drawings were decoded already")

    monkeypatch.setattr(tfds, "builder_from_directory", not_again)
    assert np.array_equal(load("omniglot").test.images, real.test.images)
