"""Image files as square uint8 arrays of one size."""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxmeta.data.cache import memory
from jaxmeta.data.reading import regular
from jaxmeta.extras import extra

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Only these: other formats of Pillow start programs (EPS) or don't state their size.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 2**30 // 12  # per image, a quarter GiB in colour; Pillow warns above it
MOST_BYTES = 2**29  # per image file
SIZE = 84  # pixels, the default for sets without a square size (the size of miniImageNet)
Resampling = Literal["bilinear", "box"]
RESIZE = "largest centre square, bilinear with antialiasing (Pillow)"


def square(
    image: Path | bytes,
    size: int,
    color: bool,
    *,
    ink: bool = False,
    resampling: Resampling = "bilinear",
) -> np.ndarray:
    """An encoded image as uint8 `[size, size, 3 or 1]`: its largest centre square, resized.

    The orientation tag of cameras is applied; transparent pixels become white. An image that
    already has the size is not changed. Of several frames, the first is used.

    Args:
      image: a file, or the bytes of one: PNG, JPEG, WebP, GIF, BMP or TIFF.
      size: pixels, the side of the square.
      color: three channels if true, otherwise one.
      ink: invert the image before it is resized, so that black ink is 255 and white paper 0.
      resampling: the filter, with antialiasing.

    Raises:
      ValueError: the image has more than 8 bits per channel, more than 89,478,485 pixels or 512
        MiB; it is not a regular file, or not an image that Pillow can read.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (8, 4), "red").save(file, "png")
    >>> square(file.getvalue(), 2, color=True)[0, 0].tolist()
    [255, 0, 0]
    """
    with extra("data"):
        from PIL import Image, ImageOps

    try:
        with opened(image) as found:
            if _is_deep(found):
                raise ValueError(
                    f"mode {found.mode}, more than 8 bits per channel; save it with 8 bits per "
                    "channel"
                )
            picture = ImageOps.exif_transpose(found)
            if picture.has_transparency_data:
                paper = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(paper, picture.convert("RGBA"))
            picture = picture.convert("RGB" if color else "L")
            picture = ImageOps.invert(picture) if ink else picture
            filters = {"bilinear": Image.Resampling.BILINEAR, "box": Image.Resampling.BOX}
            picture = ImageOps.fit(picture, (size, size), filters[resampling])
    except Exception as error:  # a broken file raises exceptions of many types
        raise ValueError(str(error)) from error
    return np.asarray(picture).reshape(size, size, 3 if color else 1)


def is_color(image: Path | bytes) -> bool:
    """Whether an encoded image has colour channels; read from its header."""
    with opened(image) as found:
        return found.mode not in ("1", "L", "LA", "La")


@contextlib.contextmanager
def opened(image: Path | bytes) -> Iterator["ImageFile"]:
    """An encoded image within the limits above, of which only the header is read.

    Raises:
      ValueError, OSError: as `square`.
    """
    with extra("data"):
        from PIL import Image

    size = len(image) if isinstance(image, bytes) else regular(image).st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes; at most {MOST_BYTES:,} are supported")
    file = io.BytesIO(image) if isinstance(image, bytes) else image
    with Image.open(file, formats=FORMATS) as found:
        if math.prod(found.size) > MOST_PIXELS:
            width, height = found.size
            raise ValueError(f"{width}x{height} pixels; at most {MOST_PIXELS:,} are supported")
        yield found


def _is_deep(found: "ImageFile") -> bool:
    """Whether channels have more than 8 bits; Pillow truncates them in colour images."""
    if found.format == "TIFF":  # 258 is the tag of the bits of each channel
        return any(bits > 8 for bits in np.atleast_1d(found.tag_v2.get(258, 1)))  # pyright: ignore
    of_png = found.format == "PNG" and any(";16" in str(tile.args) for tile in found.tile)
    return of_png or found.mode[0] in "IF"


def resized(images: np.ndarray, size: int, color: bool) -> np.ndarray:
    """Square images at another size and number of channels: uint8 `[N, size, size, 3 or 1]`.

    Bilinear with antialiasing, as in `square`. Grey is the luma of ITU-R 601, 0.299 R + 0.587 G +
    0.114 B; colour from grey has three equal channels. Values are not inverted.

    Args:
      images: uint8 `[N, H, H, 3 or 1]`.
      size: pixels, the side of the results.
      color: three channels or one.

    >>> red = np.zeros((1, 4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    >>> resized(red, 2, color=False)[0, :, :, 0].tolist()
    [[76, 76], [76, 76]]
    """
    channels = 3 if color else 1
    if images.shape[1:] == (size, size, channels):
        return images
    with extra("data"):
        from PIL import Image

    def convert(row: int) -> np.ndarray:
        found = images[row, :, :, 0] if images.shape[3] == 1 else images[row]
        picture = Image.fromarray(found).convert("RGB" if color else "L")
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(size, size, channels)

    return gather(convert, (len(images), size, size, channels))


def check_fits(shape: tuple[int, ...]) -> None:
    """Raises `ValueError` if uint8 images of this shape would exceed the machine's memory."""
    needed = 3 * math.prod(shape)  # with the copies made by sorting and splitting
    if needed > memory():
        raise ValueError(
            f"{shape[0]} images of {shape[1]}x{shape[2]}x{shape[3]} take {needed / 2**30:.0f} GiB "
            f"to prepare, but this machine has {memory() / 2**30:.0f}; choose a smaller image size"
        )


def gather(read: Callable[[int], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array of `shape` with `read(i)` as row i, read on all cores.

    Raises:
      ValueError: the array would exceed the machine's memory.

    >>> gather(lambda row: np.full((1, 1, 1), row), (3, 1, 1, 1)).ravel().tolist()
    [0, 1, 2]
    """
    check_fits(shape)
    rows = np.empty(shape, np.uint8)

    def put(row: int) -> None:
        rows[row] = read(row)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
        for _ in pool.map(put, range(shape[0])):
            pass  # raises the exception of `put`, and cancels the rest
    return rows
