"""Speed of the search step of DARTS beside PyTorch: `python -m experiments.search_speed`.

A supernet of 8 channels and one cell per stage, two batches of 64 images of 32×32 pixels: a step of
the architecture on one, a step of the weights on the other. Both first take the same steps from the
same parameters, and are measured only if losses and architectures agree.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

from experiments.search_peer import Settings, Step, torch_search
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.core import Batch, Task, cross_entropy
from jaxmeta.data.samplers import sampler
from jaxmeta.learners import darts
from jaxmeta.models import supernet
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count
from jaxmeta.training import alternating_update
from jaxmeta.training.state import TrainState
from jaxmeta.training.update import chunk_of

CLASSES = 10
Order = Literal["first-order", "second-order"]


@dataclass(frozen=True)
class SearchSpeed:
    """Measure the search step of DARTS on this machine, in turns with PyTorch."""

    differentiation: tuple[Order, ...] = ("first-order", "second-order")
    """Ways to differentiate the step of the weights."""
    width: Count = 8
    """Channels of the first stage."""
    cells: Count = 1
    """Cells per stage."""
    batch_size: Count = 64
    """Images of each of the two batches."""
    image_size: Count = 32
    """Side of the images."""
    rounds: Count = 7
    """Number of timed rounds, in each of which both have a turn."""
    steps: Count = 3
    """Steps per turn."""
    out: Path = Path("search-speed.json")
    """JSON file for the figures."""


def random_task(batch_size: int, size: int) -> Task:
    """Two batches of random images."""
    rng = np.random.default_rng(0)

    def batch() -> Batch:
        images = rng.normal(size=(batch_size, size, size, 3)).astype(np.float32)
        return Batch(images, rng.integers(0, CLASSES, batch_size).astype(np.int32))

    return Task(batch(), batch())


def jaxmeta_search(
    task: Task, options: SearchSpeed, settings: Settings
) -> tuple[TrainState, Callable[[TrainState], tuple[TrainState, Any]]]:
    """The initial state, and `steps(state) -> (state, losses)`, compiled for one turn."""
    weights = optax.chain(
        optax.clip_by_global_norm(settings.weight_clip),
        optax.add_decayed_weights(settings.weight_decay),
        optax.sgd(settings.weight_rate, momentum=settings.momentum, nesterov=True),
    )
    architecture = optax.chain(
        optax.add_decayed_weights(settings.decay), optax.adam(settings.rate, b1=0.5)
    )
    order: Order = "second-order" if settings.second_order else "first-order"
    network = supernet(CLASSES, width=options.width, cells=options.cells)
    learner = darts(network, cross_entropy, weights, differentiation=order)
    update = alternating_update(learner, architecture)
    sample = sampler(lambda task, key: task, jax.tree.map(jax.numpy.asarray, task))
    state = jax.jit(update.init)(jax.random.key(0), sample)
    chunk = chunk_of(update.update)

    def steps(state: TrainState) -> tuple[TrainState, Any]:
        state, infos = chunk(state, sample, length=options.steps)
        return state, np.asarray(infos.loss)

    return state, steps


def check_agreement(losses: np.ndarray, state: TrainState, peer: Step) -> dict[str, float]:
    """Check that PyTorch computes the same after the same steps.

    Returns:
      the largest differences.

    Raises:
      ArithmeticError: losses or architectures differ by more than rounding.
    """
    others = np.array([peer.take() for _ in losses])
    apart = {
        "loss": float(np.abs(losses - others).max()),
        "logits": float(np.abs(np.asarray(state.meta_params) - peer.logits()).max()),
    }
    # A step of Adam changes a logit by up to its rate, 3e-4, whatever the size of the gradient.
    if apart["loss"] > 1e-3 or apart["logits"] > 1e-4:
        raise ArithmeticError(f"the search in PyTorch is another one: {apart}.")
    return apart


def measure(options: SearchSpeed) -> dict[str, Any]:
    """Measure both in turns, write the medians and return them."""
    import torch  # pyright: ignore[reportMissingImports]

    task = random_task(options.batch_size, options.image_size)
    with result_file(options.out, lambda found: "search_steps" in found):
        rows = {}
        for order in options.differentiation:
            settings = Settings(second_order=order == "second-order")
            state, steps = jaxmeta_search(task, options, settings)
            weights, logits = jax.device_get((state.shared.weights, state.meta_params))
            peer = torch_search(weights, logits, task, options.cells, settings)
            state, losses = steps(state)
            apart = check_agreement(losses, state, peer)
            taken: dict[str, list[float]] = {"jaxmeta": [], "torch": []}
            for _ in range(options.rounds):
                start = time.perf_counter()
                state, _ = steps(state)
                middle = time.perf_counter()
                for _ in range(options.steps):
                    peer.take()
                taken["torch"].append((time.perf_counter() - middle) / options.steps)
                taken["jaxmeta"].append((middle - start) / options.steps)
            ratios = [theirs / ours for ours, theirs in zip(taken["jaxmeta"], taken["torch"])]
            images = 2 * options.batch_size
            rows[order] = {
                "images_per_second": {
                    name: images / statistics.median(own) for name, own in taken.items()
                },
                "ratio_to_torch": statistics.median(ratios),
                "ratios": ratios,
                "largest_difference": apart,
            }
            print(f"{order} · {rows[order]['images_per_second']}", flush=True)
            print(f"{order} · {rows[order]['ratio_to_torch']:.2f} times PyTorch", flush=True)
        sizes = {name: getattr(options, name) for name in ("width", "cells", "batch_size")}
        results = {
            "search_steps": rows,
            **sizes,
            "image_size": options.image_size,
            "rounds": options.rounds,
            "steps": options.steps,
            "torch": torch.__version__,
            **provenance(),
        }
        files.write_json(options.out, results)
    return results


if __name__ == "__main__":
    command = "python -m experiments.search_speed"
    sys.exit(guarded(lambda: measure(read_arguments(SearchSpeed, command))))
