"""Families of optimization problems, the tasks of learned optimizers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Key,
    Model,
    Objective,
    PyTree,
    Task,
    cross_entropy,
    squared_error,
)
from jaxmeta.data._episodes import episodes
from jaxmeta.data.classes import ClassImages
from jaxmeta.data.samplers import Sampler, sampler

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
}


class Family(NamedTuple):
    """A family of optimization problems.

    Attributes:
      sample: `sample(key) -> Task`, pure: the inner optimizer minimises the loss on the support
        set, and is evaluated on the query set.
      model: the model to optimise, initialised anew in every task.
      objective: the loss of the model's outputs.
      problem_batch: examples per step of the inner optimizer. Defaults to all.
    """

    sample: Sampler
    model: Model
    objective: Objective
    problem_batch: int | None = None


def quadratics(dimensions: int = 10) -> Family:
    """Random quadratics: f(θ) = mean (Wθ − y)², with standard normal entries of W, y and θ_0.

    The query set is the support set: these problems don't test generalisation.

    Raises:
      ValueError: fewer than 1 dimension.

    Source: Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    section 3.1.

    >>> family = quadratics(3)
    >>> task = family.sample(jax.random.key(0))
    >>> theta = family.model.init(jax.random.key(1), task.support.inputs)
    >>> family.model.apply(theta, task.support.inputs).shape
    (3,)
    """
    if dimensions < 1:
        raise ValueError(f"quadratics of {dimensions} dimensions; give at least 1.")

    def init(key: Key, inputs: Array) -> Array:
        return jax.random.normal(key, inputs.shape[-1:])

    def apply(
        params: Array, inputs: Array, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        return inputs @ params

    sample = sampler(_quadratic, dimensions=dimensions)
    return Family(sample, Model(init, apply), squared_error)


def _quadratic(key: Key, *, dimensions: int) -> Task:
    matrix_key, vector_key = jax.random.split(key)
    batch = Batch(
        jax.random.normal(matrix_key, (dimensions, dimensions)),
        jax.random.normal(vector_key, (dimensions,)),
    )
    return Task(batch, batch)


def classifiers(
    classes: ClassImages,
    *,
    ways: int,
    shots: int,
    queries: int,
    widths: tuple[int, int] = (8, 32),
    activations: Sequence[str] = ("relu", "tanh", "sigmoid"),
    scales: tuple[float, float] = (0.5, 2.0),
    problem_batch: int | None = 64,
) -> Family:
    """Image classification by perceptrons with one hidden layer, different in every task.

    Drawn for each task: its classes and images, the width of its hidden layer (uniform), its
    activation, and the scale of its initial weights (log-uniform). All tasks share one compiled
    shape: the unused units of a narrow layer are masked.

    Args:
      classes: the images.
      ways, shots, queries: see `episodes`.
      widths: smallest and largest width of the hidden layer.
      activations: names in `ACTIVATIONS`.
      scales: smallest and largest factor by which the initial weights are scaled; their std is
        1/√(inputs) in the hidden layer and 1/√(width) in the head.
      problem_batch: images per step; None, or a number of at least `ways · shots`, uses all.

    Raises:
      ValueError: as `episodes`; an unknown activation; an empty range.

    Source: the family of Metz et al. 2019, "Understanding and correcting pathologies in the
    training of learned optimizers", section 5, on small perceptrons.
    """
    unknown = [name for name in activations if name not in ACTIVATIONS]
    if unknown or not activations:
        raise ValueError(f"activations {unknown}; choose from {', '.join(ACTIVATIONS)}.")
    if not 1 <= widths[0] <= widths[1] or not 0 < scales[0] <= scales[1]:
        raise ValueError(f"widths {widths}, scales {scales}: give (low, high), positive.")
    draw = episodes(classes, ways=ways, shots=shots, queries=queries)
    ranges = {"widths": tuple(widths), "scales": tuple(scales)}
    sample = sampler(_classification, draw, **ranges, kinds=len(activations))
    if problem_batch is not None and problem_batch >= ways * shots:
        problem_batch = None
    model = _perceptron(ways, widths[1], [ACTIVATIONS[name] for name in activations])
    return Family(sample, model, cross_entropy, problem_batch)


def _classification(
    draw: Sampler,
    key: Key,
    *,
    widths: tuple[int, int],
    scales: tuple[float, float],
    kinds: int,
) -> Task:
    task_key, width_key, kind_key, scale_key = jax.random.split(key, 4)
    width = jax.random.randint(width_key, (), widths[0], widths[1] + 1)
    low, high = map(math.log, scales)
    network = {
        "units": (jnp.arange(widths[1]) < width).astype(jnp.float32),
        "activation": jax.random.randint(kind_key, (), 0, kinds),
        "scale": jnp.exp(jax.random.uniform(scale_key, (), minval=low, maxval=high)),
    }

    def with_network(batch: Batch) -> Batch:
        # Repeated for every example, so that a minibatch indexes all leaves alike.
        rows = batch.targets.shape[0]
        each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), network)
        return batch._replace(inputs={"images": batch.inputs.reshape(rows, -1), **each})

    task = draw(task_key)
    return Task(with_network(task.support), with_network(task.query))


def _perceptron(ways: int, width: int, activations: list[Callable[[Array], Array]]) -> Model:
    """One hidden layer; its units, activation and initial scale come with the inputs."""

    def init(key: Key, inputs: dict[str, Any]) -> PyTree:
        hidden_key, head_key = jax.random.split(key)
        size, units = inputs["images"].shape[-1], inputs["units"][0]
        hidden = jax.random.normal(hidden_key, (size, width)) * inputs["scale"][0] / math.sqrt(size)
        head = jax.random.normal(head_key, (width, ways)) * inputs["scale"][0]
        return {
            "hidden": {"kernel": hidden, "bias": jnp.zeros((width,))},
            "head": {"kernel": head / jnp.sqrt(units.sum()), "bias": jnp.zeros((ways,))},
        }

    def apply(
        params: PyTree,
        inputs: dict[str, Any],
        *,
        reference: PyTree = None,
        key: Key | None = None,
    ) -> Array:
        values = inputs["images"] @ params["hidden"]["kernel"] + params["hidden"]["bias"][None]
        kinds = jnp.stack([activation(values) for activation in activations])
        chosen = jnp.take_along_axis(kinds, inputs["activation"][None, :, None], axis=0)[0]
        hidden = chosen * inputs["units"]
        return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]

    return Model(init, apply)
