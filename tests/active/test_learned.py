"""The learned rule: its features, its policy gradient, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy, mlp, prototypical
from jaxmeta.active import (
    acquisition,
    chance,
    features,
    from_learner,
    learned,
    learned_acquirer,
    unlabelled_view,
)
from jaxmeta.training import meta_update
from jaxmeta.training.update import chunk_of

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
LINEAR = mlp((), 1)


def acquire_with(rule, record=None):
    learner = prototypical(IDENTITY, cross_entropy, ways=4)
    solve = from_learner(learner, {"encoder": {}}, embed=lambda inputs: inputs)
    return acquisition(solve, rule, cross_entropy, ways=4, budget=5, record=record)


def sample(key):
    """Four classes in the plane, two of which have a single example: they are hard to meet."""
    centre_key, noise_key = jax.random.split(key)
    centres = 3 * jax.random.normal(centre_key, (4, 2))
    targets = jnp.array([0] * 8 + [1] * 8 + [2, 3])
    inputs = centres[targets] + 0.3 * jax.random.normal(noise_key, (18, 2))
    return Task(Batch(inputs, targets), Batch(centres, jnp.arange(4)))


def test_features_by_hand(x64):
    points = jnp.array([[0.0], [1.0], [3.0]])
    view = unlabelled_view(jnp.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]))._replace(
        points_ND=points,
        labelled_N=jnp.array([True, False, False]),
        candidates_N=jnp.array([False, True, True]),
        known_W=jnp.array([True, False]),
        used=jnp.array(0.25),
    )
    unit = 2.0  # of the squared distances 0, 4, 4, 0 between the two candidates
    of_last = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    expected = [
        [0.5, 0.0, 1.0, 0.0, np.sqrt(4 / unit), (np.exp(-0.5) + np.exp(-4.5)) / 2, 0.25, 0.5],
        [1.0, 1.0, 0.0, np.sqrt(1 / unit), np.sqrt(0.5), (1 + np.exp(-2)) / 2, 0.25, 0.5],
        [0.75, 0.5, of_last, np.sqrt(9 / unit), np.sqrt(0.5), (np.exp(-2) + 1) / 2, 0.25, 0.5],
    ]
    np.testing.assert_allclose(features(view), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.full
def test_the_gradient_is_that_of_the_weighted_log_likelihood(x64):
    learner = learned_acquirer(LINEAR, acquire_with, rollouts=3, discount=0.5)
    params, task = learner.init(KEY, sample(KEY)), sample(jax.random.key(1))
    lived = learner.grad.gather(KEY, params, task)
    # Advantages: discounted gains of the accuracy minus the mean over rollouts, normalised.
    rule = learned(LINEAR, params, explore=True)
    found = jax.vmap(acquire_with(rule), in_axes=(0, None))(jax.random.split(KEY, 3), task)
    np.testing.assert_array_equal(found.chosen_B, lived.chosen)
    gains = np.diff(np.asarray(found.metrics["accuracy"]), axis=1)
    returns = np.stack(
        [(gains[:, t:] * 0.5 ** np.arange(5 - t)).sum(axis=1) for t in range(5)], axis=1
    )
    centred = returns - returns.mean(axis=0)
    np.testing.assert_allclose(lived.advantages, centred / centred.std(), rtol=1e-5, atol=1e-12)

    def weighted(params):
        total = 0.0
        for e, t in np.ndindex(3, 5):
            scores = LINEAR.apply(params, lived.features[e, t])[:, 0]
            allowed = jnp.exp(scores) * lived.candidates[e, t]
            probability = allowed[lived.chosen[e, t]] / allowed.sum()
            total -= lived.advantages[e, t] * jnp.log(probability) / 15
        return total

    grads = jax.grad(weighted)(params)
    own = jax.grad(learner.grad.surrogate)(params, lived)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), own, grads)
    assert float(learner.grad.divergence(params, lived)) == pytest.approx(0, abs=1e-12)
    assert lived.candidates[:, 0].all() and not lived.candidates[:, 1].all()


@pytest.mark.full
def test_it_learns_to_find_rare_classes():
    learner = learned_acquirer(LINEAR, acquire_with, rollouts=8)
    update = meta_update(learner, optax.adam(3e-2), task_batch=4)
    source = jax.tree_util.Partial(sample)
    state = jax.jit(update.init)(KEY, source)
    state, _ = chunk_of(update.update)(state, source, None, length=60)

    def area(rule):
        acquire = acquire_with(rule)
        keys = jax.random.split(jax.random.key(7), 100)
        values = jax.jit(jax.vmap(lambda key: acquire(key, sample(key)).metrics["accuracy"]))(keys)
        return float(values.mean())

    assert area(learned(LINEAR, state.meta_params)) > area(chance) + 0.1


@pytest.mark.parametrize("options", [{"rollouts": 1}, {"discount": 1.5}])
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="give at least 2 rollouts, and a discount from 0 to 1"):
        learned_acquirer(LINEAR, acquire_with, **options)
