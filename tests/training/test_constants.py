"""Frozen arrays: arguments of the program, no part of the state, the checkpoints or the text."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Model, Task, meta_learner, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.data.stream import enumerated
from jaxmeta.inner import (
    adam,
    conjugate_gradients,
    first_order,
    mixed_mode,
    rematerialised,
    reverse_mode,
    second_order,
    support_loss,
    truncated,
    unroll,
)
from jaxmeta.learners import evolve, imaml, maml, reptile
from jaxmeta.models import mlp
from jaxmeta.training import (
    Supplied,
    Trained,
    checkpoints,
    meta_update,
    per_task,
    train_with_checkpoints,
    with_constants,
)
from jaxmeta.training.estimates import estimates
from jaxmeta.training.feed import first_task, on_all_devices, open_feed, sampler, tasks_at
from jaxmeta.training.parallel import task_mesh
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)
SAMPLE = sinusoids(shots=4, queries=4)
FEATURES, HEAD = mlp((5,), 3), mlp((), 1)
FROZEN = FEATURES.init(jax.random.key(9), jnp.zeros((1, 1)))
SGD = optax.sgd(0.05)


def on_features(frozen) -> Model:
    def apply(params, inputs, *, reference=None, key=None):
        return HEAD.apply(params, FEATURES.apply(frozen, inputs))

    return Model(lambda key, inputs: HEAD.init(key, FEATURES.apply(frozen, inputs)), apply)


def by_gradient(way):
    return lambda frozen: maml(on_features(frozen), squared_error, SGD, 2, differentiation=way)


def inner_loop_from_constants(frozen):
    """The inner loop begins at the constants, and the meta-parameter is a shift of the outputs."""
    model = Model(
        FEATURES.init, lambda params, x, **_: FEATURES.apply(params, x).sum(axis=1, keepdims=True)
    )
    inner = unroll(support_loss(model, squared_error), SGD, 2)

    def adapt(key, shift, support):
        return inner(key, frozen, support).params, shift

    def predict(adapted, inputs, *, key=None):
        return model.apply(adapted[0], inputs) + adapted[1]

    return meta_learner(lambda key, task: jnp.zeros(()), adapt, predict, squared_error)


# Every way of differentiating, each closed over the frozen features.
BUILDS = {
    "second_order": by_gradient(second_order),
    "first_order": by_gradient(first_order),
    "truncated": by_gradient(truncated(1)),
    "rematerialised": by_gradient(rematerialised),
    "reverse_mode": by_gradient(reverse_mode),
    "mixed_mode": by_gradient(mixed_mode),
    "implicit": lambda frozen: imaml(
        on_features(frozen), squared_error, SGD, 3, solver=conjugate_gradients(2)
    ),
    "evolution": lambda frozen: evolve(by_gradient(second_order)(frozen), pairs=2),
    "reptile": lambda frozen: reptile(on_features(frozen), squared_error, SGD, 3),
    "inner_adam": lambda frozen: maml(on_features(frozen), squared_error, adam(0.01), 2),
    "from_constants": inner_loop_from_constants,
}


def update_of(learner, **options):
    return meta_update(learner, optax.adam(1e-2), task_batch=4, **options)


def ended(update, sample, length=3):
    return chunk_of(update.update)(jax.jit(update.init)(KEY, sample), sample, length=length)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [None, 2])
@pytest.mark.parametrize("name", BUILDS)
def test_a_learner_of_traced_constants_is_that_closed_over_them(name, devices):
    mesh = None if devices is None else task_mesh(devices)
    build = BUILDS[name]
    expected = ended(update_of(build(FROZEN)), SAMPLE)
    supplied = with_constants(lambda constants: update_of(build(constants), mesh=mesh))
    found = ended(supplied, Supplied(SAMPLE, FROZEN))
    chex.assert_trees_all_close(found[0].meta_params, expected[0].meta_params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(found[1], expected[1], rtol=1e-4, atol=1e-6)


def test_a_gradient_that_devices_would_sum_is_refused():
    from jaxmeta.ops import varying_with

    def build(constants, inner=lambda start, support: start):
        def adapt(key, shift, support):
            start = inner(constants, support)
            fit = jax.grad(lambda w: jnp.square(w * support.inputs - support.targets).mean())
            return start - 0.1 * fit(start) + shift

        learner = meta_learner(
            lambda key, task: jnp.zeros(()), adapt, lambda w, x, **_: w * x, squared_error
        )
        return learner

    supplied = Supplied(SAMPLE, jnp.asarray(0.5))
    shared = with_constants(lambda w: update_of(build(w), mesh=task_mesh(2)))
    with pytest.raises(ValueError, match="closes over, which would be summed over all devices"):
        ended(shared, supplied)
    own = with_constants(lambda w: update_of(build(w, varying_with), mesh=task_mesh(2)))
    alone = with_constants(lambda w: update_of(build(w)))
    chex.assert_trees_all_close(
        ended(own, supplied)[0].meta_params, ended(alone, supplied)[0].meta_params, rtol=1e-5
    )


BIG = jnp.arange(50_000.0) / 50_000


def shifted(constants):
    """A learner of two lines: its parameter, shifted by the mean of the big array."""
    return meta_learner(
        init=lambda key, task: jnp.zeros(()),
        adapt=lambda key, meta_params, support: meta_params + constants["big"].mean(),
        predict=lambda adapted, inputs, **options: jnp.full(inputs.shape, adapted),
        objective=squared_error,
    )


SHIFTED = with_constants(lambda constants: update_of(shifted(constants)))


def test_the_program_and_the_state_hold_no_constants():
    supplied = Supplied(SAMPLE, {"big": BIG})
    state = SHIFTED.init(KEY, supplied)
    assert max(leaf.size for leaf in jax.tree.leaves(state)) < 100

    def program(update, sample):
        chunk = jax.jit(chunk_of(update), static_argnames="length")
        return chunk.lower(state, sample, length=1).as_text()

    text = program(SHIFTED.update, supplied)
    held = program(update_of(shifted({"big": BIG})).update, SAMPLE)
    assert len(text) < 100_000 < 200_000 < len(held)


@pytest.mark.full
@pytest.mark.parametrize("source", ["sampler", "function", "stream"])
@pytest.mark.parametrize("devices", [None, 2])
def test_a_run_with_constants(source, devices, tmp_path):
    mesh = None if devices is None else task_mesh(devices)
    numbered = [Batch(np.full((3, 1), i / 5, np.float32), np.ones((3, 1))) for i in range(12)]
    inner = {
        "sampler": SAMPLE,
        "function": lambda key: SAMPLE(key),
        "stream": enumerated([Task(batch, batch) for batch in numbered]),
    }[source]
    constants = {"big": np.asarray(BIG)}
    validate = per_task(
        lambda key, given, task: (shifted(given[1]).loss(key, given[0].meta_params, task)[0], {}),
        5,
        mesh=mesh,
    )
    outcome = train_with_checkpoints(
        tmp_path,
        with_constants(lambda constants: update_of(shifted(constants), mesh=mesh)),
        Supplied(inner, constants),
        KEY,
        steps=4,
        task_batch=4,
        validate=lambda trained: estimates(
            validate((trained, constants), Supplied(SAMPLE, constants), KEY)
        ),
        checkpoint_every=2,
        chunk=2,
        mesh=mesh,
    )
    assert isinstance(outcome.best, Trained)
    files = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < BIG.nbytes / 2
    back = checkpoints.restore(tmp_path / "checkpoints", outcome.best, step="best")
    assert back is not None
    chex.assert_trees_all_equal(back.tree, outcome.best)
    if source != "stream":
        state, _ = ended(update_of(shifted(constants)), SAMPLE, length=4)
        np.testing.assert_allclose(outcome.state.meta_params, state.meta_params, rtol=1e-5)


def test_a_feed_gives_the_sampler_with_its_constants():
    mesh = task_mesh(2)
    source = Supplied(lambda key: SAMPLE(key), {"big": np.ones(3, np.float32)})
    for found in (
        open_feed(source, 4, None, {}).sample,
        on_all_devices(source, mesh),
        sampler(source),
        first_task(source),
    ):
        assert isinstance(found, Supplied)
        assert jax.jit(lambda given: given.sample(KEY))(found).support.inputs.shape == (4, 1)
    assert on_all_devices(source, mesh).constants["big"].sharding.is_fully_replicated
    assert isinstance(open_feed(source, 4, None, {}).sample.constants["big"], jax.Array)
    assert tasks_at(source, 0, 4, None) is None
