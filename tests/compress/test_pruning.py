"""Magnitude pruning: exact fractions, ties, the schedule, and masks that last."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxmeta import Batch, Info, Task, cross_entropy, squared_error
from jaxmeta.compress import gradual_pruning, pruned, sparsity_schedule
from jaxmeta.data import sinusoids
from jaxmeta.learners import maml, meta_sgd, prototypical
from jaxmeta.models import conv4, mlp
from jaxmeta.training import MetaUpdate, TrainState, meta_update
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)


def random_params(seed: int = 0):
    random = np.random.default_rng(seed)
    return {
        "conv": {
            "kernel": jnp.asarray(random.normal(size=(3, 3, 2, 4)), jnp.float32),
            "bias": jnp.zeros(4),
        },
        "head": {"kernel": jnp.asarray(10 * random.normal(size=(5, 3)), jnp.float32)},
        "log_rate": jnp.asarray(1e-9),
        "order": jnp.arange(6).reshape(2, 3),
    }


def weights(params) -> np.ndarray:
    return np.concatenate([np.ravel(params[name]["kernel"]) for name in ("conv", "head")])


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.6, 0.8, 0.9, 0.95])
def test_the_smallest_weights_of_all_layers_are_removed(sparsity):
    params = random_params()
    found = pruned(params, sparsity)
    before, after = weights(params), weights(found)
    removed = after == 0
    assert removed.sum() == round(sparsity * before.size)
    np.testing.assert_array_equal(after[~removed], before[~removed])
    if removed.any():
        assert np.abs(before[removed]).max() < np.abs(before[~removed]).min()
    np.testing.assert_array_equal(found["conv"]["bias"], params["conv"]["bias"])
    for name in ("log_rate", "order"):
        np.testing.assert_array_equal(found[name], params[name])


def test_layers_share_one_threshold():
    """Ten times larger weights of a layer remain, those of the other one go."""
    found = pruned(random_params(), 0.6)
    assert (found["conv"]["kernel"] == 0).mean() > 0.6
    assert (found["head"]["kernel"] == 0).mean() < 0.2


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_ties_are_cut_at_the_exact_number(sparsity):
    params = {"a": jnp.ones((4, 5)), "b": -jnp.ones((2, 5))}
    found = jax.jit(partial(pruned, sparsity=sparsity))(params)
    zeros = np.concatenate([np.ravel(found[name]) == 0 for name in "ab"])
    number = round(sparsity * 30)
    assert zeros[:number].all() and not zeros[number:].any()


@pytest.mark.parametrize(
    ("params", "sparsity", "told"),
    [
        ({"w": jnp.ones((2, 2))}, 1.0, "a sparsity of 1.0; give 0 or more and less than 1"),
        ({"w": jnp.ones((2, 2))}, -0.1, "a sparsity of -0.1"),
        ({"w": jnp.ones((2, 2))}, float("nan"), "a sparsity of nan"),
        ({"w": jnp.ones(3), "n": jnp.ones((2, 2), int)}, 0.5, "no float array with two axes"),
    ],
)
def test_what_cannot_be_pruned(params, sparsity, told):
    with pytest.raises(ValueError, match=told):
        pruned(params, sparsity)


@pytest.mark.parametrize(
    "learner",
    [
        maml(conv4(2, width=4, downsampling="stride"), cross_entropy, optax.sgd(0.1), 1),
        meta_sgd(mlp((4,), 2), cross_entropy),
        prototypical(conv4(width=4, downsampling="stride"), cross_entropy, 2),
    ],
    ids=["maml", "meta-sgd", "prototypical"],
)
def test_any_learner_adapts_with_pruned_parameters(learner):
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    batch = Batch(images, jnp.arange(4, dtype=jnp.int32) % 2)
    meta_params = learner.init(KEY, Task(batch, batch))

    @jax.jit
    def outputs(meta_params):
        return learner.predict(learner.adapt(KEY, meta_params, batch), images)

    small = pruned(meta_params, 0.5)
    chex.assert_trees_all_equal_shapes_and_dtypes(small, meta_params)
    assert np.isfinite(outputs(small)).all()
    assert not np.allclose(outputs(small), outputs(meta_params))


# --- the schedule -------------------------------------------------------------------------


def test_the_schedule_is_cubic():
    expected = [0.0, 0.8 * (1 - 27 / 64), 0.7, 0.8 * (1 - 1 / 64), 0.8]
    np.testing.assert_allclose(sparsity_schedule(0.8, 4), expected)
    np.testing.assert_allclose(sparsity_schedule(0.9, 2, initial=0.5), [0.5, 0.85, 0.9])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: sparsity_schedule(0.8, 0), "prunings is 0; give at least 1"),
        (lambda: sparsity_schedule(1.0, 2), "a sparsity of 1.0"),
        (lambda: sparsity_schedule(0.5, 2, initial=0.6), "0.5 is below the initial one, 0.6"),
        (lambda: gradual_pruning(REVIVING, 0.5, prunings=2, every=0), "every is 0"),
        (lambda: gradual_pruning(REVIVING, 0.5, prunings=2, every=1, start=-1), "start is -1"),
    ],
)
def test_what_is_no_schedule(call, told):
    with pytest.raises(ValueError, match=told):
        call()


# --- gradual pruning ----------------------------------------------------------------------


def start(key, sample):
    params = {"kernel": 1 + jnp.arange(20.0).reshape(4, 5), "bias": jnp.zeros(5)}
    return TrainState(jnp.zeros((), jnp.int32), key, params, optimizer_state=jnp.zeros(()))


def revive(state, sample, given=None):
    """Adds 100 to every parameter, so that only a mask keeps a zero."""
    params = jax.tree.map(lambda leaf: leaf + 100, state.meta_params)
    counted = state.optimizer_state + 1
    info = Info(counted, {})
    return state._replace(step=state.step + 1, meta_params=params, optimizer_state=counted), info


REVIVING = MetaUpdate(start, revive)


def zeros_after(update: MetaUpdate, steps: int) -> list[int]:
    state, step, found = update.init(KEY, None), jax.jit(update.update), []
    for _ in range(steps):
        state, _ = step(state, None)
        found.append(int((state.meta_params["kernel"] == 0).sum()))
        assert (state.meta_params["bias"] == 100 * len(found)).all()
        assert state.optimizer_state.optimizer_state == len(found)
    return found


def test_masks_grow_by_the_schedule_and_keep_their_zeros():
    update = gradual_pruning(REVIVING, 0.8, prunings=2, every=2)
    # Of 20 weights 14 after update 2, then 16 after update 4.
    assert zeros_after(update, 7) == [0, 14, 14, 16, 16, 16, 16]


def test_pruning_starts_late_and_at_the_initial_sparsity():
    update = gradual_pruning(REVIVING, 0.9, prunings=2, every=1, initial=0.5, start=3)
    assert zeros_after(update, 6) == [0, 0, 10, 17, 18, 18]


def test_a_pruned_weight_is_never_exchanged_for_a_smaller_one():
    """The weights that remain become tiny; the pruned ones stay zero all the same."""

    def shrink(state, sample, given=None):
        params = {**state.meta_params, "kernel": state.meta_params["kernel"] * 1e-3 + 1e-6}
        return state._replace(step=state.step + 1, meta_params=params), Info(jnp.zeros(()), {})

    update = gradual_pruning(MetaUpdate(start, shrink), 0.6, prunings=3, every=1)
    state, gone = update.init(KEY, None), jnp.zeros((4, 5), bool)
    for _ in range(5):
        state, _ = update.update(state, None)
        assert (state.meta_params["kernel"] == 0)[gone].all()
        gone = state.meta_params["kernel"] == 0
    assert gone.sum() == 12


def sinusoid_update(mesh=None) -> MetaUpdate:
    learner = maml(mlp((8,), 1), squared_error, optax.sgd(0.01), 1)
    return meta_update(learner, optax.adam(1e-2), task_batch=8, mesh=mesh)


SAMPLE = sinusoids(shots=5, queries=5)


def test_without_sparsity_training_is_as_ever():
    plain = sinusoid_update()
    wrapped = gradual_pruning(plain, 0.0, prunings=1, every=1)
    states = [jax.jit(update.init)(KEY, SAMPLE) for update in (plain, wrapped)]
    (one, infos), (other, other_infos) = (
        chunk_of(update.update)(state, SAMPLE, length=4)
        for update, state in zip((plain, wrapped), states)
    )
    chex.assert_trees_all_close(one.meta_params, other.meta_params, rtol=1e-6)
    chex.assert_trees_all_close(infos, other_infos, rtol=1e-6)


@pytest.mark.full
def test_the_remaining_weights_are_trained_on_any_number_of_devices():
    mesh = jax.make_mesh((4,), ("tasks",), (AxisType.Auto,), devices=jax.devices()[:4])
    found = []
    for own in (None, mesh):
        update = gradual_pruning(sinusoid_update(own), 0.75, prunings=2, every=1)
        state = jax.jit(update.init)(KEY, SAMPLE)
        two, _ = chunk_of(update.update)(jax.tree.map(jnp.copy, state), SAMPLE, length=2)
        four, _ = chunk_of(update.update)(state, SAMPLE, length=4)
        kernel, later = (own.meta_params["hidden_0"]["kernel"] for own in (two, four))
        kept = kernel != 0
        np.testing.assert_array_equal(later != 0, kept)
        assert kept.any() and (later[kept] != kernel[kept]).all()
        found.append(jax.device_get(four.meta_params))
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-6)
    zeros = sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(found[0]) if leaf.ndim == 2)
    assert zeros == 12
