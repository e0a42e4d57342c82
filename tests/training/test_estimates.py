"""Means and intervals over tasks whose losses are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Info, Task, meta_learner, squared_error
from jaxmeta.core import GradientOf
from jaxmeta.data import sinusoids
from jaxmeta.data.stream import enumerated
from jaxmeta.learners import maml
from jaxmeta.models import mlp
from jaxmeta.training.estimates import (
    estimates,
    evaluation,
    per_task,
    trajectory_evaluation,
)
from jaxmeta.training.parallel import task_mesh
from jaxmeta.training.update import Supplied, meta_update


def random_target(key) -> Task:
    batch = Batch(jnp.zeros((1, 1)), jax.random.uniform(key, (1, 1)))
    return Task(batch, batch)


RANDOM = jax.tree_util.Partial(random_target)
ZERO = meta_learner(  # its loss is the square of the task's target
    init=lambda key, task: (),
    adapt=lambda key, meta_params, support: (),
    predict=lambda adapted, inputs, key=None: jnp.zeros(inputs.shape),
    objective=lambda outputs, targets, mask=None: (
        jnp.square(targets).mean(),
        {"target": targets.mean()},
    ),
)


def test_devices_share_the_tasks():
    alone, shared = (  # 13 tasks on 4 devices: three are added, and left out of the mean
        evaluation(ZERO, 13, mesh=mesh)((), RANDOM, jax.random.key(0))
        for mesh in (None, task_mesh(4))
    )
    for name in ("loss", "target"):
        np.testing.assert_allclose(shared[name], alone[name], rtol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize(("num_tasks", "at_once"), [(2, 1), (7, 3), (100, 10), (230, 7)])
def test_mean_and_interval_are_those_of_the_tasks(num_tasks, at_once):
    key = jax.random.key(0)
    found = evaluation(ZERO, num_tasks, tasks_at_once=at_once)((), RANDOM, key)
    keys = jax.random.split(key, -(-num_tasks // 100) * 100 if num_tasks > 100 else num_tasks)
    sample = jax.vmap(lambda key: RANDOM(jax.random.split(key)[0]).query.targets[0, 0])
    targets = np.asarray(sample(keys), np.float64)[:num_tasks]
    for name, values in {"loss": targets**2, "target": targets}.items():
        mean, ci95 = found[name]
        np.testing.assert_allclose(mean, values.mean(), rtol=1e-6)
        std = np.sqrt(((values - values.mean()) ** 2).sum() / (num_tasks - 1))
        np.testing.assert_allclose(ci95, 1.96 * std / np.sqrt(num_tasks), rtol=1e-5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    evaluate = evaluation(ZERO, 50, tasks_at_once=50)
    hits = 0
    for seed in range(100):
        mean, ci95 = evaluate((), RANDOM, jax.random.key(seed))["target"]
        hits += abs(mean - 0.5) < ci95
    assert 88 <= hits <= 100


def test_the_same_key_draws_the_same_tasks_and_another_others():
    evaluate = evaluation(ZERO, 10)
    first, again, other = (
        evaluate((), RANDOM, jax.random.key(seed))["loss"].mean for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_plain_function_is_a_sampler_too():
    evaluate = evaluation(ZERO, 8)
    by_function = evaluate((), random_target, jax.random.key(0))
    assert by_function == evaluate((), RANDOM, jax.random.key(0))


@pytest.mark.full
def test_trajectory_gives_what_learners_of_fewer_steps_give():
    model, sample, key = mlp((8,), 1), sinusoids(shots=5, queries=5), jax.random.key(0)
    build = lambda steps: maml(model, squared_error, optax.sgd(0.01), steps)  # noqa: E731
    meta_params = build(2).init(key, sample(key))
    path = trajectory_evaluation(build(2), squared_error, 10, tasks_at_once=5)(
        meta_params, sample, key
    )["loss"]
    assert path.mean.shape == path.ci95.shape == (3,)
    for steps in range(3):
        alone = evaluation(build(steps), 10, tasks_at_once=10)(meta_params, sample, key)["loss"]
        np.testing.assert_allclose(path.mean[steps], alone.mean, rtol=1e-5)
        np.testing.assert_allclose(path.ci95[steps], alone.ci95, rtol=1e-5)


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ValueError, match="num_tasks is 1: a 95 % interval"):
        evaluation(ZERO, 1)
    with pytest.raises(ValueError, match="no trajectory"):
        trajectory_evaluation(ZERO, squared_error, 10)


# --- values of every task -----------------------------------------------------------------


def judge(key, scale, task):
    target = task.query.targets[0, 0]
    return scale * target, {"both": jnp.stack([target, -target])}


@pytest.mark.parametrize(("devices", "at_once"), [(None, 1), (None, 7), (4, 3)])
def test_every_task_has_its_values_in_order(devices, at_once):
    mesh = None if devices is None else task_mesh(devices)
    evaluate = per_task(judge, 13, tasks_at_once=at_once, mesh=mesh)
    values = evaluate(jnp.asarray(2.0), RANDOM, jax.random.key(0))
    assert {name: value.shape for name, value in values.items()} == {"loss": (13,), "both": (13, 2)}
    np.testing.assert_allclose(values["loss"], 2 * values["both"][:, 0], rtol=1e-6)
    alone = per_task(judge, 13)(jnp.asarray(2.0), RANDOM, jax.random.key(0))
    if devices is None:
        np.testing.assert_allclose(values["loss"], alone["loss"], rtol=1e-6)
    found = estimates(values)
    np.testing.assert_allclose(found["both"].mean, values["both"].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("devices", [None, 4])
def test_a_list_of_tasks_is_judged_once_each(devices):
    numbered = [Batch(np.zeros((1, 1)), np.full((1, 1), float(i))) for i in range(130)]
    source = enumerated([Task(batch, batch) for batch in numbered])
    mesh = None if devices is None else task_mesh(devices)
    evaluate = per_task(judge, 130, tasks_at_once=10, mesh=mesh)
    values = evaluate(jnp.asarray(1.0), Supplied(source, ()), jax.random.key(0))
    assert values["loss"].tolist() == list(range(130))
    with pytest.raises(ValueError, match="num_tasks is 131, but the source has 130 tasks"):
        per_task(judge, 131)(jnp.asarray(1.0), source, jax.random.key(0))


def test_no_tasks_are_refused():
    with pytest.raises(ValueError, match="num_tasks is 0"):
        per_task(judge, 0)


@pytest.mark.parametrize("name", ["loss", "of/query", "accuracy_ci95"])
def test_a_metric_with_a_reserved_name_is_refused(name):
    learner = ZERO._replace(loss=lambda *_: (jnp.ones(()), Info(jnp.ones(()), {name: 2.0})))
    learner = learner._replace(grad=GradientOf(learner.loss))
    with pytest.raises(ValueError, match=f"a metric is named '{name}'"):
        evaluation(learner, 10)((), RANDOM, jax.random.key(0))
    init, update = meta_update(learner, optax.sgd(0.1), task_batch=2)
    state = init(jax.random.key(0), RANDOM)
    with pytest.raises(ValueError, match=f"a metric is named '{name}'"):
        jax.eval_shape(update, state, RANDOM)


def test_padding_is_not_seen_in_evaluation():
    """Of tasks drawn on the device and of streams, in one number and along the inner loop."""
    learner = maml(mlp((), 1), squared_error, optax.sgd(0.1), inner_steps=2)
    batch = Batch(jnp.array([[0.5], [-1.0]]), jnp.array([[1.0], [0.3]]))
    nothing = jnp.full((1, 1), jnp.nan)
    join = lambda leaf: jnp.concatenate([nothing, leaf, nothing])  # noqa: E731
    padded = jax.tree.map(join, batch)._replace(mask=jnp.array([False, True, True, False]))
    plain, padded = Task(batch, batch), Task(padded, padded)
    meta_params = learner.init(jax.random.key(0), plain)
    at_end = evaluation(learner, 2)
    on_the_way = trajectory_evaluation(learner, squared_error, 2)
    for evaluate in (at_end, on_the_way):
        expected, found, streamed = (
            evaluate(meta_params, source, jax.random.key(1))["loss"].mean
            for source in (
                jax.tree_util.Partial(lambda key: plain),
                jax.tree_util.Partial(lambda key: padded),
                enumerated([padded, padded]),
            )
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_allclose(streamed, expected, rtol=1e-6)
