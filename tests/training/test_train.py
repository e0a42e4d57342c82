"""A run as one function of a key: compiled, mapped over seeds, the same as the loop's steps."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import squared_error
from jaxmeta.data import sinusoids
from jaxmeta.learners import maml
from jaxmeta.models import mlp
from jaxmeta.training import meta_update, train
from jaxmeta.training.update import chunk_of

LEARNER = maml(mlp((4,), 1), squared_error, optax.sgd(0.01), inner_steps=1)
SAMPLE = sinusoids(shots=3, queries=3)
OUTER = optax.adam(1e-2)
KEYS = jax.random.split(jax.random.key(0), 3)


def run(key, sample=SAMPLE, **options):
    return train(LEARNER, sample, key, 4, OUTER, task_batch=4, **options)


@pytest.mark.full
def test_seeds_are_a_vmap_over_keys():
    together = jax.jit(jax.vmap(run))(KEYS)
    assert together[1].loss.shape == (3, 4)
    for index, key in enumerate(KEYS):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        chex.assert_trees_all_close(one, run(key), rtol=1e-4, atol=1e-6)
    assert len(set(np.asarray(together[1].loss[:, 0]).tolist())) == 3


def test_it_takes_the_steps_of_the_meta_update():
    trained, info = jax.jit(run)(KEYS[0])
    init, update = meta_update(LEARNER, OUTER, task_batch=4)
    state, infos = chunk_of(update)(init(KEYS[0], SAMPLE), SAMPLE, length=4)
    chex.assert_trees_all_close(trained.meta_params, state.meta_params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(info.loss, infos.loss, rtol=1e-5)
    assert trained.shared == ()


def test_a_plain_function_is_a_sampler():
    expected, _ = run(KEYS[0])
    found, _ = run(KEYS[0], lambda key: SAMPLE(key), tasks_at_once=2)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


def test_no_steps_give_the_initialisation():
    trained, info = train(LEARNER, SAMPLE, KEYS[0], 0, OUTER, task_batch=4)
    assert info.loss.shape == (0,)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
    with pytest.raises(ValueError, match="steps is -1"):
        train(LEARNER, SAMPLE, KEYS[0], -1, OUTER, task_batch=4)


def test_arguments_of_another_kind_are_told():
    raw: Any = jax.random.PRNGKey(0)
    with pytest.raises(TypeError, match="key is uint32; give a typed key"):
        train(LEARNER, SAMPLE, raw, 1, OUTER, task_batch=4)
    rate: Any = 1e-3
    with pytest.raises(TypeError, match=r"optimizer: 0\.001; give one of optax"):
        train(LEARNER, SAMPLE, KEYS[0], 1, rate, task_batch=4)
    only_loss: Any = lambda outputs, targets, mask=None: ((outputs - targets) ** 2).mean()  # noqa: E731
    width: Any = 40
    with pytest.raises(TypeError, match=r"mlp: hidden is 40; give the width of each layer"):
        mlp(width, 1)
    learner = maml(mlp((4,), 1), only_loss, optax.sgd(0.1), 1)
    with pytest.raises(TypeError, match=r"the objective returns a .*; return \(loss, metrics\)"):
        train(learner, SAMPLE, KEYS[0], 1, OUTER, task_batch=4)
