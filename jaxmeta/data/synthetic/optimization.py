"""Families of optimization problems to learn an optimizer from."""

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
    """Problems of one kind.

    Attributes:
      sample: `sample(key) -> Task`, pure: what the support set holds is to be minimised, the query
        set judges.
      model: whose parameters are sought; it starts anew in every task.
      objective: of the model's outputs.
      problem_batch: examples a step of the inner optimizer; None takes all of them.
    """

    sample: Sampler
    model: Model
    objective: Objective
    problem_batch: int | None = None


def quadratics(dimensions: int = 10) -> Family:
    """Random quadratics: f(θ) = mean (Wθ − y)², all entries of W, y and θ_0 normal.

    The query set is the support set: nothing is to be generalised.

    Raises:
      ValueError: fewer dimensions than 1.

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
    """Perceptrons of one hidden layer that learn to tell images apart, each task another.

    Drawn for a task: its classes and images, the width of its hidden layer (uniformly), its
    activation, and the scale of its first weights (log-uniformly). All have one compiled shape: a
    narrow layer is a wide one whose other units are masked.

    Args:
      classes: the images.
      ways, shots, queries: classes of a task; images of each to learn from and to be judged on.
      widths: of the hidden layer, the least and the largest.
      activations: of `ACTIVATIONS`.
      scales: factors to the std 1/√(inputs) of the first weights, the least and the largest.
      problem_batch: images a step, all of them where there are not more.

    Raises:
      ValueError: as `episodes`; an unknown activation; a range that is none.

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
        # Of every example, so that a minibatch is one of all leaves.
        rows = batch.targets.shape[0]
        each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), network)
        return batch._replace(inputs={"images": batch.inputs.reshape(rows, -1), **each})

    task = draw(task_key)
    return Task(with_network(task.support), with_network(task.query))


def _perceptron(ways: int, width: int, activations: list[Callable[[Array], Array]]) -> Model:
    """One hidden layer; which units it has, its activation and first scale come with the inputs."""

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
