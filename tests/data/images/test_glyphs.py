"""The embedded letters: whole glyphs, honest classes, one split each, the same every time."""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from jaxmeta.data import cache

module = importlib.import_module("jaxmeta.data.images.glyphs")
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    """The folder of the session's cache, or one of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        if "JAXMETA_CACHE_DIR" not in os.environ:
            patch.setenv("JAXMETA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield cache.cache_folder()


@pytest.fixture(scope="module")
def letters(cache_folder):
    return module.glyphs()


@pytest.fixture(scope="module")
def table():
    """All letters that enough faces have, and which faces those are."""
    return module._covered_letters()


def drawn(dataset):
    """Of each part: the letters that are drawn."""
    return {part: [name[-1] for name in getattr(dataset, part).names] for part in PARTS}


def test_there_are_enough_classes_of_twenty_images(letters):
    counts = {part: len(getattr(letters, part).names) for part in PARTS}
    assert counts["train"] >= 700
    assert counts["validation"] >= 100
    assert counts["test"] >= 150
    for part in PARTS:
        classes = getattr(letters, part)
        assert classes.images.dtype == np.uint8
        assert classes.images.shape == (20 * counts[part], 28, 28, 1)
        assert set(classes.counts.tolist()) == {20}


def test_a_class_belongs_to_one_split(letters):
    names = [name for part in PARTS for name in getattr(letters, part).names]
    assert len(names) == len(set(names))
    assert letters.train.names[0] == "latin/U+0041 A"


def test_some_scripts_are_met_at_test_alone(letters):
    scripts = {
        part: {name.split("/")[0] for name in getattr(letters, part).names} for part in PARTS
    }
    assert scripts["train"] == scripts["validation"] == {"latin", "greek"}
    assert scripts["test"] == {"cyrillic", "armenian", "georgian"}


@pytest.mark.parametrize(
    "group", ["AΑА", "ÐĐƉ", "OoΟοОоՕօ", "CcСс", "SsЅѕ", "Vv", "XxХх", "ZzΖ", "WwԜԝ", "KΚКк", "pр"]
)
def test_letters_that_look_alike_are_one_class(letters, group):
    """A class is drawn as its first letter; the others are in no split."""
    found = [letter for them in drawn(letters).values() for letter in them if letter in group]
    assert found == [group[0]]


def test_letters_that_differ_are_classes_of_their_own(letters):
    found = {letter for them in drawn(letters).values() for letter in them}
    assert found >= set("AaBbDdEeQqÀÁÂàáâÉéÖöÜüΔδЖДбფՊ")


def test_no_two_classes_look_alike(letters):
    """Compared by other means than the module's: Pillow's own fitting into a square."""
    every = [letter for them in drawn(letters).values() for letter in them]
    sans, serif = (
        module._fonts(96)[module.FACES.index(face)] for face in ("DejaVuSans", "DejaVuSerif")
    )
    for font in (sans, serif):
        bitmaps = []
        for letter in every:
            square = ImageOps.pad(module._ink(font, letter), (32, 32))
            bitmaps.append(np.asarray(square, np.float32).ravel())
        likeness = np.corrcoef(np.stack(bitmaps)) - np.eye(len(every))
        first, second = np.unravel_index(likeness.argmax(), likeness.shape)
        assert likeness.max() < 0.995, every[first] + every[second]


def test_no_image_is_empty_or_twice_there(letters):
    images = np.concatenate([getattr(letters, part).images for part in PARTS])
    assert images.max(axis=(1, 2, 3)).min() > 100  # ink
    assert images.mean(axis=(1, 2, 3)).max() < 128  # on paper
    assert len({image.tobytes() for image in images}) == len(images)


def test_no_letter_is_a_box_for_a_missing_one(table):
    covered_letters, covered = table
    for font, has in zip(module._fonts(24), covered, strict=True):
        box = module._ink(font, "\u0378").tobytes()  # no character has this code
        same = [
            letter
            for letter, yes in zip(covered_letters, has, strict=True)
            if yes and module._ink(font, letter).tobytes() == box
        ]
        assert not same


def test_no_glyph_is_cut_off(table):
    """The ink is what a canvas with room on every side shows."""
    covered_letters, covered = table
    size = 48
    for font, has in list(zip(module._fonts(size), covered, strict=True))[::3]:
        for index in np.flatnonzero(has)[::3]:
            canvas = Image.new("L", (4 * size, 4 * size))
            ImageDraw.Draw(canvas).text((size, size), covered_letters[index], 255, font)
            whole = canvas.crop(canvas.getbbox())
            assert module._ink(font, covered_letters[index]).size == whole.size


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(4, 90), height=st.integers(4, 90))
def test_changes_leave_all_ink_inside(seed, width, height):
    """A full box, the worst case, comes out the same where there is room all around it."""
    ink = Image.new("L", (width, height), 255)
    image = module._jitter(ink, 28, np.random.default_rng(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EXTENT", tuple(np.array(module.EXTENT) / 2))
        patch.setattr(module, "SHIFT", module.SHIFT / 2)
        roomy = module._jitter(ink, 56, np.random.default_rng(seed))
    assert roomy.sum(dtype=int) == roomy[14:42, 14:42].sum(dtype=int)
    np.testing.assert_allclose(roomy[14:42, 14:42], image, atol=1)
    longer = max(np.ptp(np.flatnonzero(image.max(axis=axis) > 127)) + 1 for axis in (0, 1))
    assert 17 <= longer <= 25


def test_the_same_seed_draws_the_same_and_another_does_not(letters, table):
    known, covered = table
    first = [known.index(letter) for letter in drawn(letters)["train"][:7]]
    again = [
        module._draw([known[i] for i in first], covered[:, first], 28, seed) for seed in (0, 1)
    ]
    cached = letters.train.images[: 7 * 20]  # the eighth class is the first that validates
    np.testing.assert_array_equal(again[0], cached)
    assert not (again[1] == cached).all(axis=(1, 2, 3)).any()


def test_a_damaged_cache_is_drawn_anew(letters, cache_folder, tmp_path, monkeypatch):
    (kept,) = cache_folder.glob("glyphs-28-0-*.npz")
    damaged = Path(shutil.copy(kept, tmp_path))
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with np.load(kept) as file:
        right = {name: file[name] for name in ("letters", "images")}
    drawings = []
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "_render", lambda *given: drawings.append(given) or right)
    with pytest.warns(UserWarning, match="damaged"):
        anew = module.glyphs()
    assert drawings == [(28, 0)]
    np.testing.assert_array_equal(anew.test.images, letters.test.images)
    module.glyphs()  # mended: no warning, nothing drawn
    assert len(drawings) == 1


def test_the_cache_knows_size_and_seed(tmp_path, monkeypatch):
    """A set of another size or seed, or from other fonts, is never read in place of this one."""
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        module,
        "_render",
        lambda size, seed: {
            "letters": np.array(["A", "Ж"]),
            "images": np.full((40, size, size, 1), seed, np.uint8),
        },
    )
    assert module.glyphs(image_size=8).train.images.shape == (20, 8, 8, 1)
    assert module.glyphs(image_size=9).train.images.shape == (20, 9, 9, 1)
    assert module.glyphs(image_size=9, seed=3).test.images.max() == 3
    monkeypatch.setattr(module, "FACES", module.FACES[:-1])
    module.glyphs(image_size=8)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_protocol_names_what_drew_the_letters(letters):
    assert letters.protocol.keys() >= {"split", "glyphs_seed", "matplotlib", "pillow", "freetype"}
    assert all(isinstance(value, str | int) for value in letters.protocol.values())


def test_the_letters_say_what_they_are(letters):
    assert letters.ink and letters.rotations == "none" and letters.channels == 1
    for part in (letters.train, letters.validation, letters.test):
        assert all(name.startswith(letters.groups[name] + "/") for name in part.names)
    assert {*letters.groups.values()} == {"latin", "greek", "cyrillic", "armenian", "georgian"}


def test_bad_input_is_told_in_plain_words(monkeypatch):
    with pytest.raises(ValueError, match="7 pixels is too small"):
        module.glyphs(image_size=7)
    monkeypatch.setattr(module, "FACES", ("DejaVuSans", "NoSuchFace"))
    with pytest.raises(FileNotFoundError, match="lacks NoSuchFace.ttf; reinstall matplotlib"):
        module.glyphs()
