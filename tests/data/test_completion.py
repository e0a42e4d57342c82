"""Images to complete, read back pixel by pixel."""

import jax
import numpy as np
import pytest

from jaxmeta.data.classes import class_images
from jaxmeta.data.completion import image_completion

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 1)).astype(np.uint8)
IMAGES = class_images(PIXELS, np.arange(6) % 2, "ab")
DRAW = jax.jit(lambda sample, key: sample(key))


def rows_and_columns(places):
    return np.round((places + 1) / 2 * [3, 4]).astype(int).T


@pytest.mark.parametrize("queries", [None, 7])
def test_places_and_pixels_are_those_of_one_image(queries):
    sample = image_completion(IMAGES, points=(2, 9), queries=queries)
    counts = set()
    for seed in range(30):
        support, query = jax.device_get(DRAW(sample, jax.random.key(seed)))
        places = [rows_and_columns(part.inputs) for part in (support, query)]
        matching = [
            image
            for image in PIXELS[..., 0]
            if all(
                (np.round(part.targets[:, 0] * 255) == image[tuple(place)]).all()
                for part, place in zip((support, query), places, strict=True)
            )
        ]
        assert len(matching) == 1
        for rows, columns in places:
            assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)
        assert len(query.inputs) == (queries or 20)
        assert support.mask.tolist() == sorted(support.mask.tolist(), reverse=True)
        counts.add(int(support.mask.sum()))
    assert counts == set(range(2, 10))


def test_all_pixels_stand_row_by_row():
    query = DRAW(image_completion(IMAGES, points=(1, 1)), jax.random.key(0)).query
    rows, columns = rows_and_columns(np.asarray(query.inputs))
    assert (rows * 5 + columns).tolist() == list(range(20))


@pytest.mark.parametrize("options", [{"points": (0, 3)}, {"points": (3, 21)}, {"queries": 21}])
def test_numbers_that_cannot_be(options):
    with pytest.raises(ValueError, match="from 1 to 20, the pixels of an image"):
        image_completion(IMAGES, **options)
