"""Aggregation of the meta-gradients of tasks, by their mean or otherwise."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmeta.core import Array, Key, PyTree

Aggregation = Literal["mean", "clipped", "median", "pcgrad", "balanced"]


class Aggregate(NamedTuple):
    """How to aggregate the gradients of the tasks of a batch.

    Attributes:
      each: `each(grads) -> grads`, applied to the gradients of each task. Defaults to the identity.
      together: `together(key, grads) -> grads`, from the gradients of all tasks, stacked
        `[tasks, ...]`, to those of the batch. Defaults to the mean. Devices exchange what it needs.
    """

    each: Callable[[PyTree], PyTree] | None = None
    together: Callable[[Key, PyTree], PyTree] | None = None


mean: Aggregate = Aggregate()
"""The mean of the gradients."""


def clipped(largest: float) -> Aggregate:
    """The mean of gradients clipped to a norm of at most `largest`.

        ḡ = 1/T Σ_t g_t · min(1, c / ‖g_t‖)

    This limits the influence of single tasks. Devices exchange no more than for the mean.

    >>> clipped(2.5).each(jnp.array([3.0, 4.0])).tolist()
    [1.5, 2.0]
    """

    def each(grads: PyTree) -> PyTree:
        scale = jnp.minimum(1.0, largest / jnp.maximum(optax.tree.norm(grads), 1e-30))
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), grads)

    return Aggregate(each=each)


def median() -> Aggregate:
    """The median of each entry over the tasks, which is robust against outliers.

    Devices exchange the gradients of all tasks.

    Source: Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning",
    definition 1.

    >>> median().together(jax.random.key(0), jnp.array([[0.0], [1.0], [9.0]])).tolist()
    [1.0]
    """
    return Aggregate(together=lambda key, grads: jax.tree.map(partial(jnp.median, axis=0), grads))


def pcgrad() -> Aggregate:
    """The mean of gradients after projecting out conflicts with other gradients.

        g_i ← g_i − (g_i·g_j / ‖g_j‖²) g_j  if g_i·g_j < 0,  for all other tasks j in random order

    Devices exchange the gradients of all tasks.

    Source: Yu et al. 2020, "Gradient surgery for multi-task learning", Algorithm 1.

    >>> pcgrad().together(jax.random.key(0), jnp.array([[1.0, 0.0], [-1.0, 1.0]])).tolist()
    [0.25, 0.75]
    """

    def together(key: Key, grads: PyTree) -> PyTree:
        rows_TP, unravel = _rows(grads)
        tasks = rows_TP.shape[0]
        squares_T = jnp.maximum(jnp.square(rows_TP).sum(axis=1), 1e-30)

        def surgery(key: Key, own: Array) -> Array:
            def project(row_P: Array, other: Array) -> tuple[Array, None]:
                along = jnp.minimum(row_P @ rows_TP[other], 0) / squares_T[other]
                return row_P - jnp.where(other == own, 0, along) * rows_TP[other], None

            return jax.lax.scan(project, rows_TP[own], jax.random.permutation(key, tasks))[0]

        changed_TP = jax.vmap(surgery)(jax.random.split(key, tasks), jnp.arange(tasks))
        return unravel(changed_TP.mean(axis=0))

    return Aggregate(together=together)


def balanced() -> Aggregate:
    """The mean of gradients rescaled to their mean norm, so that all tasks have equal weight.

        ḡ = (1/T Σ_t ‖g_t‖) · 1/T Σ_t g_t / ‖g_t‖

    Devices exchange only norms and sums.

    Source: Chen et al. 2018, "GradNorm", section 3.1, with equal training rates, and with norms
    that are set directly instead of by learned weights.

    >>> balanced().together(jax.random.key(0), jnp.array([[3.0], [-1.0]])).tolist()
    [0.0]
    """

    def together(key: Key, grads: PyTree) -> PyTree:
        rows_TP, unravel = _rows(grads)
        norms_T = jnp.linalg.norm(rows_TP, axis=1)
        units_TP = rows_TP / jnp.maximum(norms_T, 1e-30)[:, None]
        return unravel(norms_T.mean() * units_TP.mean(axis=0))

    return Aggregate(together=together)


def _rows(grads: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """The gradients of tasks as rows of a matrix, and the function that unravels one row."""
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], grads))
    return jax.vmap(lambda grads: ravel_pytree(grads)[0])(grads), unravel


def aggregate_of(name: Aggregation, largest: float = 1.0) -> Aggregate:
    """The aggregation of a given name; `largest` is the argument of `clipped`."""
    return {
        "mean": lambda: mean,
        "clipped": partial(clipped, largest),
        "median": median,
        "pcgrad": pcgrad,
        "balanced": balanced,
    }[name]()
