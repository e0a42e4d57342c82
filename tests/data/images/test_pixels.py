"""From image files to squares."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images.pixels import gather, square


def png(picture, **options):
    file = io.BytesIO()
    picture.save(file, "png", **options)
    return file.getvalue()


def test_an_image_of_the_size_is_not_changed():
    values = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    assert np.array_equal(square(png(Image.fromarray(values)), 28, color=True), values)
    grey = values[..., 0]
    assert np.array_equal(square(png(Image.fromarray(grey)), 28, color=False)[..., 0], grey)


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_taken_and_averaged(wide):
    values = np.zeros((40, 80), np.uint8)
    values[:, 20:60] = np.where(np.indices((40, 40)).sum(0) % 2, 255, 0)  # a fine chessboard
    picture = Image.fromarray(values if wide else values.T)
    result = square(png(picture), 8, color=False)
    assert result.shape == (8, 8, 1)
    assert np.abs(result.astype(int) - 127).max() <= 20  # black sides would make it 64


def test_one_bit_and_colour_images_become_what_is_asked_for():
    bits = Image.fromarray(np.eye(4, dtype=bool))
    assert square(png(bits), 4, color=False)[..., 0].tolist() == (255 * np.eye(4)).tolist()
    assert square(png(Image.new("RGB", (4, 4), "lime")), 4, color=False).max() == 150
    assert square(png(Image.new("L", (4, 4), 7)), 4, color=True).shape == (4, 4, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode):
    clear = Image.new("RGBA" if mode == "P" else mode, (4, 4)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    assert square(png(clear, **options), 4, color=True).min() == 255


def test_a_cameras_orientation_is_obeyed():
    half = np.zeros((4, 4), np.uint8)
    half[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert square(png(Image.fromarray(half), exif=exif), 4, color=False)[3, 0, 0] == 255


def deep_png(kind, channels):
    """4×4 pixels of 16 bits a channel, which Pillow itself writes in grey alone."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = (b"\0" + b"\x12\x34" * 4 * channels) * 4
    head = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    "image",
    [
        png(Image.fromarray(np.full((4, 4), 4000, np.uint16))),
        *(deep_png(*kind) for kind in ((0, 1), (2, 3), (4, 2), (6, 4))),
    ],
    ids=["grey by Pillow", "grey", "colour", "grey and alpha", "colour and alpha"],
)
def test_sixteen_bits_are_refused_not_cut_off(image):
    with pytest.raises(ValueError, match="8 bits per channel"):
        square(image, 4, color=True)


def test_sixteen_bits_of_a_tiff_are_refused_too():
    """Its colours are those of an 8-bit one whose header says 16 bits a channel."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "tiff")
    with Image.open(file) as opened:
        offset = file.getvalue().index(struct.pack("<HHH", 8, 8, 8))
        assert opened.tag_v2[258] == (8, 8, 8)  # pyright: ignore[reportAttributeAccessIssue]
    deep = bytearray(file.getvalue() + bytes(200))
    deep[offset : offset + 6] = struct.pack("<HHH", 16, 16, 16)
    with pytest.raises(ValueError, match="8 bits per channel"):
        square(bytes(deep), 4, color=True)
    assert square(file.getvalue(), 4, color=True).shape == (4, 4, 3)


def test_sixteen_bits_a_pixel_are_fewer_a_channel():
    """A bitmap of 5 bits a channel, 16 a pixel, is read."""
    head = struct.pack("<2sIHHI", b"BM", 54 + 32, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 0, 32, 0, 0, 0, 0)
    assert square(head + b"\xff\x7f" * 16, 4, color=True).min() == 255


def test_rows_are_gathered_in_order_and_errors_come_through():
    rows = gather(lambda row: np.full((2, 2, 1), row), (200, 2, 2, 1))
    assert rows[:, 0, 0, 0].tolist() == list(range(200))

    def fails(row):
        raise ValueError(f"row {row}")

    with pytest.raises(ValueError, match="row 0"):
        gather(fails, (200, 2, 2, 1))


def test_more_than_the_memory_is_refused_before_work_begins():
    with pytest.raises(ValueError, match="choose a smaller image size"):
        gather(lambda row: pytest.fail("it must not begin"), (10**9, 224, 224, 3))


@pytest.mark.parametrize("image_size", [100_000, 10**9])
def test_images_that_would_fill_the_memory_are_refused_before_one_is_drawn(image_size):
    with pytest.raises(ValueError, match=f"images of {image_size}x{image_size}x1 take .* GiB"):
        load("glyphs", image_size=image_size)
