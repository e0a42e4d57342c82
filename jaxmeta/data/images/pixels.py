"""From image files to square uint8 arrays of one size."""

import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SIZE = 84  # pixels, where an image set has no square size of its own (miniImageNet's)
RESIZE = "largest centre square, bilinear with antialiasing (Pillow)"


def square(image: Path | bytes, size: int, color: bool) -> np.ndarray:
    """An encoded image as uint8 `[size, size, 3 or 1]`: its largest centre square, resized.

    A camera's orientation tag is obeyed; what is transparent becomes white. An image that has
    the size already is not changed.

    Args:
      image: a file, or the bytes of one (PNG, JPEG, whatever Pillow reads).
      size: pixels, the side of the square.
      color: three channels, otherwise one.

    Raises:
      ValueError: more than 8 bits a channel, or not an image that Pillow can read.

    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (8, 4), "red").save(file, "png")
    >>> square(file.getvalue(), 2, color=True)[0, 0].tolist()
    [255, 0, 0]
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode[0] in "IF":
                raise ValueError(f"mode {picture.mode}; save it with 8 bits a channel")
            if picture.has_transparency_data:
                paper = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(paper, picture.convert("RGBA"))
            picture = picture.convert("RGB" if color else "L")
            picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # a broken file raises many kinds
        raise ValueError(str(error)) from error
    return np.asarray(picture).reshape(size, size, 3 if color else 1)


def is_color(image: Path | bytes) -> bool:
    """Whether an encoded image has colour channels; read from its header."""
    from PIL import Image

    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
        return opened.mode not in ("1", "L", "LA", "La")


def check_fits(shape: tuple[int, ...]) -> None:
    """Raises `ValueError` where so many images, uint8, would fill the machine's memory."""
    needed = 3 * math.prod(shape)  # with the copies that sorting and splitting make
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(
            f"{shape[0]} images of {shape[1]}x{shape[2]}x{shape[3]} take {needed / 2**30:.0f} GiB "
            f"to prepare, this machine has {memory / 2**30:.0f}; choose a smaller image size"
        )


def gather(read: Callable[[int], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of `shape`, whose row i is `read(i)`, read on all cores.

    Raises:
      ValueError: the rows would fill the machine's memory.

    >>> gather(lambda row: np.full((1, 1, 1), row), (3, 1, 1, 1)).ravel().tolist()
    [0, 1, 2]
    """
    check_fits(shape)
    rows = np.empty(shape, np.uint8)

    def put(row: int) -> None:
        rows[row] = read(row)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of Python's lock
        for _ in pool.map(put, range(shape[0])):
            pass  # raises what `put` raised, and cancels the rest
    return rows
