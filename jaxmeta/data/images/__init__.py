"""Image sets by name: the built-in ones, each a file of this package, and your own.

    load(name) ──► registered by `image_source` ──► TFDS ──► a folder of images

`load("omniglot")` imports `jaxmeta/data/images/omniglot.py` and no other set. A new set is one file
here, or one decorated function anywhere:

    @image_source("runes")
    def runes(*, image_size: int = 28, seed: int = 0) -> Dataset: ...
"""

from jaxmeta.data.images.dataset import Dataset
from jaxmeta.data.images.registry import image_source, load

__all__ = ["Dataset", "image_source", "load"]
