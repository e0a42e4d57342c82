"""Handwritten digits of 8×8 pixels, included in scikit-learn: no download."""

from typing import Any

import numpy as np

from jaxmeta.data.classes import ClassImages, class_images
from jaxmeta.extras import extra


def digits() -> ClassImages:
    """The 1,797 digits of scikit-learn's `load_digits`, 174 to 183 of each class.

    Images are uint8 `[1797, 8, 8, 1]`, rescaled to 0 to 255.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.

    Source: E. Alpaydin, C. Kaynak 1998, "Optical recognition of handwritten digits", UCI.

    >>> digits().counts.min(), digits().images.shape
    (np.int32(174), (1797, 8, 8, 1))
    """
    with extra("digits"):
        from sklearn.datasets import load_digits
    found: Any = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    return class_images(images, found.target, tuple("0123456789"))
