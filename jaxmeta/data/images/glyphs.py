"""The built-in image set: letters of five scripts, drawn from the fonts that matplotlib ships.

Each class is a letter, drawn in ten or more typefaces, each image slightly rotated, slanted,
stretched, scaled and shifted. No download is needed.
"""

import hashlib
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.classes import class_images, select
from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.pixels import check_fits
from jaxmeta.data.images.registry import image_source
from jaxmeta.extras import extra

if TYPE_CHECKING:  # Pillow is loaded only when letters are drawn
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

# The fonts for text. The other fonts of matplotlib are for mathematics, with their own encodings,
# or draw every letter alike (LastResort).
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
FEWEST_FACES = 10  # letters in fewer faces are left out
IMAGES = 20  # per class
_LEAST_IMAGES = 1000 * IMAGES  # in total, to estimate the memory

TRAIN_SCRIPTS = ("LATIN", "GREEK")
TEST_SCRIPTS = ("CYRILLIC", "ARMENIAN", "GEORGIAN")
VALIDATION_EVERY = 8  # every eighth class of the training scripts is a validation class

# Letters are one class if their bitmaps, each scaled to fill the same square, correlate by more
# than LOOK_ALIKE. The threshold for upper case, lower case and small capitals of one letter (O, o)
# is CASES_ALIKE: they often differ only in stroke width, as bold and regular faces do.
LOOK_ALIKE = 0.99
CASES_ALIKE = 0.9
COMPARED = 32  # pixels, the side of that square

# Ranges of the distortions, each drawn uniformly; lengths are fractions of the image's side.
TURN = 10.0  # degrees, either way
SLANT = 0.15  # horizontal shear, either way
STRETCH = 1.12  # largest ratio by which width is stretched against height, or the reverse
EXTENT = (18 / 28, 24 / 28)  # the longer side of the box around the letter
SHIFT = 2 / 28  # either way, on both axes; no letter leaves the image

OVERSAMPLING = 3  # letters are drawn this many times larger, then averaged down


@image_source("glyphs", resampling="box")
def glyphs(*, image_size: int = 28, seed: int = 0) -> Dataset:
    """Letters in many typefaces: about 1070 classes of 20 images, ink 255 on paper 0.

    Latin and Greek letters are for training, every eighth of their classes for validation;
    Cyrillic, Armenian and Georgian letters are for test. Letters that look alike (Latin A, Greek
    Α, Cyrillic А) form one class, drawn as the letter with the lowest code point. A letter with
    and without an accent are two classes, which makes some tasks hard. The images are drawn once,
    in a few seconds, and then read from the cache.

    Args:
      image_size: pixels, the side of the square images `[image_size, image_size, 1]`.
      seed: of the random distortions; classes and splits don't depend on it.

    Raises:
      ValueError: the image size is below 8, or the images would exceed the machine's memory.
      FileNotFoundError: fonts are missing from the matplotlib installation.

    >>> letters = glyphs()
    >>> letters.train.images.shape[1:], letters.train.names[0], set(letters.test.counts.tolist())
    ((28, 28, 1), 'latin/U+0041 A', {20})
    """
    if image_size < 8:
        raise ValueError(
            f"an image size of {image_size} pixels is too small for letters; give 8 or more"
        )
    check_fits((_LEAST_IMAGES, image_size, image_size, 1))
    made_with = _versions()
    identity = hashlib.sha256(repr(sorted(made_with.items())).encode())
    for source in (Path(__file__), *_font_files()):
        identity.update(source.read_bytes())
    arrays = cached_arrays(
        f"glyphs-{image_size}-{seed}-{identity.hexdigest()[:16]}",
        lambda: _render(image_size, seed),
    )

    letters = arrays["letters"].tolist()
    every = class_images(
        arrays["images"],
        np.repeat(np.arange(len(letters)), IMAGES),
        [f"{_script(letter).lower()}/U+{ord(letter):04X} {letter}" for letter in letters],
    )
    known = np.flatnonzero([_script(letter) in TRAIN_SCRIPTS for letter in letters])
    validation = known[VALIDATION_EVERY - 1 :: VALIDATION_EVERY]
    protocol: dict[str, Any] = {
        "split": (
            f"by script: {', '.join(TRAIN_SCRIPTS)} train, every {VALIDATION_EVERY}th of their "
            f"classes validates; {', '.join(TEST_SCRIPTS)} test"
        ),
        "images_per_class": IMAGES,
        "glyphs_seed": seed,
        **made_with,
    }
    return Dataset(
        "glyphs",
        select(every, np.setdiff1d(known, validation)),
        select(every, validation),
        select(every, np.setdiff1d(np.arange(len(letters)), known)),
        protocol,
        ink=True,
        groups={name: name.split("/")[0] for name in every.names},  # scripts
        licence="of the fonts: Bitstream Vera (DejaVu), SIL OFL 1.1 (STIX)",
        source="https://matplotlib.org",
    )


def _versions() -> dict[str, str]:
    with extra("data"):
        import matplotlib
        import PIL
        from PIL import features

    return {
        "matplotlib": matplotlib.__version__,
        "pillow": PIL.__version__,
        "freetype": str(features.version("freetype2")),
    }


def _font_files() -> list[Path]:
    with extra("data"):
        import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [folder / f"{face}.ttf" for face in FACES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"matplotlib's font folder {folder} lacks {', '.join(missing)}; reinstall matplotlib, "
            "or choose another dataset"
        )
    return files


def _render(image_size: int, seed: int) -> dict[str, np.ndarray]:
    """`letters` `[classes]`, one character each, and `images` `[classes * IMAGES, H, W, 1]`."""
    letters, covered = _covered_letters()
    chosen = _distinct(letters, covered)
    letters = [letters[index] for index in chosen]
    return {
        "letters": np.array(letters),
        "images": _draw(letters, covered[:, chosen], image_size, seed),
    }


def _draw(letters: list[str], covered: np.ndarray, image_size: int, seed: int) -> np.ndarray:
    """`IMAGES` images of every letter, cycling in random order through the faces that have it.

    `covered` is bool `[faces, letters]`; the images are uint8 `[letters * IMAGES, H, W, 1]`.
    """
    fonts = _fonts(OVERSAMPLING * image_size)
    random = np.random.default_rng(seed)
    images = [
        _jitter(_ink(fonts[face], letter), image_size, random)
        for letter, has in zip(letters, covered.T, strict=True)
        for face in np.resize(random.permutation(np.flatnonzero(has)), IMAGES)
    ]
    return np.stack(images)[..., None]


def _covered_letters() -> tuple[list[str], np.ndarray]:
    """The letters in enough faces, by code point; which face has which, bool `[faces, letters]`."""
    from matplotlib.ft2font import FT2Font

    tables = [FT2Font(str(file)).get_charmap() for file in _font_files()]
    codes = sorted(
        code
        for code in set().union(*tables)
        if unicodedata.category(chr(code)) in ("Lu", "Ll")
        and _script(chr(code)) in TRAIN_SCRIPTS + TEST_SCRIPTS
    )
    # Glyph 0 is the box for missing letters.
    covered = np.array([[table.get(code, 0) != 0 for code in codes] for table in tables])
    enough = np.flatnonzero(covered.sum(axis=0) >= FEWEST_FACES)
    return [chr(codes[index]) for index in enough], covered[:, enough]


def _distinct(letters: list[str], covered: np.ndarray) -> np.ndarray:
    """Indices of the first letter of every class; letters that look alike in a face are a class."""
    with extra("data"):
        from scipy.sparse.csgraph import connected_components

    likeness = np.zeros((len(letters), len(letters)), np.float32)  # the highest of all faces
    for font, has in zip(_fonts(OVERSAMPLING * COMPARED), covered, strict=True):
        bitmaps = np.zeros((len(letters), COMPARED**2), np.float32)
        for index in np.flatnonzero(has):
            bitmap = _place(_ink(font, letters[index]), COMPARED, np.eye(2), 1.0, np.zeros(2))
            bitmaps[index] = bitmap.ravel() - bitmap.mean()
            bitmaps[index] /= np.linalg.norm(bitmaps[index])
        likeness = np.maximum(likeness, bitmaps @ bitmaps.T)

    caseless = np.array([_caseless_name(letter) for letter in letters])
    cases = caseless[:, None] == caseless[None, :]
    _, class_of = connected_components(likeness > np.where(cases, CASES_ALIKE, LOOK_ALIKE))
    return np.sort(np.unique(class_of, return_index=True)[1])


def _fonts(size: int) -> list["FreeTypeFont"]:
    from PIL import ImageFont

    # The basic layout, since Raqm is not installed everywhere.
    layout = ImageFont.Layout.BASIC
    return [ImageFont.truetype(file, size, layout_engine=layout) for file in _font_files()]


def _ink(font: "FreeTypeFont", letter: str) -> "Image":
    """A letter, white on black, cropped to its ink."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = font.getbbox(letter)
    room = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(room).text((2 - left, 2 - top), letter, fill=255, font=font)
    return room.crop(room.getbbox())


def _jitter(ink: "Image", image_size: int, random: np.random.Generator) -> np.ndarray:
    """The ink in an image, slightly rotated, slanted, stretched, scaled and shifted."""
    turn, slant, stretch, *shift = random.uniform(-1, 1, 5)
    turn = np.deg2rad(TURN * turn)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1, SLANT * slant], [0, 1]])
    stretching = np.diag(STRETCH ** np.array([stretch / 2, -stretch / 2]))
    return _place(
        ink,
        image_size,
        rotation @ shear @ stretching,
        extent=random.uniform(*EXTENT),
        shift=SHIFT * np.array(shift),
    )


def _place(
    ink: "Image", image_size: int, linear: np.ndarray, extent: float, shift: np.ndarray
) -> np.ndarray:
    """The ink in a square image, uint8 `[image_size, image_size]`.

    A point p of the ink is mapped to  scale * linear (p - centre of ink) + centre of image + shift,
    with the scale that makes the longer side of the box around the ink `extent`. Lengths are
    fractions of the image's side.
    """
    from PIL import Image

    side = OVERSAMPLING * image_size
    box = np.abs(linear) @ ink.size
    # Pillow takes the inverse map, from pixels of the result to the ink.
    inverse = np.linalg.inv(linear * (side * extent / box.max()))
    offset = np.array(ink.size) / 2 - inverse @ (side * (0.5 + shift))
    (a, b), (d, e) = inverse.tolist()
    c, f = offset.tolist()
    large = ink.transform(
        (side, side),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(large.reduce(OVERSAMPLING))


def _script(letter: str) -> str:
    return unicodedata.name(letter).split()[0]


def _caseless_name(letter: str) -> str:
    case = ("CAPITAL", "SMALL", "LETTER")
    return " ".join(word for word in unicodedata.name(letter).split() if word not in case)
