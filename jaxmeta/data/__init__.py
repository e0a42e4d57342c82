"""Data sets, and the samplers that draw tasks from them."""

from jaxmeta.data._class_streams import class_streams
from jaxmeta.data._distortions import distortions
from jaxmeta.data._episodes import episodes
from jaxmeta.data._label_stream import label_stream
from jaxmeta.data._numbered import numbered
from jaxmeta.data._whole_pools import WholePools, whole_pools
from jaxmeta.data.batches import image_batches, image_pairs
from jaxmeta.data.classes import ClassImages, class_images
from jaxmeta.data.completion import image_completion
from jaxmeta.data.images import Dataset, image_source, load
from jaxmeta.data.pool_sets import PoolSet, load_pools, pool_source
from jaxmeta.data.pools import Pools, pool_tasks, pools_by
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.stream import Streams, TaskStream, enumerated, task_stream
from jaxmeta.data.synthetic import (
    Family,
    classifiers,
    gaussian_curves,
    quadratics,
    sequences,
    sinusoids,
    switches_of,
    switching_sinusoids,
)
from jaxmeta.data.transformed import distorted, with_unlabelled

__all__ = [
    "ClassImages",
    "Dataset",
    "Family",
    "PoolSet",
    "Pools",
    "Sampler",
    "Streams",
    "TaskStream",
    "WholePools",
    "class_images",
    "class_streams",
    "classifiers",
    "distorted",
    "distortions",
    "enumerated",
    "episodes",
    "gaussian_curves",
    "image_batches",
    "image_completion",
    "image_pairs",
    "image_source",
    "label_stream",
    "load",
    "load_pools",
    "numbered",
    "pool_source",
    "pool_tasks",
    "pools_by",
    "quadratics",
    "sequences",
    "sinusoids",
    "switches_of",
    "switching_sinusoids",
    "task_stream",
    "whole_pools",
    "with_unlabelled",
]
