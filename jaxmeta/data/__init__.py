"""Where tasks come from: image sets by name, and the samplers that draw tasks from them."""

from jaxmeta.data import sequences
from jaxmeta.data.batches import image_batches
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.episodes import episodes
from jaxmeta.data.sinusoids import sinusoids
from jaxmeta.data.sources import Dataset, load
from jaxmeta.data.stream import TaskStream, task_stream
from jaxmeta.data.transformed import distorted, with_unlabelled

__all__ = [
    "ClassImages",
    "Dataset",
    "TaskStream",
    "distorted",
    "episodes",
    "image_batches",
    "load",
    "sequences",
    "sinusoids",
    "task_stream",
    "with_unlabelled",
]
