"""Arrays without an element are refused by name, not met as a division by zero."""

import numpy as np
import pytest

from jaxmeta.core import Batch, Task
from jaxmeta.data import (
    ClassImages,
    class_images,
    classifiers,
    enumerated,
    episodes,
    image_batches,
    image_completion,
    label_stream,
    task_stream,
)

NOTHING = ClassImages(np.zeros((0, 8, 8, 1), np.uint8), *np.zeros((2, 0), np.int32), ())
NO_IMAGE = NOTHING._replace(
    starts=np.zeros(2, np.int32), counts=np.zeros(2, np.int32), names=("a", "b")
)
NO_PIXEL = ClassImages(
    np.zeros((4, 0, 0, 1), np.uint8), np.array([0, 2]), np.array([2, 2]), ("a", "b")
)
NO_CHANNEL = NO_PIXEL._replace(images=np.zeros((4, 8, 8, 0), np.uint8))
SMALL = {"ways": 2, "shots": 1, "queries": 1}


@pytest.mark.parametrize("classes", [NOTHING, NO_IMAGE, NO_PIXEL, NO_CHANNEL])
@pytest.mark.parametrize(
    "source",
    [
        lambda classes: class_images(classes.images, np.arange(len(classes.images)) % 2, "ab"),
        lambda classes: episodes(classes, **SMALL),
        lambda classes: task_stream(classes, **SMALL),
        lambda classes: classifiers(classes, **SMALL),
        lambda classes: label_stream(classes, ways=2, instances=2),
        lambda classes: image_batches(classes, 4),
        lambda classes: image_completion(classes, points=(1, 1)),
    ],
)
def test_images_without_an_element_are_refused(source, classes):
    with pytest.raises(ValueError, match=r"images of the shape .*; give at least one"):
        source(classes)


def test_a_task_without_a_query_is_refused():
    full, empty = (Batch(np.zeros((size, 2)), np.zeros(size)) for size in (3, 0))
    with pytest.raises(ValueError, match="task 1 has no query example"):
        enumerated([Task(full, full), Task(full, empty)])
    assert len(enumerated([Task(empty, full)]).tasks) == 1  # a support may be empty
