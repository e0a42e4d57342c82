"""Celo beside the authors' code (`celo_reference.py`), and its weights as a user gets them."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.learners.optimizers import celo_optimizer, celo_weights, pretrained
from jaxmeta.learners.optimizers._pretrained import CELO_FILE
from jaxmeta.models import check_alike
from jaxmeta.places import data_folder
from jaxmeta.recipes import restore
from tests.learners.celo_reference import RUN, SHAPES, STEPS, gradients, losses, start

KEY = jax.random.key(0)
needs_weights = pytest.mark.skipif(
    not (data_folder("celo") / CELO_FILE).exists(), reason="the weights of Celo are not here"
)


@needs_weights
def test_steps_are_those_of_the_authors():
    """Of tensors of every rank, two equal axes, clipped gradients, and an outlier of the loss."""
    weights = celo_weights()
    check_alike(weights, jax.eval_shape(celo_optimizer(RUN).init, KEY))
    rule: Any = pretrained("celo", steps=RUN)
    params: Any = jax.tree.map(jnp.asarray, start())
    state, update = rule.init(params), jax.jit(rule.update)
    with np.load(Path(__file__).with_name("celo_reference.npz")) as stored:
        expected = dict(stored)
    before = start()
    for step, (grads, loss) in enumerate(zip(gradients(), losses())):
        updates, state = update(grads, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        for name in SHAPES:
            # Of the way so far, which is small beside the parameters.
            way = expected[name][step] - before[name]
            np.testing.assert_allclose(
                params[name] - before[name], way, atol=2e-3 * np.abs(way).max() + 3e-7
            )
            assert np.abs(way).max() > 1e-5
    assert int(state.step) == STEPS


@needs_weights
@pytest.mark.full
def test_it_trains_in_a_loop_and_half_precision_keeps_its_dtype():
    rule: Any = pretrained("celo", steps=100)

    def loss(w):
        return jnp.square(w.astype(jnp.float32) - jnp.arange(12.0).reshape(4, 3)).mean()

    @jax.jit
    def train(w):
        def step(carry, _):
            w, state = carry
            value, grads = jax.value_and_grad(loss)(w)
            updates, state = rule.update(grads, state, w, value=value)
            return (optax.apply_updates(w, updates), state), value

        return jax.lax.scan(step, (w, rule.init(w)), length=100)

    (after, _), values = train(jnp.ones((4, 3)))
    assert loss(after) < 0.5 * values[0]
    half = jnp.ones((4, 3), jnp.bfloat16)
    updates, state = rule.update(half, rule.init(half), half, value=jnp.ones(()))
    assert updates.dtype == jnp.bfloat16
    assert state.momenta.dtype == jnp.float32


@needs_weights
@pytest.mark.full
def test_on_the_command_line_the_weights_stay_as_published(status, tmp_path):
    line = [
        "celo",
        "--horizon",
        "4",
        "--dimensions",
        "3",
        "--tuning-tasks",
        "2",
        "--eval-tasks",
        "6",
        "--devices",
        "1",
    ]
    assert status("optimizers", *line, "--out", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["comparison"]["unseen problems"]) > {"learned", "adam"}
    trained = restore(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, trained.meta_params, celo_weights())


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a file.*github.com/amoudgl/celo"):
        celo_weights(tmp_path)
    (tmp_path / CELO_FILE).write_bytes(b"other")
    with pytest.raises(ValueError, match="has the SHA-256"):
        celo_weights(tmp_path)
    with pytest.raises(ValueError, match=r"pretrained\('celo'\): steps None; give the length"):
        pretrained("celo")
    with pytest.raises(ValueError, match=r"steps 5; leave steps out"):
        pretrained("mlp-digits", steps=5)
    with pytest.raises(ValueError, match="give celo"):
        pretrained("cello")
    with pytest.raises(ValueError, match="steps 0; give at least 1"):
        celo_optimizer(0)
    rule = celo_optimizer(5)
    transformation: Any = rule.transformation(rule.init(KEY))
    w = jnp.ones((2, 2))
    with pytest.raises(ValueError, match="requires the loss: give update"):
        transformation.update(w, transformation.init(w), w)
