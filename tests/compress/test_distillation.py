"""Distillation: the divergence by hand, what is not used, and a student that learns."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxmeta import Batch, Carry, Task, cross_entropy, meta_learner
from jaxmeta.compress import distilled
from jaxmeta.learners import maml, prototypical, r2d2
from jaxmeta.models import mlp
from jaxmeta.training import meta_update
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)


def blobs(key, ways=3, shots=2, queries=4):
    """Points around a centre per class."""
    centre_key, noise_key = jax.random.split(key)
    labels = jnp.tile(jnp.arange(ways, dtype=jnp.int32), shots + queries)
    centres = 2 * jax.random.normal(centre_key, (ways, 4))
    points = centres[labels] + jax.random.normal(noise_key, (labels.size, 4))
    support = ways * shots
    return Task(
        Batch(points[:support], labels[:support]), Batch(points[support:], labels[support:])
    )


TASK = blobs(jax.random.key(5))


def linear(ways=3):
    """Logits are the inputs times the meta-parameters: nothing is adapted."""
    return meta_learner(
        lambda key, task: jnp.ones((4, ways)),
        lambda key, meta_params, support: meta_params,
        lambda adapted, inputs, key=None: inputs @ adapted,
        cross_entropy,
    )


def classifier(width, steps=2):
    return maml(mlp((width,), 3), cross_entropy, optax.sgd(0.3), steps)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_the_divergence_of_the_softened_predictions(temperature, x64):
    random = np.random.default_rng(0)
    of_teacher, of_student = random.normal(size=(2, 4, 3))
    learner = distilled(linear(), linear(), jnp.asarray(of_teacher), temperature=temperature)
    loss, info = learner.loss(KEY, jnp.asarray(of_student), TASK)
    inputs = np.asarray(TASK.query.inputs)

    def probabilities(logits):
        odds = np.exp(logits / temperature)
        return odds / odds.sum(axis=1, keepdims=True)

    p, q = (probabilities(inputs @ own) for own in (of_teacher, of_student))
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert loss == info.loss == pytest.approx(expected, rel=1e-6)
    assert info.metrics["agreement"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean())


def test_the_gradient_is_that_of_the_loss_and_of_the_student_alone(x64):
    student, teacher = classifier(4), classifier(16)
    teacher_params, params = (
        jax.tree.map(lambda leaf: leaf.astype(float), own.init(jax.random.key(seed), TASK))
        for seed, own in ((1, teacher), (2, student))
    )
    learner = distilled(student, teacher, teacher_params, temperature=2.0)
    carry = Carry(jnp.zeros((), jnp.int32))
    grads, _, _ = jax.jit(learner.grad)(KEY, params, TASK, carry)
    direction = jax.tree.map(
        lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )

    def along(step):
        moved = jax.tree.map(lambda leaf, way: leaf + step * way, params, direction)
        return learner.loss(KEY, moved, TASK)[0]

    expected = (along(1e-6) - along(-1e-6)) / 2e-6
    found = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (grads, direction))))
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_outputs_that_are_no_logits_are_mapped_to_them():
    params = jax.random.normal(KEY, (4, 3))
    teacher_params = jax.random.normal(jax.random.key(1), (4, 3))
    plain = distilled(linear(), linear(), teacher_params, temperature=2.0)
    scores = linear()._replace(predict=lambda own, x, key=None: jnp.exp(x @ own))
    mapped = distilled(scores, scores, teacher_params, temperature=2.0, logits=jnp.log)
    found, expected = (own.loss(KEY, params, TASK)[0] for own in (mapped, plain))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_copy_of_the_teacher_has_no_loss():
    teacher = classifier(8)
    params = teacher.init(KEY, TASK)
    loss, info = distilled(teacher, teacher, params).loss(KEY, params, TASK)
    assert abs(loss) < 1e-6
    assert info.metrics["agreement"] == 1


def test_labels_of_the_query_are_not_used_but_those_of_the_support_are():
    student, teacher = classifier(4), classifier(8)
    learner = distilled(student, teacher, teacher.init(KEY, TASK))
    params = student.init(jax.random.key(1), TASK)
    loss = jax.jit(learner.loss)
    expected, _ = loss(KEY, params, TASK)
    wrong = TASK._replace(query=TASK.query._replace(targets=(TASK.query.targets + 1) % 3))
    assert loss(KEY, params, wrong)[0] == expected
    other = TASK._replace(support=TASK.support._replace(targets=(TASK.support.targets + 1) % 3))
    assert loss(KEY, params, other)[0] != expected


def test_padding_does_not_count():
    student, teacher = classifier(4), classifier(8)
    learner = distilled(student, teacher, teacher.init(KEY, TASK))
    params = student.init(jax.random.key(1), TASK)

    def padded(batch):
        rows = jnp.full((2, 4), jnp.nan)
        valid = jnp.pad(jnp.ones(len(batch.targets), bool), (0, 2))
        targets = jnp.pad(batch.targets, (0, 2), constant_values=77)
        return Batch(jnp.concatenate([batch.inputs, rows]), targets, valid)

    expected = learner.loss(KEY, params, TASK)
    found = learner.loss(KEY, params, Task(padded(TASK.support), padded(TASK.query)))
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


@pytest.mark.full
def test_a_student_of_another_kind_learns_to_agree_on_any_number_of_devices():
    teacher = prototypical(mlp((16,), 8), cross_entropy, 3)
    student = r2d2(mlp((6,), 6), cross_entropy, 3)
    learner = distilled(student, teacher, teacher.init(KEY, TASK), temperature=2.0)
    mesh = jax.make_mesh((4,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:4])
    ends = []
    for own in (None, mesh):
        init, update = meta_update(learner, optax.adam(1e-2), task_batch=8, mesh=own)
        sample = jax.tree_util.Partial(blobs)
        state = jax.jit(init)(jax.random.key(1), sample)
        _, infos = chunk_of(update)(state, sample, length=3 if own else 200)
        ends.append(jax.device_get(infos))
    long, sharded = ends
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[:3], long), sharded, rtol=1e-3)
    first, last = long.metrics["agreement"][:10].mean(), long.metrics["agreement"][-10:].mean()
    assert last > first + 0.08
    assert long.loss[-10:].mean() < 0.5 * long.loss[:10].mean()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="a temperature of .*; give a positive, finite one"):
        distilled(linear(), linear(), jnp.ones((4, 3)), temperature=temperature)


def test_other_classes_and_hidden_state_are_refused():
    with pytest.raises(ValueError, match=r"the student's outputs are \(12, 3\), the teacher's"):
        learner = distilled(linear(), linear(2), jnp.ones((4, 2)))
        learner.loss(KEY, jnp.ones((4, 3)), TASK)
    stateful = linear()._replace(shared=lambda key, meta_params, task: ())
    for student, teacher in ((stateful, linear()), (linear(), stateful)):
        with pytest.raises(ValueError, match="has shared values or slots"):
            distilled(student, teacher, jnp.ones((4, 3)))
