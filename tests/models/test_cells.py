"""Networks of cells: the supernet against single operations, and the cells that it contains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, cross_entropy, maml
from jaxmeta.architecture import CELL_EDGES as EDGES
from jaxmeta.architecture import CELL_OPERATIONS as OPERATIONS
from jaxmeta.architecture import cell_text
from jaxmeta.inner import excluding
from jaxmeta.models import cell_network, relaxed, supernet
from jaxmeta.models._cells import _Cell
from jaxmeta.ops import average_pool, mean_filter

KEY = jax.random.key(0)
CELL = (1, 3, 3, 4, 0, 2)
IMAGES = jax.random.normal(jax.random.key(1), (4, 8, 12, 2))
SIZES = {"width": 2, "cells": 1}


def kept(params, like):
    """The parameters of a supernet that a network of one cell has as well."""
    return {
        name: kept(params[name], own) if isinstance(own, dict) else params[name]
        for name, own in like.items()
    }


@pytest.fixture(scope="module")
def nets():
    model, single = supernet(3, **SIZES), cell_network(CELL, 3, **SIZES)
    params = model.init(KEY, IMAGES)
    hot = jax.nn.one_hot(jnp.array(CELL), len(OPERATIONS))
    return params, hot, single.apply(kept(params, single.init(KEY, IMAGES)), IMAGES)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_supernet_contains_every_cell(nets, sampled):
    params, hot, expected = nets
    found = supernet(3, **SIZES, sampled=sampled).apply({**params, "architecture": hot}, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_relaxed_logits_are_a_softmax(nets):
    params, hot, expected = nets
    model = relaxed(supernet(3, **SIZES))
    found = model.apply({**params, "architecture": 60 * hot}, IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    start = model.init(KEY, IMAGES)["architecture"]
    assert 0 < float(jnp.abs(start).max()) < 0.01


def test_a_cell_by_hand():
    """node_3 of a cell of skip connections, means and zeros on a 1×1 stage is a known sum."""
    params = cell_network((1, 1, 4, 1, 4, 0), **SIZES).init(KEY, IMAGES)
    assert not [name for name in params if name.startswith("cell")]  # nothing to learn within them
    # node_1 = x, node_2 = x + mean(x), node_3 = x + mean(node_1)
    x = IMAGES
    found = _Cell(2, (1, 1, 4, 1, 4, 0), False).apply({}, x, None)
    np.testing.assert_allclose(found, x + mean_filter(x), rtol=1e-5, atol=1e-6)


def test_the_text_of_a_cell_names_every_edge():
    text = cell_text(CELL)
    rows = [row.strip("|").split("|") for row in text.split("+")]
    names = [name for row in rows for name in row]
    assert names == [f"{OPERATIONS[index]}~{start}" for index, (_, start) in zip(CELL, EDGES)]


def test_pools_against_numpy():
    images = np.asarray(IMAGES)
    pooled = images.reshape(4, 4, 2, 6, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(average_pool(IMAGES), pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(average_pool(IMAGES[:, :7]), pooled[:, :3], rtol=1e-5, atol=1e-6)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    windows = [padded[:, i : i + 8, j : j + 12] for i in range(3) for j in range(3)]
    np.testing.assert_allclose(
        mean_filter(IMAGES), np.nanmean(windows, axis=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: supernet(3, width=0), "width 0"),
        (lambda: cell_network((1, 2, 3), 3), "give 6 operations"),
        (lambda: cell_network((1, 2, 3, 1, 2, 5), 3), "from 0 to 4"),
        (lambda: supernet(3, width=2).init(KEY, jnp.ones((1, 3, 3, 1))), "too small"),
        (lambda: supernet(3, width=2).init(KEY, jnp.ones((1, 8, 9, 1))), "images of 8×9"),
        (lambda: mean_filter(IMAGES, 2), "odd number"),
        (lambda: average_pool(IMAGES, 20), "average_pool: a window of 20"),
    ],
)
def test_errors(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.slow
def test_maml_learns_an_architecture_whose_weights_adapt(nets):
    """The meta-gradient reaches the logits; the inner loop changes the weights alone."""
    learner = maml(
        relaxed(supernet(3, **SIZES)),
        cross_entropy,
        optax.sgd(0.1),
        inner_steps=1,
        adapts=excluding("architecture"),
    )
    batch = Batch(IMAGES, jnp.array([0, 1, 2, 0]))
    meta_params = learner.init(KEY, Task(batch, batch))
    adapted = jax.jit(learner.adapt)(KEY, meta_params, batch).params
    np.testing.assert_array_equal(adapted["architecture"], meta_params["architecture"])
    assert jnp.abs(adapted["head"]["kernel"] - meta_params["head"]["kernel"]).max() > 1e-4
    loss = lambda params: learner.loss(KEY, params, Task(batch, batch))[0]  # noqa: E731
    grads = jax.jit(jax.grad(loss))(meta_params)["architecture"]
    assert jnp.abs(grads[:, 1:]).min() > 0
