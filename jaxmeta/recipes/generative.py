"""What the recipes of image generators share."""

from dataclasses import dataclass

from jaxmeta.core import Array, Key, PyTree
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.tasks import Problem


@dataclass(frozen=True)
class Generative(Recipe):
    """A generator of images, whose `predict` with a key gives a new image for each input."""

    def interpolated(
        self, problem: Problem, params: PyTree, key: Key, images: Array, shares: Array
    ) -> Array:
        """Images along a path in the space of codes, `[images / 2, shares, H, W, C]`.

        Each path is between two images, or two codes, as the generator has it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no interpolated(...).")
