"""Multi-task learning: heads by number, new heads from zero or from prototypes, numbered tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, cross_entropy, multi_task, squared_error
from jaxmeta.data import class_images, distorted, episodes, numbered
from jaxmeta.data.text import sentence_episodes
from jaxmeta.learners import MultiTaskParams
from jaxmeta.models import mlp, on_features
from jaxmeta.numbered import Numbered

KEY = jax.random.key(0)


def linear(outputs=1, tasks=3, steps=0, rate=0.1, **options):
    return multi_task(
        on_features(), squared_error, outputs, tasks, optax.sgd(rate), steps, **options
    )


def task_of(support, query, index=None):
    batches = [Batch(jnp.array(x)[:, None], jnp.array(y)[:, None]) for x, y in (support, query)]
    own = batches[0] if index is None else Numbered(jnp.array(index), batches[0])
    return Task(own, batches[1])


HEADS = {"kernel": jnp.array([[[1.0]], [[2.0]], [[3.0]]]), "bias": jnp.zeros((3, 1))}


def test_a_training_task_is_judged_by_its_own_head_on_all_its_examples():
    task = task_of(([1.0], [1.0]), ([1.0, 2.0], [1.0, 1.0]), index=1)
    params = MultiTaskParams((), HEADS)
    loss, info = linear().loss(KEY, params, task)
    # Head 1 doubles: errors 2 − 1, then 2 − 1 and 4 − 1, squared and averaged over three examples.
    assert float(loss) == pytest.approx((1 + 1 + 9) / 3) == float(info.loss)
    grads = jax.grad(lambda params: linear().loss(KEY, params, task)[0])(params)
    # d/dw of the mean of (wx − y)²: 2 x (wx − y), only for this head.
    expected = np.zeros((3, 1, 1))
    expected[1] = 2 * (1 + 1 + 2 * 3) / 3
    np.testing.assert_allclose(grads.heads["kernel"], expected, rtol=1e-6)


def test_padded_examples_have_no_share():
    task = task_of(([1.0, 5.0], [1.0, 9.0]), ([1.0, 2.0], [1.0, 1.0]), index=1)
    masked = task.support.examples._replace(mask=jnp.array([True, False]))
    task = Task(Numbered(jnp.array(1), masked), task.query)
    loss, _ = linear().loss(KEY, MultiTaskParams((), HEADS), task)
    assert float(loss) == pytest.approx((1 + 1 + 9) / 3)


def test_a_task_of_padding_alone_has_no_loss():
    batch = Batch(jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.zeros(2, bool))
    task = Task(Numbered(jnp.array(1), batch), batch)
    assert float(linear().loss(KEY, MultiTaskParams((), HEADS), task)[0]) == 0


def test_a_new_head_takes_steps_from_zero():
    task = task_of(([2.0], [1.0]), ([1.0], [0.0]))
    adapted = linear(steps=1).adapt(KEY, MultiTaskParams((), HEADS), task.support)
    # From 0: dL/dw = 2·2·(0 − 1) = −4, dL/db = −2.
    np.testing.assert_allclose(adapted.params["head"]["kernel"], [[0.4]], rtol=1e-6)
    np.testing.assert_allclose(adapted.params["head"]["bias"], [0.2], rtol=1e-6)
    loss, _ = linear(steps=1).loss(KEY, MultiTaskParams((), HEADS), task)
    assert float(loss) == pytest.approx(0.6**2)


def test_the_trunk_is_frozen_unless_all_is_tuned():
    support = Batch(jax.random.normal(KEY, (4, 3)), jnp.ones((4, 1)))
    found = {}
    for fine_tune in ("head", "all"):
        learner = multi_task(
            mlp((5,), 2), squared_error, 1, 2, optax.sgd(0.1), 3, fine_tune=fine_tune
        )
        params = learner.init(KEY, Task(support, support))
        adapted = learner.adapt(KEY, params, support)
        pairs = zip(jax.tree.leaves(adapted.params["trunk"]), jax.tree.leaves(params.trunk))
        found[fine_tune] = all(bool((one == other).all()) for one, other in pairs)
    assert found == {"head": True, "all": False}


def test_prototypes_classify_without_steps():
    features = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.9]])
    support = Batch(features, jnp.array([0, 1, 1]))
    learner = multi_task(
        on_features(), cross_entropy, 2, 7, optax.sgd(0.1), 0, new_head="prototypes"
    )
    params = learner.init(KEY, Task(support, support))
    query = jnp.array([[0.6, 0.5], [0.4, 0.6]])
    found = learner.predict(learner.adapt(KEY, params, support), query)
    means = jnp.array([[1.0, 0.0], [0.1, 0.95]])
    distances = jnp.square(query[:, None] - means[None]).sum(axis=2)
    by_distance = jax.nn.log_softmax(-distances)
    np.testing.assert_allclose(jax.nn.log_softmax(found), by_distance, rtol=1e-5)


def test_new_tasks_may_have_other_outputs():
    learner = multi_task(on_features(), cross_entropy, 4, 2, optax.sgd(0.1), 1, trained_outputs=3)
    support = Batch(jnp.eye(4), jnp.arange(4))
    params = learner.init(KEY, Task(support, support))
    assert params.heads["kernel"].shape == (2, 4, 3)
    adapted = learner.adapt(KEY, params, support)
    assert learner.predict(adapted, support.inputs).shape == (4, 4)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="0 tasks, 1 outputs"):
        linear(tasks=0)
    with pytest.raises(ValueError, match="features have the shape"):
        learner = multi_task(
            on_features()._replace(apply=lambda params, inputs, **_: inputs),
            *(squared_error, 1, 2, optax.sgd(0.1), 1),
        )
        images = Batch(jnp.ones((2, 3, 3, 1)), jnp.ones((2, 1)))
        learner.init(KEY, Task(images, images))


# --- numbered tasks -------------------------------------------------------------------------

ROWS = np.arange(40.0)[:, None]
OF_SENTENCES = sentence_episodes(
    ROWS, 10 * np.arange(4), np.full(4, 10), ways=2, shots=1, queries=2
)
PIXELS = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
OF_IMAGES = episodes(
    class_images(PIXELS, np.arange(40) // 10, tuple("abcd")), ways=2, shots=1, queries=2
)


@pytest.mark.parametrize(("sample", "scale"), [(OF_SENTENCES, 1), (OF_IMAGES, 255)])
def test_a_numbered_task_keeps_its_classes_and_draws_its_examples(sample, scale):
    draw = jax.jit(numbered(sample, 3))
    classes: dict[int, set] = {}
    examples: dict[int, set] = {}
    for seed in range(60):
        task = draw(jax.random.key(seed))
        rows = np.round(np.asarray(task.query.inputs).reshape(-1) * scale).astype(int)
        index = int(task.support.number)
        classes.setdefault(index, set()).add(tuple((rows // 10).tolist()))
        examples.setdefault(index, set()).update(rows.tolist())
    assert set(classes) == {0, 1, 2}
    assert all(len(own) == 1 for own in classes.values())  # in the same order, too
    assert all(len(own) > 10 for own in examples.values())


def test_rotations_belong_to_the_classes():
    pixels = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2, 1)
    turned = episodes(
        class_images(pixels, np.arange(40) // 10, tuple("abcd")),
        **{"ways": 2, "shots": 1, "queries": 2, "rotations": "per-task"},
    )
    draw = jax.jit(numbered(turned, 1))
    corners = set()
    for seed in range(20):
        image = np.asarray(draw(jax.random.key(seed)).query.inputs[0])
        corners.add(int(image.reshape(-1).argmax()))
    assert len(corners) == 1


def test_other_samplers_have_no_numbers():
    with pytest.raises(ValueError, match="tasks of this sampler have no number"):
        numbered(distorted(OF_IMAGES), 3)
    with pytest.raises(ValueError, match="tasks of this sampler have no number"):
        numbered(lambda key: key, 3)
    with pytest.raises(ValueError, match="0 tasks"):
        numbered(OF_IMAGES, 0)


@pytest.mark.parametrize("option", [{"fine_tune": "heads"}, {"new_head": "prototype"}])
def test_unknown_choices_are_refused(option):
    (name,) = option.values()
    with pytest.raises(ValueError, match=f"multi_task: unknown '{name}'; give "):
        multi_task(on_features(), cross_entropy, 2, 3, optax.sgd(1.0), 1, **option)
