"""Every function that takes a sampler takes any function of a key, whatever it is made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta.data import sinusoids
from jaxmeta.data.transformed import in_random_order
from jaxmeta.training import (
    Supplied,
    evaluation,
    meta_update,
    per_task,
    task_mesh,
    train,
    train_with_checkpoints,
    with_constants,
)
from jaxmeta.training.update import chunk_of

DRAW = sinusoids(shots=2, queries=2)
KEY = jax.random.key(0)
LEARNER = jaxmeta.meta_learner(  # y = w · the mean of the support's targets
    init=lambda key, task: jnp.ones(()),
    adapt=lambda key, weight, support: weight * support.targets.mean(),
    predict=lambda adapted, inputs, *, key=None: jnp.broadcast_to(adapted, inputs.shape),
    objective=jaxmeta.squared_error,
)
UPDATE = meta_update(LEARNER, optax.sgd(0.1), task_batch=2)
PARAMS = LEARNER.init(KEY, DRAW(KEY))


def plain(key):
    return DRAW(key)


class Drawing:
    def __call__(self, key):
        return DRAW(key)


SAMPLERS = {
    "function": plain,
    "lambda": lambda key: DRAW(key),
    "partial": functools.partial(plain),
    "object": Drawing(),
    "method": Drawing().__call__,
    "compiled": jax.jit(plain),
}


def judge(key, params, task):
    loss, info = LEARNER.loss(key, params, task)
    return loss, info.metrics


def trained_in_folder(sample, folder):
    update = with_constants(lambda constants: UPDATE)
    evaluate = evaluation(LEARNER, 2)
    outcome = train_with_checkpoints(
        folder,
        update,
        Supplied(sample, np.ones(1)),
        KEY,
        steps=1,
        task_batch=2,
        validate=lambda trained: evaluate(trained, sample, KEY),
        checkpoint_every=1,
        chunk=1,
    )
    return outcome.best.meta_params


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "use",
    [
        lambda sample, _: train(LEARNER, sample, KEY, 2, optax.sgd(0.1), task_batch=2)[1].loss,
        lambda sample, _: chunk_of(UPDATE.update)(UPDATE.init(KEY, sample), sample, length=2)[1],
        lambda sample, _: evaluation(LEARNER, 2)(PARAMS, sample, KEY),
        lambda sample, _: evaluation(LEARNER, 2, mesh=task_mesh(2))(PARAMS, sample, KEY),
        lambda sample, _: per_task(judge, 2)(PARAMS, sample, KEY),
        lambda sample, _: per_task(judge, 2)(PARAMS, in_random_order(sample), KEY),
        trained_in_folder,
    ],
    ids=["train", "chunk", "evaluation", "mesh", "per_task", "nested", "folder"],
)
def test_a_plain_function_is_a_sampler(use, name, tmp_path):
    found, expected = (
        use(sample, tmp_path / number) for number, sample in (("1", SAMPLERS[name]), ("2", DRAW))
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
