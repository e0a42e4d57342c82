"""Regular files alone are read, hidden ones left out, within limits; tables are written by one."""

import csv
import io
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta import files
from jaxmeta.data import reading
from jaxmeta.data.cache import fingerprint
from jaxmeta.data.images import pixels
from jaxmeta.data.images.folder import class_files, folder_images, image_files
from jaxmeta.data.images.grocery import _is_photograph
from jaxmeta.data.images.pixels import square
from jaxmeta.data.tables import read_numbers, write_table
from jaxmeta.models import unpack
from jaxmeta.recipes.results import read_per_task

STRANGE = ["[bold]b[.png", 'a "quoted" one.png', "two\nlines.png", "comma, :smile:.png"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))


def save(path, color="red", size=(6, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


@pytest.fixture
def fruit(tmp_path):
    for name in ("apple", "pear"):
        save(tmp_path / "fruit" / name / "0.png")
    return tmp_path / "fruit"


# --- what is left out ---------------------------------------------------------------------


def test_hidden_files_and_what_others_leave_behind_are_no_data(fruit):
    for name in ("._0.png", ".thumbs/0.png", "__MACOSX/0.png", "Thumbs.db", "@eaDir/0.png"):
        for folder in (fruit, fruit / "apple"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"no image")
    assert class_files(fruit) == {name: [fruit / name / "0.png"] for name in ("apple", "pear")}
    assert image_files(fruit) == [fruit / "apple" / "0.png", fruit / "pear" / "0.png"]
    assert folder_images(fruit, image_size=4).counts.tolist() == [1, 1]


def test_relative_paths_and_one_image(fruit, monkeypatch):
    monkeypatch.chdir(fruit.parent)
    assert image_files(Path("fruit")) == [Path("fruit/apple/0.png"), Path("fruit/pear/0.png")]
    assert image_files(Path("fruit/apple/0.png")) == [Path("fruit/apple/0.png")]


def test_a_zip_likewise(tmp_path):
    names = [f"{part}train/Fruit/Kiwi/{name}" for part in ("", "__MACOSX/") for name in "ab"]
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name in [*names, "train/Fruit/Kiwi/.", "train/Fruit/.kiwi/c"]:
            archive.writestr(f"{name}.jpg", name)
    found = reading.read_archive(tmp_path / "own.zip", _is_photograph)
    assert [str(name) for name in found] == [f"train/Fruit/Kiwi/{name}.jpg" for name in "ab"]


# --- regular files ------------------------------------------------------------------------


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


def folder(path):
    path.mkdir()


def unix_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # its path may be longer than a socket's may be
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize("make", [pipe, device, loop, folder, unix_socket])
def test_what_might_never_end_is_not_opened(make, fruit):
    path = fruit / "apple" / "1.png"
    make(path)
    for read in (
        reading.regular,
        lambda path: square(path, 4, color=True),
        lambda path: fingerprint([path]),
        lambda path: reading.read_archive(path, lambda name: True),
        read_numbers,
        lambda path: folder_images(fruit),
    ):
        with pytest.raises((ValueError, OSError)) as caught:
            read(path)
        assert "not a regular file" in str(caught.value) or "symbolic links" in str(caught.value)
    for read in (files.read_arrays, read_per_task):
        with pytest.raises((ValueError, OSError)):
            read(path)


def test_links_to_files_are_read_and_folders_are_not_met_twice(fruit):
    (fruit / "apple" / "1.png").symlink_to(fruit / "pear" / "0.png")
    (fruit / "apple" / "again").symlink_to(fruit)
    assert image_files(fruit) == [
        fruit / name for name in ("apple/0.png", "apple/1.png", "pear/0.png")
    ]
    (fruit / "plum").symlink_to(fruit / "pear")  # else one class is in two parts of a split
    with pytest.raises(ValueError, match="the classes pear and plum are links to one folder"):
        class_files(fruit)


# --- limits -------------------------------------------------------------------------------


def test_a_zip_beyond_the_limits_is_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            archive.writestr(name, bytes(1000))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *own: pytest.fail("it was unpacked"))
    monkeypatch.setattr(reading, "ARCHIVE_BYTES", 2999)
    with pytest.raises(ValueError, match="at most .* are supported"):
        reading.read_archive(tmp_path / "bomb.zip", lambda name: True)
    monkeypatch.setattr(reading, "ARCHIVE_ENTRIES", 2)
    with pytest.raises(ValueError, match="holds 3 files; at most 2 are"):
        reading.archive_names(tmp_path / "bomb.zip", lambda name: True)


def test_damaged_zips_are_told_in_words(tmp_path):
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content")
    whole = path.read_bytes()
    encrypted = whole[:6] + b"\1" + whole[7:]
    central = encrypted.index(b"PK\1\2")
    encrypted = encrypted[: central + 8] + b"\1" + encrypted[central + 9 :]
    for data in (b"", whole[:-9], whole.replace(b"content", b"cOntent"), encrypted):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"own\.zip (is not a zip|can't be unpacked)"):
            reading.read_archive(path, lambda name: True)


def test_arrays_beyond_the_limit_are_not_unpacked(tmp_path):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, zeros=np.zeros(10_000))
    assert files.read_arrays(path)["zeros"].size == 10_000
    with pytest.raises(ValueError, match="bytes of arrays, 5,000 are the most"):
        files.read_arrays(path, most=5000)


def test_arrays_are_never_objects(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, code=np.array([print], dtype=object))
    (tmp_path / "per_task.npz").write_bytes(buffer.getvalue())
    for read in (unpack, files.read_arrays):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            read(buffer.getvalue())
    with pytest.raises(ValueError, match="can't be read"):
        read_per_task(tmp_path / "per_task.npz")


def test_an_image_beyond_the_limits_is_not_decoded(tmp_path, monkeypatch):
    save(tmp_path / "large.png", size=(100, 60))
    monkeypatch.setattr(pixels, "MOST_PIXELS", 5999)
    with pytest.raises(ValueError, match="100x60 pixels; at most 5,999"):
        square(tmp_path / "large.png", 4, color=True)
    monkeypatch.setattr(pixels, "MOST_BYTES", 20)
    with pytest.raises(ValueError, match="bytes; at most 20"):
        square((tmp_path / "large.png").read_bytes(), 4, color=True)


def test_no_image_starts_a_program(tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    with pytest.raises(ValueError, match="cannot identify"):
        square(tmp_path / "0.png", 4, color=True)


# --- formats ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["webp", "gif", "bmp", "tif", "tiff", "jpg", "jpeg", "PNG"])
def test_formats_that_are_read(fruit, ending):
    save(fruit / "apple" / f"1.{ending}", "white")
    classes = folder_images(fruit, image_size=4)
    assert classes.counts.tolist() == [2, 1]
    assert classes.images[1].min() == 255


def test_others_are_named_as_skipped(fruit, capsys):
    for name in ("1.heic", "2.AVIF", "notes.txt"):
        (fruit / "apple" / name).write_bytes(b"")
    for read in (class_files, image_files):
        read(fruit)
        assert f"{fruit}: 2 images are skipped, such as 1.heic; only" in capsys.readouterr().err


# --- names --------------------------------------------------------------------------------


def test_a_table_holds_any_name_and_gives_it_back(tmp_path):
    path, bytes_name = tmp_path / "named.csv", os.fsdecode(b"caf\xe9.png")
    write_table(path, ["image", "probability"], [[name, 0.5] for name in [*STRANGE, bytes_name]])
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "probability"]
    assert [name for name, _ in rows] == [*STRANGE, "caf\\xe9.png"]


def test_a_message_is_one_line_of_text_whatever_a_name_holds(fruit):
    for name in [*STRANGE, os.fsdecode(b"caf\xe9.png"), "\x1b[31mred.png"]:
        path = fruit / "apple" / name
        path.write_bytes(b"no image")
        with pytest.raises(ValueError, match="not an image that can be read") as caught:
            folder_images(fruit)
        message = str(caught.value)
        assert message.isprintable() and message.encode()
        path.unlink()
