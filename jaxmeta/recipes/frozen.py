"""Features of a frozen network, of images and of distorted or generated views of them."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.data import ClassImages, Dataset, distortions
from jaxmeta.data.cache import cached_arrays
from jaxmeta.data.images.dataset import PARTS
from jaxmeta.data.scaling import scaled
from jaxmeta.models import on_features
from jaxmeta.models.layers import OF_SEVERAL_EXAMPLES
from jaxmeta.recipes.loading import problems
from jaxmeta.recipes.restoring import restore
from jaxmeta.recipes.settings import values
from jaxmeta.recipes.shipped import find_run
from jaxmeta.training.checkpoints import parameters_sha256

_AT_ONCE = 64  # images
_SETTINGS = ("network", "query_statistics", "test_views", "precision")  # not seen in parameters
Draw = Callable[[Key, Array], Array]
"""`draw(key, images) -> images`, a random view of each image, `[images, H, W, C]`."""


class Frozen(NamedTuple):
    """A network that is not trained further.

    Attributes:
      encoder: the network without a head.
      params: its parameters.
      name: names the network in results.
      settings: those that the features depend on beside the parameters, as JSON values.
    """

    encoder: Model
    params: PyTree
    name: str
    settings: Mapping[str, Any] = {}


def frozen_network(run: str | None, images_sha256: str) -> Frozen:
    """The network of a run: of pre-training, or of a learner whose network only embeds images.

    Without a run, the pixels are the features.

    Raises:
      ValueError: the run has no such network, or was trained on other images or another split,
        which may have seen the test classes; its network normalises by statistics of several
        images, so that the features of one would depend on others.
      OSError: it can't be read.
    """
    if run is None:
        return Frozen(on_features(), (), "pixels")
    restored = restore(find_run(Path(run)))
    _check_images(f"--pretrained {run}", restored.data, images_sha256)
    recipe, experiment = restored.experiment.learner, restored.experiment
    params = restored.meta_params
    if experiment.domain.kind != "supervised":
        if not recipe.needs.embeds:
            raise ValueError(
                f"--pretrained {run} has no network that only embeds images; give a run of "
                "python -m experiments.pretrain, or of a learner such as prototypical."
            )
        params = recipe.encoder_params(params)
    own = values(experiment)
    if own.get("query_statistics") in OF_SEVERAL_EXAMPLES:
        raise ValueError(
            f"--pretrained {run}: its network normalises by statistics of several images "
            f"({own['query_statistics']}), so that features of one would depend on others; give a "
            "run with the statistics training, group, layer or none."
        )
    encoder = problems(experiment, restored.data, ())[1].encoder()
    settings = {name: own[name] for name in _SETTINGS if name in own}
    return Frozen(encoder, params, f"{recipe.name}, {Path(run).name}", settings)


def _check_images(run: str, data: Mapping[str, Any], images_sha256: str) -> None:
    """Raises `ValueError` for a run that may have seen the test classes."""
    if data.get("images_sha256") != images_sha256:
        raise ValueError(
            f"{run} was trained on other images or on another split; give its --dataset, --split, "
            "--seed and --image-size."
        )


def drawn_views(run: str | None, images_sha256: str) -> tuple[Draw, str]:
    """Views by `distortions`, or by the generator of a run of `experiments.generate`; their name.

    Raises:
      ValueError: the run is no generator of images, or was trained on other images or another
        split, which may have seen the test classes.
      OSError: it can't be read.
    """
    if run is None:
        generate = distortions()

        def distort(key: Key, images: Array) -> Array:
            return jax.vmap(generate)(jax.random.split(key, images.shape[0]), images)

        return distort, "distortions"
    restored = restore(find_run(Path(run)))
    if restored.experiment.domain.kind != "generation":
        raise ValueError(f"--generator {run} is not a run of python -m experiments.generate.")
    _check_images(f"--generator {run}", restored.data, images_sha256)
    learner, params = restored.learner, restored.meta_params
    draw = lambda key, images: learner.predict(params, images, key=key)  # noqa: E731
    return draw, f"{restored.experiment.learner.name}, {parameters_sha256(params)[:16]}"


def features_of(
    frozen: Frozen, dataset: Dataset, views: int, draw: Draw, drawn_by: str
) -> tuple[dict[str, ClassImages], str]:
    """The features of each part, float32 `[total, 1 + views, 1, D]`, and what identifies them.

    The first view is the image; training images have no others. All are divided by the root mean
    square of the training features. They are cached.
    """
    network = parameters_sha256(frozen.params) if jax.tree.leaves(frozen.params) else frozen.name
    known = [dataset.protocol["images_sha256"], network, views, drawn_by if views else ""]
    known += [dict(frozen.settings)] if frozen.settings else []

    def build() -> dict[str, np.ndarray]:
        embed = jax.jit(lambda params, images: frozen.encoder.apply(params, images))
        # Compiled with the draw: the views of a batch, `[views, images, H, W, C]`.
        see = jax.jit(
            lambda key, images: jax.vmap(draw, in_axes=(0, None))(
                jax.random.split(key, views), images
            )
        )
        found = {}
        for part in PARTS:
            images = dataset.parts[part].images
            rows = []
            # The last batch is filled up, so that one program is compiled.
            for start in range(0, len(images), _AT_ONCE):
                batch = images[start : start + _AT_ONCE]
                size = len(batch)
                batch = jnp.asarray(scaled(np.resize(batch, (_AT_ONCE, *batch.shape[1:]))))
                seen = [embed(frozen.params, batch)]
                if views and part != "train":
                    key = jax.random.fold_in(jax.random.key(zlib.crc32(part.encode())), start)
                    seen += [embed(frozen.params, view) for view in see(key, batch)]
                rows.append(np.stack([np.asarray(own) for own in seen], axis=1)[:size])
            found[part] = np.concatenate(rows)[:, :, None]
        scale = np.sqrt(np.square(found["train"]).mean())
        return {part: (own / scale).astype(np.float32) for part, own in found.items()}

    identity = f"{zlib.crc32(json.dumps(known).encode()):08x}"
    arrays = cached_arrays(f"features-{known[0][:16]}-{identity}", build)
    parts = {part: dataset.parts[part]._replace(images=arrays[part]) for part in PARTS}
    return parts, json.dumps(known)


def padded_classes(classes: ClassImages) -> tuple[np.ndarray, np.ndarray]:
    """The first view of all features by class, `[C, N, D]`, and the mask of examples `[C, N]`.

    >>> from jaxmeta.data import class_images
    >>> points = np.array([1.0, 2.0, 3.0], np.float32).reshape(3, 1, 1, 1)
    >>> features, mask = padded_classes(class_images(points, np.array([0, 0, 1]), ("a", "b")))
    >>> features[..., 0].tolist(), mask.tolist()
    ([[1.0, 2.0], [3.0, 0.0]], [[True, True], [True, False]])
    """
    most = int(classes.counts.max())
    mask = np.arange(most)[None] < classes.counts[:, None]
    features = np.zeros((*mask.shape, classes.images.shape[-1]), np.float32)
    features[mask] = classes.images[:, 0, 0]
    return features, mask
