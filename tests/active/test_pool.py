"""Labels of a pool one by one: what the learner sees, and what it may not."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy, meta_learner, prototypical
from jaxmeta.active import (
    acquisition,
    area_under,
    bald,
    chance,
    committee,
    entropy,
    first_labels,
    from_learner,
    greedy,
    k_centre,
)
from jaxmeta.data.pool_sets import class_metrics
from jaxmeta.models import mlp

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
PARAMS = {"encoder": {}}


def own(inputs):
    return inputs


@pytest.fixture(scope="module")
def task():
    """Three classes on a line, five examples each, in no order."""
    targets = jnp.array([0, 1, 2] * 5)
    noise = jnp.linspace(-0.4, 0.4, 15)
    support = Batch(jnp.stack([3.0 * targets + noise, noise], axis=1), targets)
    query = Batch(jnp.array([[0.1, 0.0], [3.1, 0.0], [5.9, 0.0]]), jnp.arange(3))
    return Task(support, query)


@pytest.fixture(scope="module")
def solve():
    learner = prototypical(IDENTITY, cross_entropy, ways=3)
    return from_learner(learner, PARAMS, embed=own)


def test_the_support_grows_by_the_examples_that_are_chosen(task):
    """A learner that keeps what it is given; and the last loss is that of an unpadded support."""
    seen = []

    def solve(key, support, inputs):
        jax.debug.callback(lambda *leaves: seen.append(leaves), *support, ordered=True)
        learner = prototypical(IDENTITY, cross_entropy, ways=3)
        return from_learner(learner, PARAMS, embed=own)(key, support, inputs)

    acquire = acquisition(solve, chance, cross_entropy, ways=3, budget=4, start=1)
    found = jax.jit(acquire)(KEY, task)
    jax.effects_barrier()
    assert len(seen) == 5
    first = np.asarray(seen[0][1])[:3]
    np.testing.assert_array_equal(first, [0, 1, 2])  # one of each class
    chosen = np.asarray(found.chosen_B)
    assert len({*chosen.tolist()}) == 4
    for count, (inputs, targets, mask) in enumerate(seen):
        np.testing.assert_array_equal(mask, np.arange(7) < 3 + count)
        np.testing.assert_array_equal(targets[3 : 3 + count], task.support.targets[chosen[:count]])
        np.testing.assert_allclose(inputs[3 : 3 + count], task.support.inputs[chosen[:count]])
    inputs, targets, mask = (jnp.asarray(leaf) for leaf in seen[-1])
    learner = prototypical(IDENTITY, cross_entropy, ways=3)
    whole = Task(Batch(inputs[mask], targets[mask]), task.query)
    loss, _ = learner.loss(KEY, PARAMS, whole)
    assert found.loss[-1] == pytest.approx(float(loss), rel=1e-5)


def test_nothing_of_the_labels_to_come_is_used(task, solve):
    """Other labels of examples that are never chosen change neither choices nor losses."""
    acquire = jax.jit(acquisition(solve, entropy, cross_entropy, ways=3, budget=3))
    found = acquire(KEY, task)
    rest = jnp.ones(15, bool).at[found.chosen_B].set(False)
    changed = jnp.where(rest, (task.support.targets + 1) % 3, task.support.targets)
    other = acquire(KEY, Task(task.support._replace(targets=changed), task.query))
    chex.assert_trees_all_equal(found, other)
    # Other labels of chosen examples do change what follows.
    changed = (task.support.targets + 1) % 3
    other = acquire(KEY, Task(task.support._replace(targets=changed), task.query))
    assert (found.loss != other.loss).any()


def test_k_centre_finds_every_class_at_once(task, solve):
    acquire = acquisition(solve, k_centre, cross_entropy, ways=3, budget=3)
    found = jax.jit(acquire)(KEY, task)
    assert {*task.support.targets[found.chosen_B].tolist()} == {0, 1, 2}
    np.testing.assert_allclose(found.metrics["accuracy"], [1 / 3, 1 / 3, 2 / 3, 1.0], rtol=1e-6)


def test_with_a_single_class_entropy_has_no_preference(task, solve):
    """The learner's tiny probabilities of classes without a label decide nothing."""
    acquire = jax.jit(acquisition(solve, entropy, cross_entropy, ways=3, budget=2))
    found = jax.vmap(acquire, in_axes=(0, None))(jax.random.split(KEY, 300), task)
    first, second = found.chosen_B.T
    same = task.support.targets[first] == task.support.targets[second]
    assert 0.2 < float(same.mean()) < 0.37  # 4 of the other 14 examples


def test_padded_examples_are_never_chosen(task, solve):
    mask = jnp.arange(15) % 2 == 0
    inputs = jnp.where(mask[:, None], task.support.inputs, jnp.nan)
    padded = Task(Batch(inputs, task.support.targets, mask), task.query)
    acquire = acquisition(solve, k_centre, cross_entropy, ways=3, budget=4, start=1)
    found = jax.jit(acquire)(KEY, padded)
    assert mask[found.chosen_B].all()
    assert jnp.isfinite(found.loss).all()


def test_vmap_changes_nothing(task, solve, x64):
    acquire = jax.jit(acquisition(solve, k_centre, cross_entropy, ways=3, budget=3))
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(acquire, in_axes=(0, None))(keys, task)
    for index, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        chex.assert_trees_all_close(one, acquire(key, task), rtol=1e-9)


def test_inputs_are_any_tree(task):
    """Tokens and their masks, say; a learner that takes one of the arrays."""
    learner = prototypical(
        Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x["ids"] * 1.0),
        cross_entropy,
        ways=3,
    )

    def tree(batch):
        return batch._replace(inputs={"ids": batch.inputs, "seen": batch.inputs > 0})

    solve = from_learner(learner, PARAMS)
    acquire = acquisition(solve, k_centre, cross_entropy, ways=3, budget=2, start=1)
    found = acquire(KEY, Task(tree(task.support), tree(task.query)))
    assert found.metrics["accuracy"][-1] == 1


def test_starting_labels_are_drawn_from_every_class(task):
    keys = jax.random.split(KEY, 50)
    drawn = jax.vmap(lambda key: first_labels(key, task.support, 3, 2))(keys)
    assert (task.support.targets[drawn] == jnp.array([0, 0, 1, 1, 2, 2])[None]).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert len({*drawn.ravel().tolist()}) == 15


def test_samples_and_committees_are_members(task):
    """Predictions with keys differ; the deterministic one is judged."""

    def noisy(adapted, inputs, *, key=None):
        logits = -jnp.square(inputs[:, :1] - 3.0 * jnp.arange(3.0)[None])
        return logits if key is None else logits + jax.random.normal(key, logits.shape)

    learner = meta_learner(
        lambda key, task: (), lambda key, params, support: (), noisy, cross_entropy
    )
    support = task.support._replace(mask=jnp.ones(15, bool))
    found = from_learner(learner, (), samples=3)(KEY, support, task.query.inputs)
    assert found.members_MNW.shape == (3, 3, 3)
    assert (found.members_MNW[0] != found.members_MNW[1]).any()
    np.testing.assert_array_equal(found.outputs, noisy((), task.query.inputs))
    one = from_learner(learner, ())
    two = from_learner(learner, (), probabilities=lambda outputs: jax.nn.softmax(outputs / 2))
    both = committee(one, [two])(KEY, support, task.query.inputs)
    np.testing.assert_array_equal(both.members_MNW[0], both.probabilities_NW)
    np.testing.assert_allclose(
        both.members_MNW[1], jax.nn.softmax(noisy((), task.query.inputs) / 2)
    )
    acquire = acquisition(committee(one, [two]), bald, cross_entropy, ways=3, budget=2, start=1)
    assert len({*acquire(KEY, task).chosen_B.tolist()}) == 2


def test_the_area_is_that_of_the_trapezoids():
    curve = np.array([0.2, 0.5, 0.9, 1.0])
    assert float(area_under(jnp.asarray(curve))) == pytest.approx(np.trapezoid(curve) / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "0 labels, 0 per class at the start"),
        ({"budget": 2, "start": -1}, "-1 per class at the start"),
        ({"budget": 16}, "a pool of 15 examples is too small for 16 labels"),
        ({"budget": 7, "start": 3}, r"16 labels \(3 per class at the start, then 7\)"),
    ],
)
def test_nonsense_is_refused(options, message, task, solve):
    with pytest.raises(ValueError, match=message):
        acquisition(solve, chance, cross_entropy, ways=3, **options)(KEY, task)


def test_statistics_of_several_examples_are_refused(task):
    encoder = mlp((4,), 4, query_statistics="batch")
    learner = prototypical(encoder, cross_entropy, ways=3)
    params = learner.init(KEY, task)
    acquire = acquisition(from_learner(learner, params), chance, cross_entropy, ways=3, budget=2)
    with pytest.raises(ValueError, match='query_statistics="layer", "group" or "none"'):
        jax.eval_shape(partial(acquire, KEY), task)


def test_average_precision_over_the_labels_of_a_small_assay():
    """Two prototypes on a line: a score rises with x if that of class 1 is the larger one.

    Rising scores rank the query 30, 9, 5, 1, with classes 1, 0, 1, 0: the average precision is
    (1 + 2/3) / 2 = 5/6, its gain over the fraction 1/2 is 1/3, and 3 of 4 pairs are in order.
    Falling scores have the average precision (1/2 + 2/4) / 2 = 1/2, no gain, and 1 of 4 pairs.
    """
    # In units of 50, so that no probability is rounded to 1.
    points, classes = np.array([0, 100, 4, 20, 999]) / 50, [0, 0, 1, 1, 0]
    valid = jnp.array([True, True, True, True, False])
    pool = Batch(jnp.array(points)[:, None], jnp.array(classes), valid)
    query = Batch(jnp.array([[1], [5], [9], [30]]) / 50, jnp.array([0, 1, 0, 1]))

    def objective(outputs, targets, mask=None):
        return jnp.zeros(()), class_metrics(outputs, Batch(None, targets, mask))

    solve = from_learner(prototypical(IDENTITY, objective, ways=2), PARAMS, embed=own)
    acquire = acquisition(solve, greedy, objective, ways=2, budget=2, start=1)
    found = jax.vmap(acquire, in_axes=(0, None))(jax.random.split(KEY, 16), Task(pool, query))
    starts_at_0 = 0
    for row in range(16):
        first, second = found.chosen_B[row].tolist()
        assert 4 not in (first, second)
        # From 0, the largest candidate is 100, of class 0: its mean, 50, is then beyond class 1's.
        if first == 1:
            gains, pairs = [1 / 3, 0, 0], [3 / 4, 1 / 4, 1 / 4]
            starts_at_0 += 1
        else:  # from 100, scores fall from the beginning, and the smallest candidate is 0
            assert first == 0
            gains, pairs = [0, 0, 0], [1 / 4, 1 / 4, 1 / 4]
        np.testing.assert_allclose(found.metrics["average_precision_gain"][row], gains, atol=1e-6)
        np.testing.assert_allclose(found.metrics["auroc"][row], pairs, atol=1e-6)
        # One of two examples of class 1 has a label at the start.
        hits = 0.5 + 0.5 * np.cumsum([0, first in (2, 3), second in (2, 3)])
        np.testing.assert_allclose(found.metrics["class_1_found"][row], hits)
        area = area_under(found.metrics["average_precision_gain"])[row]
        assert float(area) == pytest.approx((gains[0] / 2 + gains[1] + gains[2] / 2) / 2, abs=1e-6)
    assert 0 < starts_at_0 < 16
