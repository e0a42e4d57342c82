"""What the support does not show is not predicted, and what its labels are not, is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, cross_entropy
from jaxmeta.learners import (
    matching,
    meta_transfer,
    one_hot_squared_error,
    proto_maml,
    prototypical,
    r2d2,
    relation,
    semi_supervised_prototypical,
    siamese,
    snail,
)
from jaxmeta.learners.memory import mann, memory_classifier
from jaxmeta.learners.metric._prototypical import class_members, squared_distances
from jaxmeta.learners.process import class_by_class, conditional_neural_process_classifier
from jaxmeta.models import mlp, pairwise

KEY, WAYS = jax.random.key(0), 5
BODY, BODY_TO_ONE = mlp((4,), 4), mlp((4,), 1)
SHOWN = jnp.array([2, 1, 4, 2, -1, -1], jnp.int32)  # of five classes; two without a label
MACHINE = mann(WAYS, slots=4, slot_width=3, controller_width=8, read_heads=1)
LEARNERS = {
    "prototypical": lambda: prototypical(BODY, cross_entropy, WAYS),
    "prototypical-cosine": lambda: prototypical(BODY, cross_entropy, WAYS, distance="cosine"),
    "semi-supervised": lambda: semi_supervised_prototypical(
        BODY, cross_entropy, WAYS, distractor_cluster=True
    ),
    "matching": lambda: matching(BODY, cross_entropy, WAYS),
    "relation": lambda: relation(BODY, pairwise(BODY_TO_ONE), one_hot_squared_error, WAYS),
    "siamese": lambda: siamese(BODY, WAYS),
    "r2d2": lambda: r2d2(BODY, cross_entropy, WAYS),
    "snail": lambda: snail(BODY, cross_entropy, WAYS, steps=4, filters=4),
    "mann": lambda: memory_classifier(MACHINE, BODY, cross_entropy, WAYS),
    "process": lambda: conditional_neural_process_classifier(
        BODY, class_by_class(BODY_TO_ONE, WAYS), cross_entropy, WAYS
    ),
    "meta-transfer": lambda: meta_transfer(
        mlp((4,), 4, query_statistics="layer"), cross_entropy, WAYS, optax.sgd(0.5), inner_steps=2
    ),
    "proto-maml": lambda: proto_maml(BODY, cross_entropy, WAYS, optax.sgd(0.5), inner_steps=2),
}


@pytest.mark.full
@pytest.mark.parametrize("name", LEARNERS)
def test_a_class_without_support_is_never_predicted(name):
    learner, inputs = LEARNERS[name](), jax.random.normal(KEY, (6, 3))
    support, queries = Batch(inputs, SHOWN), jax.random.normal(jax.random.key(1), (64, 3))
    labels_all = name in ("proto-maml", "meta-transfer")
    if labels_all:  # which have no use for examples without a label
        support = Batch(inputs[:4], SHOWN[:4])
    task = Task(support, support)

    @jax.jit
    def outputs_of(key, support):
        # Weights far from any use, for which all kinds of outputs come out.
        params = jax.tree.map(lambda leaf: 3 * leaf - 1, learner.init(key, task))
        return learner.predict(learner.adapt(key, params, support), 9 * queries)

    for seed in range(3):
        outputs = np.asarray(outputs_of(jax.random.key(seed), support))
        assert np.isfinite(outputs).all()
        assert set(outputs.argmax(axis=1)) <= {1, 2, 4}
    if not labels_all:
        wrong = outputs_of(KEY, support._replace(targets=SHOWN.at[0].set(WAYS)))
        assert np.isnan(wrong).all()


@pytest.mark.parametrize("label", [-2, 5])
def test_a_support_label_is_a_class_or_none(label):
    with pytest.raises(ValueError, match=f"support: the target {label} is not a class index"):
        class_members(Batch(None, SHOWN.at[3].set(label)), WAYS)
    kept = jnp.arange(6) != 3
    masked = class_members(Batch(None, SHOWN.at[3].set(label), kept), WAYS)
    np.testing.assert_array_equal(masked.sum(axis=1), [1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("offset", [0.0, 3e3, -1e5])
@pytest.mark.parametrize("known", [None, [True, True, False]])
def test_distances_do_not_cancel_where_all_share_an_offset(offset, known):
    random = np.random.default_rng(0)
    points = np.float32(random.normal(size=(6, 64)) + offset)
    centres = np.float32(random.normal(size=(3, 64)) + offset)
    if known is not None:
        centres[2] = 0  # the prototype of a class without examples
    found = squared_distances(points, centres, known if known is None else jnp.array(known))
    exact = np.square(np.float64(points)[:, None] - np.float64(centres)[None]).sum(axis=2)
    np.testing.assert_allclose(found[:, :2], exact[:, :2], rtol=1e-5)


@pytest.mark.parametrize("name", ["prototypical", "semi-supervised", "proto-maml"])
def test_logits_do_not_cancel_either(name):
    identity = BODY._replace(
        init=lambda key, x: {}, apply=lambda params, x, reference=None, key=None: x
    )
    learner = {
        "prototypical": lambda: prototypical(identity, cross_entropy, 3),
        "semi-supervised": lambda: semi_supervised_prototypical(identity, cross_entropy, 3),
        "proto-maml": lambda: proto_maml(identity, cross_entropy, 3, optax.sgd(0.0), 1),
    }[name]()
    random = np.random.default_rng(0)
    means = random.normal(size=(3, 64))
    points = np.float32(np.repeat(means, 8, axis=0) + 0.3 * random.normal(size=(24, 64)) + 3e3)
    support = Batch(jnp.asarray(points[::2]), jnp.repeat(jnp.arange(3), 4))
    adapted = jax.jit(learner.adapt)(KEY, {"encoder": {}}, support)
    found = np.asarray(jax.jit(learner.predict)(adapted, jnp.asarray(points[1::2])), np.float64)
    of_class = np.float64(points[::2]).reshape(3, 4, 64).mean(axis=1)
    exact = -np.square(np.float64(points[1::2])[:, None] - of_class[None]).sum(axis=2)
    centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (found, exact)]
    np.testing.assert_allclose(*centred, atol=0.1)  # of logits near 100; were off by up to 200
