"""The learned optimizer that comes with the package, as a user has it."""

import importlib.resources

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxmeta import cross_entropy
from jaxmeta.data.images.digits import digits
from jaxmeta.learners.optimizers import pretrained
from jaxmeta.learners.optimizers._pretrained import RULES
from jaxmeta.models import check_alike, mlp, unpack

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", RULES)
def test_the_file_is_small_and_of_its_rule(name):
    file = importlib.resources.files("jaxmeta.learners.optimizers") / f"{name}.npz"
    data = file.read_bytes()
    assert len(data) < 200_000
    check_alike(unpack(data), jax.eval_shape(RULES[name].init, KEY))


@pytest.mark.full
def test_it_trains_a_classifier_of_digits():
    """From chance to nine of ten in 100 steps, in an optax chain, without a rate to set."""
    images = jnp.asarray(digits().images.reshape(-1, 64), jnp.float32) / 255
    labels = jnp.repeat(jnp.arange(10), jnp.asarray(digits().counts), total_repeat_length=1797)
    model, optimizer = mlp((16,), 10), optax.chain(optax.zero_nans(), pretrained())
    params = model.init(KEY, images[:1])

    def loss(params, rows):
        return cross_entropy(model.apply(params, images[rows]), labels[rows])

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (64,), 0, len(labels))
            grads = jax.grad(loss, has_aux=True)(params, rows)[0]
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 100))[0]

    everything = jnp.arange(len(labels))
    before, after = loss(params, everything), loss(train(params)[0], everything)
    assert before[1]["accuracy"] < 0.3
    assert after[1]["accuracy"] > 0.9


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(ValueError, match="give mlp-digits"):
        pretrained("mlp-digit")
