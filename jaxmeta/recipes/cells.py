"""The cells that runs have found: in results, drawn, and trained like any other network."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.architecture import CELL_OPERATIONS, cell_text
from jaxmeta.core import Array, Model, PyTree, cross_entropy
from jaxmeta.data import ClassImages
from jaxmeta.data.samplers import Sampler
from jaxmeta.data.scaling import scaled
from jaxmeta.learners import supervised
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import estimate
from jaxmeta.training.update import chunk_of, meta_update

_RATE = 0.05  # 0.1 in NAS-Bench-201, with batches of 256
_CHUNK = 20


def architecture_of(made: Report) -> np.ndarray:
    """The architecture that a run has found, int32 `[decisions]`."""
    derive = made.learners["test"].derive
    assert derive is not None, "a search derives an architecture"
    return np.asarray(derive(made.trained.meta_params, made.trained.shared))


def cell_results(made: Report) -> dict[str, Any]:
    """The cell of a run whose meta-parameters hold logits, and its mixing weights `[6, 5]`."""
    problem = made.tests["test"].problem
    assert problem is not None
    mixing = jax.nn.softmax(made.trained.meta_params[problem.architecture])
    return {
        "architecture": cell_text(architecture_of(made)),
        "mixing_weights": np.asarray(mixing).round(4).tolist(),
    }


def cell_lines(results: Mapping[str, Any]) -> list[str]:
    """The architecture, in a line."""
    return [f"found {results['architecture']}"]


def draw_cell(made: Report) -> None:
    """Draw the cell into the run folder."""
    from jaxmeta import plots

    names = [CELL_OPERATIONS[index] for index in architecture_of(made)]
    plots.cell(made.folder / "cell.png", names, title=made.title)


class Alone(NamedTuple):
    """How the network of a cell is trained.

    Attributes:
      train: batches of the training images.
      test: the images that it is tested on.
      steps: training steps.
      batch_size: images per batch of the test, whose statistics normalise them.
      seed: of the weights, the batches, and the order of the test images.
    """

    train: Sampler
    test: ClassImages
    steps: int
    batch_size: int
    seed: int


def trained_alone(network: Model, alone: Alone) -> dict[str, Any]:
    """Train a network from new weights, and test it: its accuracy with an interval over images.

    As in NAS-Bench-201: SGD with Nesterov's momentum 0.9, weight decay 5e-4, and a learning rate
    that falls along a cosine to 0.
    """
    start = time.perf_counter()
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4),
        optax.sgd(optax.cosine_decay_schedule(_RATE, alone.steps), momentum=0.9, nesterov=True),
    )
    update = meta_update(supervised(network, cross_entropy), optimizer, task_batch=1)
    state = jax.jit(update.init)(jax.random.key(alone.seed), alone.train)
    run_chunk, losses = chunk_of(update.update), np.zeros(0)
    for done in range(0, alone.steps, _CHUNK):
        length = min(_CHUNK, alone.steps - done)
        state, infos = run_chunk(state, alone.train, length=length)
        losses = np.asarray(infos.loss)
    correct = _correct(network, state.meta_params, alone)
    mean, ci95 = estimate(correct)
    return {
        "accuracy": float(mean),
        "accuracy_ci95": float(ci95),
        "train_loss": float(losses.mean()),
        "steps": alone.steps,
        "test_images": len(correct),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.meta_params)),
        "query_statistics": "batch",
        "seed": alone.seed,
        "wall_seconds": round(time.perf_counter() - start, 1),
    }


def _correct(network: Model, params: PyTree, alone: Alone) -> np.ndarray:
    """1 for every test image that is classified correctly, else 0, in a random order."""
    images, counts = alone.test.images, alone.test.counts
    labels = np.repeat(np.arange(len(counts)), counts)
    # Shuffled, since a batch of one class would be normalised by the statistics of that class.
    order = np.random.default_rng(alone.seed).permutation(len(images))

    @jax.jit
    def predicted(params: PyTree, images: Array) -> Array:
        return network.apply(params, scaled(images)).argmax(axis=-1)

    parts = np.array_split(order, -(-len(order) // alone.batch_size))
    found = [np.asarray(predicted(params, jnp.asarray(images[part]))) for part in parts]
    return (np.concatenate(found) == labels[order]).astype(np.float64)
