"""Predictions draw from a key where one is given, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy, squared_error
from jaxmeta.inner import query_loss
from jaxmeta.learners import (
    conditional_neural_process,
    conditional_neural_process_classifier,
    maml,
    matching,
    memory_classifier,
    meta_transfer,
    neural_process,
    one_hot_squared_error,
    prototypical,
    r2d2,
    relation,
    sequence_learner,
    siamese,
    snail,
    supervised,
)
from jaxmeta.learners.memory import mann
from jaxmeta.learners.optimizers import mlp_optimizer, optimizer_learner
from jaxmeta.models import conv4, mlp, pairwise

KEY = jax.random.key(0)


def noisy(model: Model) -> Model:
    """The model with noise on its outputs where it has a key."""

    def apply(params, inputs, *, reference=None, key=None):
        outputs = model.apply(params, inputs, reference=reference)
        return outputs if key is None else outputs + jax.random.normal(key, outputs.shape)

    return Model(model.init, apply)


ENCODER = noisy(mlp((4,), 4))
LABELS = jnp.array([0, 1, 0, 1], jnp.int32)
IMAGES = Batch(jax.random.normal(KEY, (4, 8, 8, 1)), LABELS)
CURVE = Batch(jax.random.normal(KEY, (4, 1)), jax.random.normal(jax.random.key(1), (4, 1)))
STRIDED = conv4(width=2, downsampling="stride", query_statistics="none")

LEARNERS = {
    "supervised": (supervised(noisy(mlp((4,), 2)), cross_entropy), IMAGES),
    "maml": (maml(noisy(mlp((4,), 2)), cross_entropy, optax.sgd(0.1), 1), IMAGES),
    "r2d2": (r2d2(ENCODER, cross_entropy, 2), IMAGES),
    "meta-transfer": (
        meta_transfer(noisy(STRIDED), cross_entropy, 2, optax.sgd(0.1), 1),
        IMAGES,
    ),
    "optimizer": (
        optimizer_learner(noisy(mlp((4,), 2)), cross_entropy, mlp_optimizer(hidden=2), 1),
        IMAGES,
    ),
    "prototypical": (prototypical(ENCODER, cross_entropy, 2), IMAGES),
    "matching": (matching(ENCODER, cross_entropy, 2), IMAGES),
    "siamese": (siamese(ENCODER, 2), IMAGES),
    "relation": (
        relation(mlp((4,), 4), noisy(pairwise(mlp((4,), 1))), one_hot_squared_error, 2),
        IMAGES,
    ),
    "snail": (snail(ENCODER, cross_entropy, 2, 5, filters=2), IMAGES),
    "mann": (
        memory_classifier(
            mann(2, slots=5, slot_width=2, controller_width=4), ENCODER, cross_entropy, 2
        ),
        IMAGES,
    ),
    "sequences": (sequence_learner(noisy(mlp((4,), 1)), squared_error), CURVE),
    "process-of-classes": (
        conditional_neural_process_classifier(mlp((4,), 4), noisy(mlp((4,), 2)), cross_entropy, 2),
        IMAGES,
    ),
    "process": (conditional_neural_process(mlp((4,), 4), noisy(mlp((4,), 2))), CURVE),
    "latent-process": (
        neural_process(mlp((4,), 4), noisy(mlp((4,), 2)), latent_width=2, samples=2),
        CURVE,
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("name", LEARNERS)
def test_predictions_have_chance_where_they_have_a_key(name):
    learner, batch = LEARNERS[name]

    @jax.jit
    def predictions(key):
        meta_params = learner.init(KEY, Task(batch, batch))
        adapted = learner.adapt(KEY, meta_params, batch)
        predict = lambda key: jnp.concatenate(  # noqa: E731
            jax.tree.leaves(learner.predict(adapted, batch.inputs, key=key))
        )
        return predict(None), learner.predict(adapted, batch.inputs), predict(key)

    plain, without, first = predictions(jax.random.key(1))
    _, _, second = predictions(jax.random.key(2))
    np.testing.assert_array_equal(plain, np.concatenate(jax.tree.leaves(without)))
    assert np.isfinite(first).all()
    assert not np.allclose(first, plain)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, predictions(jax.random.key(1))[2])


def test_the_loss_of_adapted_parameters_has_no_chance():
    model = noisy(mlp((4,), 2))
    learner = supervised(model, cross_entropy)  # whose adaptation has none either
    task = Task(IMAGES, IMAGES)
    params = learner.init(KEY, task)
    losses = [learner.loss(jax.random.key(seed), params, task)[0] for seed in (1, 2)]
    assert losses[0] == losses[1] == query_loss(model, cross_entropy, task)(params)[0]
    assert losses[0] != query_loss(model, cross_entropy, task, key=KEY)(params)[0]
