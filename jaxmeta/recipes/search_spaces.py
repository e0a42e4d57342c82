"""The spaces of architecture search: tabulated networks, and networks that are trained."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Batch, Key, MetaLearner, Task
from jaxmeta.data import load
from jaxmeta.data.architectures import nasbench_201, nasbench_macro, row_of, table_space
from jaxmeta.data.cache import digest
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.learners.architecture import trained_accuracy
from jaxmeta.models import ChainLayer, chain_network
from jaxmeta.recipes.tasks import Judge
from jaxmeta.training.update import Trained

_CONVOLUTIONS = ((1, 32), (3, 16), (3, 32), (5, 16), (5, 32))  # window, filters
LETTER_LAYERS = (
    ChainLayer("end", "identity"),
    *(ChainLayer(f"conv{w}-{filters}", "convolution", w, filters) for w, filters in _CONVOLUTIONS),
    ChainLayer("pool", "pool"),
)
LETTER_DECISIONS = 5
_PARTS = {"train": (0, 12), "validation": (12, 16), "test": (16, 20)}  # images of each letter


class Searched(NamedTuple):
    """A space with what a search of it needs.

    Attributes:
      space: the architectures.
      data: identifies the accuracies, or the images.
      sources: the tasks of `validation`, which a search sees, and of `test`.
      judge: judges what was found on the tasks of the test.
      validate: likewise in validation; None for the accuracy that the search has seen.
      text: `text(architecture)`, for people.
      extra_results: `extra_results(architecture) -> entries` of the results.
      largest: the largest test accuracy of the space, if it is known.
      accuracy_text: what the accuracy is, for the protocol.
    """

    space: SearchSpace
    data: Mapping[str, Any]
    sources: Mapping[str, Sampler]
    judge: Judge
    validate: Judge | None
    text: Callable[[np.ndarray], str]
    extra_results: Callable[[np.ndarray], dict[str, Any]]
    largest: float | None
    accuracy_text: str


@functools.cache  # the same functions for the same settings, which share compiled programs
def tabulated(name: str, target: str) -> Searched:
    """The networks of a published table."""
    table = nasbench_201(target) if name == "nasbench-201" else nasbench_macro()
    options, tests = len(table.options), table.tests
    best = {name: float(own.max()) for name, own in tests.items()}

    def validate(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        """The accuracy that the search sees; that of the test only to be drawn."""
        row = row_of(_derived(learner, trained), options)
        seen = jnp.asarray(table.searched)[row]
        return 1 - seen, {"accuracy": seen, "test_accuracy": jnp.asarray(tests[target])[row]}

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        row = row_of(_derived(learner, trained), options)
        accuracies = {name: jnp.asarray(own)[row] for name, own in tests.items()}
        seen = jnp.asarray(table.searched)[row]
        others = {f"accuracy_{name}": own for name, own in accuracies.items() if name != target}
        return 1 - seen, {"accuracy": accuracies[target], "searched_accuracy": seen, **others}

    def extra_results(found: np.ndarray) -> dict[str, Any]:
        accuracy = tests[target][row_of(found, options)]
        rank = 1 + int((tests[target] > accuracy).sum())
        return {"rank": rank, "num_architectures": len(tests[target]), "largest_accuracy": best}

    source = sampler(no_task)
    return Searched(
        table_space(table),
        {"accuracies_sha256": digest({"searched": table.searched})},
        {"validation": source, "test": source},
        judge,
        validate,
        table.text,
        extra_results,
        best[target],
        "tabulated, of the network trained separately",
    )


@functools.cache
def letters(classes: int, steps: int, seed: int) -> Searched:
    """Small convolutional networks, trained on letters of `glyphs` when a search proposes them.

    Raises:
      ValueError: more letters than there are.
    """
    images: Any = load("glyphs").train
    if classes > len(images.names):
        raise ValueError(f"--letters {classes}: give at most {len(images.names)}.")
    chosen = np.random.default_rng(seed).permutation(len(images.names))[:classes]
    starts = np.concatenate([[0], np.cumsum(images.counts)[:-1]])

    def part(name: str) -> Batch:
        first, last = _PARTS[name]
        rows = (starts[chosen][:, None] + np.arange(first, last)).ravel()
        of_letters = images.images[rows].astype(np.float32)
        small = of_letters.reshape(len(rows), 14, 2, 14, 2, 1).mean(axis=(2, 4))
        return Batch(small / 255, np.repeat(np.arange(classes), last - first).astype(np.int32))

    parts = {name: part(name) for name in _PARTS}
    chain = chain_network(LETTER_LAYERS, LETTER_DECISIONS, classes)
    accuracy = trained_accuracy(chain, optax.adam(3e-3), steps=steps, batch_size=32)
    names = tuple(layer.name for layer in LETTER_LAYERS)
    end, pool = names.index("end"), names.index("pool")
    allowed = np.ones((len(names) + 1, len(names)), bool)
    allowed[end] = np.arange(len(names)) == end  # nothing follows the end
    allowed[pool, pool] = allowed[-1, pool] = allowed[-1, end] = False

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        """The network found, trained again with another seed."""
        found = accuracy(key, _derived(learner, trained), task)
        return 1 - found, {"accuracy": found}

    return Searched(
        SearchSpace(LETTER_DECISIONS, names, allowed, accuracy),
        {"images_sha256": digest({name: own.inputs for name, own in parts.items()})},
        {name: sampler(_task_of, parts["train"], parts[name]) for name in ("validation", "test")},
        judge,
        None,
        lambda architecture: " ".join(names[own] for own in architecture if own != end),
        lambda found: {"letters": classes},
        None,
        f"of the network trained for {steps} steps",
    )


def _derived(learner: MetaLearner, trained: Trained) -> Array:
    assert learner.derive is not None, "a search derives an architecture"
    return learner.derive(trained.meta_params, trained.shared)


def no_task(key: Key) -> Task:
    """Searches of a table have no examples."""
    return Task(jnp.zeros(()), jnp.zeros(()))


def _task_of(support: Batch, query: Batch, key: Key) -> Task:
    return Task(support, query)
