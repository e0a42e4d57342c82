"""uint8 is scaled to [0, 1] and floats are taken as they are, whatever draws the tasks."""

import jax
import numpy as np
import pytest

from jaxmeta.core import Batch, Task
from jaxmeta.data import class_images, episodes, image_batches, image_completion, label_stream
from jaxmeta.data.scaling import scaled
from jaxmeta.data.stream import enumerated, task_stream

RNG = np.random.default_rng(0)
UINT8 = RNG.integers(0, 256, (24, 4, 4, 1), np.uint8)
FLOATS = RNG.normal(0, 9, (24, 4, 4, 1)).astype(np.float32)  # far from [0, 1]


def classes_of(images):
    return class_images(images, np.arange(24) // 8, "abc")


def streamed(images):
    stream = task_stream(classes_of(images), ways=2, shots=2, queries=2)
    return stream.prepare(stream.tasks[3]).query.inputs


def listed(images):
    batch = Batch(images[:6], np.zeros(6, np.int32))
    stream = enumerated([Task((), batch)])  # pyright: ignore[reportArgumentType]
    return stream.prepare(stream.tasks[0]).query.inputs


def drawn(make, of_task=lambda task: task.query.inputs):
    return lambda images: of_task(make(classes_of(images))(jax.random.key(0)))


PIPELINES = {
    "episodes": drawn(lambda own: episodes(own, ways=2, shots=2, queries=2)),
    "batches": drawn(lambda own: image_batches(own, 6, flip=True)),
    "completion": drawn(
        lambda own: image_completion(own, points=(2, 4)), lambda task: task.query.targets
    ),
    "labels": drawn(
        lambda own: label_stream(own, ways=2, instances=2, rotations="none"),
        lambda task: task.query.inputs[:, :16],
    ),
    "stream": streamed,
    "list": listed,
}


@pytest.mark.full
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("images", [UINT8, FLOATS], ids=["uint8", "floats"])
def test_every_pipeline_has_the_same_rule(pipeline, images):
    found = np.asarray(PIPELINES[pipeline](images)).ravel()
    assert found.dtype == np.float32
    expected = images.ravel() / np.float32(255) if images.dtype == np.uint8 else images.ravel()
    # Every value drawn is one of the images', scaled or as it is.
    nearest = np.abs(found[:, None] - expected[None]).min(axis=1)
    assert nearest.max() <= 1e-6
    assert found.std() == pytest.approx(expected.std(), rel=0.5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, bool, "U1"])
def test_images_whose_scale_nobody_knows_are_refused(dtype):
    with pytest.raises(ValueError, match="give uint8, scaled to"):
        scaled(np.zeros((1, 4, 4, 1), dtype))
    with pytest.raises(ValueError, match="give uint8, scaled to"):
        classes_of(UINT8.astype(dtype))
    by_hand = classes_of(UINT8)._replace(images=UINT8.astype(dtype))
    with pytest.raises(ValueError, match="give uint8, scaled to"):
        episodes(by_hand, ways=2, shots=1, queries=1)
