"""Synthetic tables: shapes, numbers of classes and columns, what a mask leaves out."""

import jax
import numpy as np
import pytest

from jaxmeta.data.synthetic import synthetic_tables

SIZES = {"support": (4, 20), "queries": 6, "columns": 5, "classes": 4}


@pytest.fixture(scope="module")
def drawn():
    """A thousand tables."""
    sample = jax.jit(jax.vmap(synthetic_tables(**SIZES)))
    return jax.tree.map(np.asarray, sample(jax.random.split(jax.random.key(0), 1000)))


def test_sizes_vary(drawn):
    rows = drawn.support.mask.sum(axis=1)
    assert rows.min() == 4 and rows.max() == 20
    assert 8 < np.median(rows) < 11  # log-uniform
    columns = (~np.isnan(drawn.support.inputs).all(axis=1)).sum(axis=1)
    assert columns.min() == 2 and (columns == 5).mean() > 0.5
    assert np.isnan(drawn.support.inputs).mean() > 0.1
    shown = np.where(drawn.support.mask, drawn.support.targets, -1)
    ways = np.array([len({*row.tolist()} - {-1}) for row in shown])
    assert ways.min() == 1 and ways.max() == 4 and 0.4 < (ways == 2).mean() < 0.7


def test_classes_of_no_support_row_are_not_asked(drawn):
    for support, query in zip(
        *([jax.tree.map(lambda a, i=i: a[i], part) for i in range(200)] for part in drawn)
    ):
        known = {*support.targets[support.mask].tolist()}
        asked = [own in known for own in query.targets.tolist()]
        assert query.mask.tolist() == asked


def test_columns_tell_of_the_class(drawn):
    """A row's nearest neighbour has its class more often than a random row has."""
    right, random = [], []
    for row in range(1000):
        support, query = (jax.tree.map(lambda a: a[row], part) for part in drawn)  # noqa: B023
        if support.mask.sum() < 10 or not query.mask.any():
            continue
        inputs, asked = (np.nan_to_num(own.inputs) for own in (support, query))
        scale = inputs.std(axis=0) + 1e-9
        apart = (((inputs[None] - asked[:, None]) / scale) ** 2).sum(axis=2)
        apart = np.where(support.mask[None], apart, np.inf)
        found = support.targets[apart.argmin(axis=1)]
        right.append((found == query.targets)[query.mask].mean())
        same = support.targets[support.mask][None] == query.targets[:, None]
        random.append(same[query.mask].mean())
    difference = np.array(right) - np.array(random)
    assert difference.mean() > 3 * difference.std() / len(difference) ** 0.5


@pytest.mark.parametrize(
    "changes", [{"support": (5, 4)}, {"columns": 1}, {"columns": 65}, {"classes": 1}]
)
def test_nonsense_is_refused(changes):
    with pytest.raises(ValueError, match="give at least 2 support rows, the smaller number first"):
        synthetic_tables(**{**SIZES, **changes})
