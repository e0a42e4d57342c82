"""The transformer neural process beside a plain NumPy one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta import Batch, Task
from jaxmeta.learners.process import transformer_neural_process

WIDTH, LAYERS, HEADS = 6, 2, 3
REAL = np.array([True, False, True, True])


def dense(params, values):
    return np.tensordot(values, params["kernel"], 1) + params["bias"]


def normed(params, values):
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / deviation * params["scale"] + params["bias"]


def relu(values):
    return np.maximum(values, 0)


def attended(params, tokens, seen):
    """Each head by itself: softmax q kᵀ / √d over the tokens that are seen."""
    queries, keys, values = (dense(params[name], tokens) for name in ("query", "key", "value"))
    heads = []
    for head in range(HEADS):
        scores = queries[:, head] @ keys[:, head].T / np.sqrt(WIDTH / HEADS)
        weights = np.where(seen, np.exp(scores), 0)
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ values[:, head])
    stacked = np.stack(heads, axis=1)
    return np.einsum("nhd,hdw->nw", stacked, params["out"]["kernel"]) + params["out"]["bias"]


def by_hand(params, x, y, x_target):
    """Nguyen, Grover 2022, section 4.2, one target by itself."""
    tokens = np.concatenate([np.c_[x, y, np.ones(len(x))], [[*x_target, 0, 0]]])
    values = dense(params["embedding_1"], relu(dense(params["embedding_0"], tokens)))
    seen = np.array([*REAL, False]) | np.eye(len(tokens), dtype=bool)
    for layer in range(LAYERS):
        block = params[f"block_{layer}"]
        values = values + attended(block["attention"], normed(block["norm_0"], values), seen)
        hidden = relu(dense(block["hidden"], normed(block["norm_1"], values)))
        values = values + dense(block["output"], hidden)
    last = normed(params["norm"], values[-1])
    mean, spread = dense(params["head"], relu(dense(params["hidden"], last)))
    return mean, 0.1 + 0.9 * np.log1p(np.exp(spread))


@pytest.mark.full
def test_every_target_is_predicted_as_in_the_paper(x64):
    random = np.random.default_rng(0)
    x, y, targets = (random.normal(size=(rows, 1)) for rows in (4, 4, 3))
    learner = transformer_neural_process(width=WIDTH, layers=LAYERS, heads=HEADS)
    context = Batch(jnp.asarray(x), jnp.asarray(y), jnp.asarray(REAL))
    shapes = jax.eval_shape(learner.init, jax.random.key(0), Task(context, context))
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)
    adapted = learner.adapt(jax.random.key(0), params, context)
    found = learner.predict(adapted, jnp.asarray(targets))
    expected = np.array([by_hand(params, x, y, target) for target in targets])
    assert np.abs(np.diff(expected, axis=0)).min() > 1e-3
    np.testing.assert_allclose(np.c_[found.mean, found.std], expected, rtol=1e-5)
