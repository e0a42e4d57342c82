"""Data sets, and the samplers that draw tasks from them."""

from jaxmeta.data._episodes import episodes
from jaxmeta.data._label_stream import label_stream
from jaxmeta.data._numbered import numbered
from jaxmeta.data.batches import image_batches
from jaxmeta.data.classes import ClassImages, class_images
from jaxmeta.data.completion import image_completion
from jaxmeta.data.images import Dataset, image_source, load
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.stream import TaskStream, enumerated, task_stream
from jaxmeta.data.synthetic import (
    Family,
    classifiers,
    gaussian_curves,
    quadratics,
    sequences,
    sinusoids,
)
from jaxmeta.data.transformed import distorted, with_unlabelled

__all__ = [
    "ClassImages",
    "Dataset",
    "Family",
    "Sampler",
    "TaskStream",
    "class_images",
    "classifiers",
    "distorted",
    "enumerated",
    "episodes",
    "gaussian_curves",
    "image_batches",
    "image_completion",
    "image_source",
    "label_stream",
    "load",
    "numbered",
    "quadratics",
    "sequences",
    "sinusoids",
    "task_stream",
    "with_unlabelled",
]
