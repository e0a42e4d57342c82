"""What all tasks share over training: written by `grad`, kept, restored, handed to evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Info, Task, meta_learner
from jaxmeta.training import (
    MetaUpdate,
    NotFinite,
    Trained,
    evaluation,
    meta_update,
    train_with_checkpoints,
)
from jaxmeta.training import checkpoints as stored
from jaxmeta.training.aggregation import clipped, median
from jaxmeta.training.checkpoints import parameters_sha256
from jaxmeta.training.parallel import task_mesh
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)


def draw(key) -> Task:
    batch = Batch((), jax.random.uniform(key, (1,)) + 3.0)
    return Task(batch, batch)


SAMPLE = jax.tree_util.Partial(draw)


def squared(outputs, targets, mask=None):
    return jnp.square(outputs - targets).mean(), {}


def running_mean(rate=0.5, **changes):
    """It predicts a running mean of all targets seen, and has nothing to learn."""
    plain = meta_learner(
        init=lambda key, task: jnp.zeros(()),
        adapt=lambda key, meta_params, support, *, shared: shared["mean"],
        predict=lambda adapted, inputs, **options: adapted,
        objective=squared,
    )

    def loss(key, meta_params, task, *, shared):
        value, _ = squared(shared["mean"] + 0 * meta_params, task.query.targets)
        return value, Info(value, {})

    def grad(key, meta_params, task, carry):
        _, info = loss(key, meta_params, task, shared=carry.shared)
        seen = carry.shared["mean"] + rate * (task.query.targets[0] - carry.shared["mean"])
        return meta_params * 0, info, carry._replace(shared={**carry.shared, "mean": seen})

    return plain._replace(
        loss=loss,
        grad=grad,
        shared=lambda key, meta_params, task: {
            "best": jnp.full((2,), jnp.inf),  # nobody changes it
            "count": jnp.zeros((), jnp.int32),
            "key": key,
            "mean": jnp.zeros(()),
        },
    )._replace(**changes)


def ends(learner=None, steps=3, **options):
    init, update = meta_update(
        learner or running_mean(), optax.sgd(1.0), **{"task_batch": 6, **options}
    )
    return chunk_of(update)(jax.jit(init)(KEY, SAMPLE), SAMPLE, length=steps)


def test_float_leaves_are_averaged_over_the_tasks():
    init, _ = meta_update(running_mean(), optax.sgd(1.0), task_batch=6)
    start = init(KEY, SAMPLE)
    state, _ = ends(steps=1)
    keys = jax.random.split(jax.random.fold_in(start.key, 0), 6)
    targets = jax.vmap(lambda key: draw(jax.random.split(key)[0]).query.targets[0])(keys)
    np.testing.assert_allclose(state.shared["mean"], 0.5 * targets.mean(), rtol=1e-6)
    for name in ("best", "count"):
        np.testing.assert_array_equal(state.shared[name], start.shared[name])
    key_data = jax.random.key_data(state.shared["key"])
    assert (key_data == jax.random.key_data(start.shared["key"])).all()
    assert (key_data != jax.random.key_data(start.key)).any()


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {"tasks_at_once": 2},
        {"mesh": 2},
        {"mesh": 4},  # padded
        {"mesh": 2, "tasks_at_once": 3},
        {"aggregate": median()},
        {"aggregate": clipped(1.0), "mesh": 4},
    ],
    ids=["groups", "two devices", "padded", "groups on two devices", "median", "clipped"],
)
def test_the_average_is_the_same_in_groups_over_devices_and_for_each_aggregation(options):
    expected, _ = ends()
    if "mesh" in options:
        options = {**options, "mesh": task_mesh(options["mesh"])}
    state, _ = ends(**options)
    np.testing.assert_allclose(state.shared["mean"], expected.shared["mean"], rtol=1e-6)
    np.testing.assert_array_equal(state.shared["best"], [np.inf] * 2)
    assert state.shared["count"].dtype == jnp.int32


def test_one_all_reduce_takes_the_shared_values_along():
    learner = running_mean()
    init, update = meta_update(learner, optax.sgd(1.0), task_batch=8, mesh=task_mesh(4))
    state = jax.eval_shape(init, KEY, SAMPLE)
    text = jax.jit(update).lower(state, SAMPLE).compile().as_text()
    assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda shared: {**shared, "count": shared["count"] + 1},
            r"new carry.shared\['count'\]",
        ),
        (lambda shared: {**shared, "key": jax.random.key(1)}, r"new carry.shared\['key'\]"),
        (lambda shared: {**shared, "mean": jnp.zeros(3)}, r"\['mean'\] as float32\[3\]"),
        (lambda shared: {"mean": shared["mean"]}, "with the same structure"),
    ],
)
def test_what_has_no_mean_is_refused_when_traced(change, message):
    plain = running_mean()

    def grad(*arguments):
        grads, info, carry = plain.grad(*arguments)
        return grads, info, carry._replace(shared=change(carry.shared))

    with pytest.raises(TypeError, match=message):
        ends(running_mean(grad=grad))


def counting_update(**options):
    """An `update` of the learner's own may write what has no mean."""
    init, plain = meta_update(running_mean(0.2), optax.sgd(1.0), task_batch=6, **options)

    def update(state, sample, given=None):
        state, info = plain(state, sample, given)
        shared = {**state.shared, "count": state.shared["count"] + 1}
        return state._replace(shared=shared), info

    return MetaUpdate(init, update)


@pytest.mark.parametrize("devices", [None, 2])
def test_it_is_kept_with_the_best_restored_and_evaluated(devices, tmp_path):
    mesh = None if devices is None else task_mesh(devices)
    evaluate = evaluation(running_mean(), 20, tasks_at_once=10, mesh=mesh)
    seen = []

    def validate(trained):
        seen.append(parameters_sha256(trained))
        return evaluate(trained, SAMPLE, jax.random.key(1))

    outcome = train_with_checkpoints(
        tmp_path,
        counting_update(mesh=mesh),
        SAMPLE,
        KEY,
        steps=6,
        task_batch=6,
        validate=validate,
        checkpoint_every=2,
        chunk=2,
        mesh=mesh,
    )
    assert outcome.best_step == 6  # the mean is nearest to the targets last
    assert int(outcome.state.shared["count"]) == 6
    assert parameters_sha256(outcome.best) == seen[-1]
    assert outcome.best.shared["mean"] > 2
    like = jax.eval_shape(lambda: outcome.state.trained)
    back = stored.restore(tmp_path / "checkpoints", like, step="best")
    assert back is not None and parameters_sha256(back.tree) == seen[-1]
    found = evaluate(back.tree, SAMPLE, jax.random.key(2))["loss"].mean
    assert found < 1.5


def test_evaluation_asks_for_what_is_missing():
    evaluate = evaluation(running_mean(), 2)
    with pytest.raises(ValueError, match=r"Trained\(meta_params, shared\)"):
        evaluate(jnp.zeros(()), SAMPLE, KEY)
    plain = meta_learner(
        lambda key, task: jnp.zeros(()),
        lambda key, meta_params, support: meta_params,
        lambda adapted, inputs, **options: adapted,
        squared,
    )
    by_hand, trained = (
        evaluation(plain, 4)(given, SAMPLE, KEY)["loss"]
        for given in (jnp.ones(()), Trained(jnp.ones(())))
    )
    assert by_hand == trained


def test_a_nan_that_is_shared_stops_the_run(tmp_path):
    learner = running_mean()

    def grad(key, meta_params, task, carry):
        grads, info, after = learner.grad(key, meta_params, task, carry)
        spoiled = jnp.where(carry.step == 3, jnp.nan, after.shared["mean"])
        return grads, info, after._replace(shared={**after.shared, "mean": spoiled})

    with pytest.raises(NotFinite, match="shared values became NaN or infinite at step 4") as caught:
        train_with_checkpoints(
            tmp_path,
            meta_update(learner._replace(grad=grad), optax.sgd(1.0), task_batch=2),
            SAMPLE,
            KEY,
            steps=4,
            task_batch=2,
            validate=lambda trained: evaluation(learner, 2)(trained, SAMPLE, KEY),
            checkpoint_every=2,
            chunk=2,
        )
    assert caught.value.checkpoint == "step_00000002"
