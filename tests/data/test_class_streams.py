"""Streams of classes: their order, and labels that name the classes of the whole set."""

import jax
import numpy as np

from jaxmeta.data import class_images, class_streams

KEY = jax.random.key(0)


def test_a_stream_is_class_by_class_and_every_label_is_that_of_the_image():
    # Every pixel of an image says its class.
    pixels = np.repeat(np.arange(6, dtype=np.uint8), 8)[:, None, None, None] * np.ones((2, 2, 1))
    classes = class_images(pixels.astype(np.uint8), np.repeat(np.arange(6), 8), tuple("abcdef"))
    sample = class_streams(classes, ways=3, shots=4, queries=2, remembered=50)
    drawn = set()
    for key in jax.random.split(KEY, 12):
        support, query = jax.jit(sample)(key)
        for batch in (support, query):
            shown = np.rint(255 * np.asarray(batch.inputs)[:, 0, 0, 0])
            assert (shown == np.asarray(batch.targets)).all()
        by_class = np.asarray(support.targets).reshape(3, 4)
        assert (by_class == by_class[:, :1]).all()
        assert len({*by_class[:, 0]}) == 3
        assert (np.asarray(query.targets)[:6].reshape(3, 2) == by_class[:, :1]).all()
        assert {*np.asarray(query.targets)[6:].tolist()} == set(range(6))
        drawn |= {*by_class[:, 0].tolist()}
    assert drawn == set(range(6))
