"""What is reported of an image generator: distances to real images, copies, and pictures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array
from jaxmeta.data import ClassImages
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.scaling import scaled
from jaxmeta.metrics import frechet_distance
from jaxmeta.recipes.frozen import Frozen
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.state import shared_of

_ROWS, _COLUMNS = 8, 8


class Judged:
    """Draws images from a trained generator, once, for the figures and for the pictures.

    Args:
      frozen: the network in whose features the Fréchet distance is measured.
      train: the training images.
      number: images to generate, at least; a multiple of a batch.
    """

    def __init__(self, frozen: Frozen, train: ClassImages, number: int):
        self.frozen, self.train, self.number = frozen, train, number

    def results(self, made: Report) -> dict[str, Any]:
        """The Fréchet distances and the distances to the nearest training image."""
        inputs, others = self._real(made)
        generated = self._generated(made, inputs)
        embed = jax.jit(lambda images: self.frozen.encoder.apply(self.frozen.params, images))
        features = [_by_batch(embed, images) for images in (generated, inputs, others)]
        rng = np.random.default_rng(0)
        rows = rng.choice(len(self.train.images), len(inputs), len(self.train.images) < len(inputs))
        trained = _by_batch(embed, scaled(self.train.images[rows]))
        blurred = _by_batch(embed, np.broadcast_to(inputs.mean(axis=0), inputs.shape))
        nearest = {
            name: _nearest(images, scaled(self.train.images))[0]
            for name, images in (("generated", generated), ("test", others))
        }

        def distance(first: np.ndarray, second: np.ndarray) -> float:
            return float(frechet_distance(jnp.asarray(first), jnp.asarray(second)))

        return {
            "frechet": {
                "features_of": self.frozen.name,
                "images": len(inputs),
                "generated": distance(features[0], features[2]),
                "other test images": distance(features[1], features[2]),
                "training images": distance(trained, features[2]),
                "the mean image": distance(blurred, features[2]),
            },
            "nearest_training_image": {
                name: {
                    "median": float(np.median(found)),
                    "smallest": float(found.min()),
                    "below_1_percent_of_test": float(
                        (found < np.quantile(nearest["test"], 0.01)).mean()
                    ),
                }
                for name, found in nearest.items()
            },
        }

    def draw(self, made: Report) -> None:
        """`samples.png`, `interpolations.png` and `nearest.png`."""
        from jaxmeta import plots

        inputs, _ = self._real(made, _ROWS)
        params, (_, learner, first) = made.trained.meta_params, made.test("test")
        adapted = learner.adapt(
            first.learn_key, params, first.task.support, **shared_of(learner, made.trained)
        )
        several = jnp.repeat(jnp.asarray(inputs), _COLUMNS, axis=0)
        samples = np.asarray(jax.jit(learner.predict)(adapted, several, key=made.key))
        rest = np.asarray(jax.jit(learner.predict)(adapted, jnp.asarray(inputs)))
        samples = samples.reshape(len(inputs), _COLUMNS, *inputs.shape[1:])
        plots.image_grid(
            made.folder / "samples.png",
            [np.stack([one, own, *more]) for one, own, more in zip(inputs, rest, samples)],
            title=f"{made.title}\ntest image, output without noise, samples",
            apart=2,
        )
        problem = made.tests["test"].problem
        shares = jnp.linspace(0, 1, _COLUMNS)
        paths = made.recipe.interpolated(problem, params, made.key, jnp.asarray(inputs), shares)
        plots.image_grid(
            made.folder / "interpolations.png",
            list(np.asarray(paths)),
            title=f"{made.title}\ninterpolations",
        )
        flat = samples[:, 0]
        rows = _nearest(flat, scaled(self.train.images))[1]
        plots.image_grid(
            made.folder / "nearest.png",
            [np.stack([flat[i], *scaled(self.train.images[rows[i]])]) for i in range(len(flat))],
            title=f"{made.title}\na sample, and the nearest training images",
            apart=1,
        )

    def _real(self, made: Report, number: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of test images: two images of a class each."""
        number = number or self.number
        draw: Callable[..., Any] = jax.jit(lambda sample, key: sample(key))
        source: Sampler = made.tests["test"].source  # pyright: ignore[reportAssignmentType]
        found, key = [], made.key
        while sum(len(first) for first, _ in found) < number:
            key, own = jax.random.split(key)
            task = draw(source, own)
            found.append((np.asarray(task.support.inputs), np.asarray(task.query.inputs)))
        first, second = (np.concatenate(part)[:number] for part in zip(*found))
        return first, second

    def _generated(self, made: Report, inputs: np.ndarray) -> np.ndarray:
        learner = made.learners["test"]
        _, _, first = made.test("test")
        adapted = learner.adapt(
            first.learn_key,
            made.trained.meta_params,
            first.task.support,
            **shared_of(learner, made.trained),
        )
        draw = jax.jit(learner.predict)
        keys = iter(jax.random.split(made.key, 2 + len(inputs)))
        return _by_batch(lambda images: draw(adapted, images, key=next(keys)), inputs)


def _by_batch(
    function: Callable[[Array], Array], images: np.ndarray, size: int = 100
) -> np.ndarray:
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        filled = jnp.asarray(np.resize(batch, (size, *batch.shape[1:])))
        found.append(np.asarray(function(filled))[: len(batch)])
    return np.concatenate(found)


def _nearest(
    images: np.ndarray, among: np.ndarray, count: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """The root mean square difference to the nearest of other images, and the rows of the first.

    Returns:
      float `[N]`, and int `[N, count]`, nearest first.
    """
    flat, others = images.reshape(len(images), -1), among.reshape(len(among), -1)
    squares = np.square(flat).sum(axis=1)[:, None] + np.square(others).sum(axis=1)[None]
    squares = np.maximum(squares - 2 * flat @ others.T, 0) / flat.shape[1]
    rows = np.argsort(squares, axis=1)[:, : min(count, len(others))]
    return np.sqrt(np.take_along_axis(squares, rows[:, :1], axis=1)[:, 0]), rows
