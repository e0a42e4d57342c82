"""Hard tasks: which classes are failed, and that the next batch is drawn from them."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Task, meta_learner
from jaxmeta.data import episodes
from jaxmeta.data._episodes import drawn_classes, weighted
from jaxmeta.data.classes import class_images
from jaxmeta.training import meta_update
from jaxmeta.training.hard_tasks import cross_entropy_and_worst_class, hard_task_update
from jaxmeta.training.parallel import task_mesh

KEY = jax.random.key(0)
CLASSES = 6
# Every image of a class has its number as its only pixel.
PIXELS = np.arange(CLASSES, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(4, axis=0)
NUMBERED = class_images(PIXELS, np.repeat(np.arange(CLASSES), 4), tuple("abcdef"))


def sampler(**options):
    return episodes(NUMBERED, **{"ways": 3, "shots": 1, "queries": 2, **options})


def numbers(task: Task):
    """The class of each place in the task, as its images show it."""
    return jnp.round(task.support.inputs[:, 0, 0, 0] * 255).astype(int)


def test_the_classes_told_are_those_drawn():
    weights = jnp.array([1.0, 2.0, 0.5, 1.0, 3.0, 1e-3])
    keys = jax.random.split(KEY, 20)
    for sample in (sampler(), weighted(sampler(), weights)):
        told = jax.jit(jax.vmap(lambda key, sample=sample: drawn_classes(sample, key)))(keys)
        drawn = jax.jit(jax.vmap(lambda key, sample=sample: numbers(sample(key))))(keys)
        assert told.tolist() == drawn.tolist()


def test_classes_are_drawn_in_proportion_to_their_weights():
    weights = jnp.array([1.0, 2.0, 3.0, 4.0, 1e-9, 1e-9])
    sample = weighted(sampler(ways=2), weights)
    drawn = jax.vmap(lambda key: drawn_classes(sample, key))(jax.random.split(KEY, 20_000))
    first = np.bincount(np.asarray(drawn[:, 0]), minlength=CLASSES) / len(drawn)
    np.testing.assert_allclose(first, np.asarray(weights) / 10, atol=0.012)
    after_three = np.asarray(drawn[drawn[:, 0] == 3, 1])  # of the others, without replacement
    second = np.bincount(after_three, minlength=CLASSES) / len(after_three)
    np.testing.assert_allclose(second[:3], [1 / 6, 2 / 6, 3 / 6], atol=0.02)
    assert second[3] == 0


def test_the_worst_class_has_the_lowest_accuracy_then_the_highest_loss():
    objective = cross_entropy_and_worst_class(3)
    targets = jnp.array([0, 0, 1, 1, 2, 2])
    right, wrong = 3 * jax.nn.one_hot(targets, 3), 3 * jax.nn.one_hot(targets + 1, 3)

    def worst(rows, scale=1.0, mask=None):
        logits = scale * jnp.where(jnp.isin(jnp.arange(6), jnp.array(rows))[:, None], wrong, right)
        return int(objective(logits, targets, mask)[1]["worst_class"])

    assert worst([2]) == 1
    assert worst([0, 4, 5]) == 2
    assert worst([4, 5], mask=jnp.array([True] * 4 + [False] * 2)) in (0, 1)
    unsure = right.at[3].multiply(0.1)  # all are right
    assert int(objective(unsure, targets)[1]["worst_class"]) == 1
    value, metrics = objective(right, targets)
    assert metrics["accuracy"] == 1
    assert value > 0


def fails_at(number):
    """A learner that knows every class by its pixel but the one of that number."""

    def predict(adapted, inputs, *, key=None):
        seen = jnp.round(inputs[:, 0, 0, 0] * 255)
        known = seen[:, None] == adapted["numbers"][None]
        return jnp.where((seen == number)[:, None], 0.0, 9.0 * known) + 0 * adapted["w"]

    return meta_learner(
        init=lambda key, task: jnp.zeros(()),
        adapt=lambda key, w, support: {
            "numbers": jnp.round(support.inputs[:, 0, 0, 0] * 255),
            "w": w,
        },
        predict=predict,
        objective=cross_entropy_and_worst_class(3),
    )


@pytest.mark.full
@pytest.mark.parametrize("devices", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_every_second_batch_is_of_failed_classes(devices):
    mesh = None if devices is None else task_mesh(devices)
    init, update = hard_task_update(fails_at(4), optax.sgd(0.1), task_batch=8, mesh=mesh)
    sample = sampler()
    state = init(KEY, sample)
    batches = []
    step = jax.jit(update)
    for _ in range(6):
        state, info = step(state, sample)
        batches.append(np.asarray(state.slots))
        assert set(info.metrics) == {"accuracy"}
    for plain in batches[::2]:
        failed = Counter(plain.tolist())
        assert 0 < failed[4] < 8  # where it was drawn; elsewhere any other class
    # Drawn in proportion to how often they were failed: 4 is in almost every hard task.
    assert sum(Counter(hard.tolist())[4] for hard in batches[1::2]) >= 20


@pytest.mark.slow
def test_a_plain_batch_is_that_of_the_plain_update():
    learner = fails_at(0)
    sample = sampler()
    plain_init, plain = meta_update(
        learner._replace(slot=lambda *_: jnp.zeros((), jnp.int32)), optax.sgd(0.1), task_batch=4
    )
    init, update = hard_task_update(learner, optax.sgd(0.1), task_batch=4)
    state, info = jax.jit(update)(init(KEY, sample), sample)
    even = weighted(sample, jnp.ones(CLASSES))
    _, expected = jax.jit(plain)(plain_init(KEY, even), even)
    np.testing.assert_allclose(info.loss, expected.loss, rtol=1e-6)
    assert int(state.step) == 1


@pytest.mark.full
def test_it_refuses_what_it_cannot_do():
    from jaxmeta import cross_entropy

    sample = sampler()
    init, update = hard_task_update(fails_at(0), optax.sgd(0.1), task_batch=2)
    state = init(KEY, sample)
    with pytest.raises(ValueError, match="give a sampler"):
        update(state, sample, given=())
    other = meta_learner(
        lambda key, task: jnp.zeros((3,)),
        lambda key, w, support: w,
        lambda w, inputs: jnp.broadcast_to(w, (inputs.shape[0], 3)),
        cross_entropy,
    )
    init, update = hard_task_update(other, optax.sgd(0.1), task_batch=2)
    with pytest.raises(ValueError, match="cross_entropy_and_worst_class"):
        update(init(KEY, sample), sample)
