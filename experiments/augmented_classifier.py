"""A classifier of all test classes, trained on few images of each, with and without generated ones.

    python -m experiments.augmented_classifier runs/NAME

This is the test of DAGAN's authors (Antoniou et al. 2018, section 5): the generator has not seen
these classes. For every number of images per class, the same network is trained from the same
weights, for the same number of updates and on the same draws: without augmentation, with affine and
elastic distortions, and with images of the generator, which replace a share of every batch. All are
tested on the same images, which no classifier is trained on. The interval is over classes.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import files
from jaxmeta.commands.guard import RunPath, guarded, read_arguments
from jaxmeta.core import Array, Key, cross_entropy
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.scaling import scaled
from jaxmeta.models import conv4
from jaxmeta.recipes.folders import IDENTITY, read_config, read_identity
from jaxmeta.recipes.frozen import drawn_views
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import AtLeastTwo, Bound, Count, Positive
from jaxmeta.recipes.shipped import find_run
from jaxmeta.training.estimates import estimate

Draw = Callable[[Key, Array], Array]
Share = Annotated[float, Bound(lambda value: 0 < value <= 1, "above 0 and at most 1")]


@dataclass(frozen=True)
class AugmentedClassifier:
    """Train classifiers of the test classes of a generator's run."""

    run_dir: RunPath
    """A run of experiments.generate."""
    classes: AtLeastTwo | None = None
    """Number of test classes, drawn with a fixed seed. Defaults to all."""
    examples: tuple[Count, ...] = (5, 10, 15)
    """Training images of each class."""
    share: Share = 0.5
    """Share of a batch that is replaced by distorted or generated images."""
    steps: Count = 2000
    """Updates of each classifier."""
    batch_size: Count = 64
    """Images per update."""
    width: Count = 64
    """Channels of its four convolutions of stride 2."""
    rate: Positive = 1e-3
    """Learning rate of Adam, with a cosine schedule."""
    seeds: AtLeastTwo = 3
    """Classifiers for each row, with other initial weights and draws."""
    out: Path | None = None
    """JSON file for the result. Defaults to augmented-classifier.json in the run folder."""


def table_of(classes: ClassImages, trained: int, number: int | None = None) -> np.ndarray:
    """The images as float32 `[classes, images, H, W, C]`, as many of each class as all have.

    Args:
      classes: the test classes.
      trained: images of each class that a classifier may be trained on.
      number: classes to draw. Defaults to all, in their order.

    Raises:
      ValueError: no image is left for the test; more classes than there are.
    """
    places = np.arange(len(classes.names))
    if number is not None:
        if number > len(places):
            raise ValueError(f"--classes {number}: give at most {len(places)}.")
        places = np.random.default_rng(0).permutation(places)[:number]
    count = int(classes.counts.min())
    if count <= trained:
        raise ValueError(
            f"--examples {trained}: the smallest class has {count} images, and one of each class "
            f"is for the test; give at most {count - 1}."
        )
    rows = classes.starts[places, None] + np.arange(count)
    return scaled(classes.images[rows])


def classifier(
    images_KN: np.ndarray, trained: int, options: AugmentedClassifier, draw: Draw | None
) -> Callable[[Key, int], Array]:
    """`accuracies(key, examples) -> [classes]` of a classifier on images from `trained` on."""
    classes, test = len(images_KN), jnp.asarray(images_KN[:, trained:])
    network = conv4(classes, width=options.width, downsampling="stride", query_statistics="group")
    optimizer = optax.adam(optax.cosine_decay_schedule(options.rate, options.steps))
    table = jnp.asarray(images_KN[:, :trained])

    def batch(table: Array, key: Key, examples: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, 4)
        shape = (options.batch_size,)
        labels = jax.random.randint(keys[0], shape, 0, classes)
        images = table[labels, jax.random.randint(keys[1], shape, 0, examples)]
        if draw is not None:
            replaced = jax.random.uniform(keys[2], shape) < options.share
            images = jnp.where(replaced[:, None, None, None], draw(keys[3], images), images)
        return images, labels

    @jax.jit
    def accuracies(table: Array, test: Array, key: Key, examples: Array) -> Array:
        init_key, run_key = jax.random.split(key)
        params = network.init(init_key, table[:, 0])

        def step(state: Any, key: Key) -> tuple[Any, None]:
            images, labels = batch(table, key, examples)

            def loss(params: Any) -> Array:
                return cross_entropy(network.apply(params, images), labels, None)[0]

            updates, own = optimizer.update(jax.grad(loss)(state[0]), state[1])
            return (optax.apply_updates(state[0], updates), own), None

        keys = jax.random.split(run_key, options.steps)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        guesses = jax.lax.map(lambda images: network.apply(params, images).argmax(axis=1), test)
        return (guesses == jnp.arange(classes)[:, None]).mean(axis=1)

    return lambda key, examples: accuracies(table, test, key, jnp.asarray(examples))


def measure(options: AugmentedClassifier) -> dict[str, Any]:
    """Train all classifiers, write the result after each row, and return it.

    Raises:
      ValueError: no run of a generator, or more images than a class has.
      OSError: a file can't be read or written.
    """
    run = find_run(options.run_dir)
    experiment, data = read_config(run)
    generate, drawn_by = drawn_views(str(options.run_dir), data.get("images_sha256", ""))
    domain: Any = experiment.domain  # of a generator's run, as `drawn_views` has checked
    dataset = domain.images.load(experiment.training.seed)
    trained = max(options.examples)
    images_KN = table_of(dataset.test, trained, options.classes)
    methods: dict[str, Draw | None] = {
        "no augmentation": None,
        "distortions": drawn_views(None, "")[0],
        "generated": generate,
    }
    path = options.out or run / "augmented-classifier.json"
    results: dict[str, Any] = {
        "dataset": dataset.protocol,
        "run": run.name,
        IDENTITY: read_identity(run),
        "generator": drawn_by,
        "classes": len(images_KN),
        "test_images_per_class": images_KN.shape[1] - trained,
        **{name: getattr(options, name) for name in ("share", "steps", "batch_size", "width")},
        "rate": options.rate,
        "seeds": options.seeds,
        **provenance(),
    }
    found: dict[str, dict[int, np.ndarray]] = {}
    with result_file(path, lambda found: "test_images_per_class" in found):
        for method, draw in methods.items():
            accuracies = classifier(images_KN, trained, options, draw)
            for examples in options.examples:
                runs = [accuracies(jax.random.key(seed), examples) for seed in range(options.seeds)]
                found.setdefault(method, {})[examples] = np.mean(np.asarray(runs), axis=0)
                results["rows"] = rows_of(found)
                files.write_json(path, results)
                print(f"{examples} images per class, {results['rows'][-1]}", flush=True)
    print(f"result: {path}")
    return results


def rows_of(found: dict[str, dict[int, np.ndarray]]) -> list[dict[str, Any]]:
    """Accuracies, and differences to no augmentation, class by class."""
    rows = []
    for method, by_examples in found.items():
        for examples, own in by_examples.items():
            mean, ci95 = estimate(own)
            lead, lead_ci95 = estimate(own - found["no augmentation"][examples])
            row = {"method": method, "examples": examples}
            row |= {"accuracy": float(mean), "accuracy_ci95": float(ci95)}
            rows.append(row | {"difference": float(lead), "difference_ci95": float(lead_ci95)})
    return rows


def main() -> int:
    """Read the arguments and measure; returns an exit status."""
    prog = "python -m experiments.augmented_classifier"
    return guarded(lambda: measure(read_arguments(AugmentedClassifier, prog)))


if __name__ == "__main__":
    sys.exit(main())
