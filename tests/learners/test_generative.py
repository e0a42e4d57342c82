"""Generators of features and of images, beside values worked out by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Carry, Model, Task, cross_entropy, prototypical
from jaxmeta.learners import (
    augmented,
    distribution_calibration,
    gan_augmented,
    noise_augmented,
    vae,
    vae_augmented,
)
from jaxmeta.learners.architecture import Alternating
from jaxmeta.learners.generative import (
    BaseClasses,
    CriticState,
    FeatureVAEParams,
    VAEParams,
    base_codes,
    base_noise,
    base_statistics,
    calibrated_samples,
    gan_samples,
    gaussian_noise,
    vae_samples,
)
from jaxmeta.models import mlp, on_features
from jaxmeta.training import train

KEY = jax.random.key(0)


def draws(generate, example, count=20_000) -> np.ndarray:
    keys = jax.random.split(KEY, count)
    return np.asarray(jax.jit(jax.vmap(generate, in_axes=(0, None)))(keys, example))


# --- the wrapper --------------------------------------------------------------------------


def test_a_prototype_is_the_mean_of_real_and_generated_examples():
    shifted = lambda key, x: x + 3.0  # noqa: E731
    learner = augmented(prototypical(on_features(), cross_entropy, 2), shifted, 2)
    support = Batch(jnp.array([[0.0, 1.0], [9.0, 9.0], [4.0, 0.0]]), jnp.array([0, 1, 0]))
    # Of class 0: 0 and 4 with two copies of 3 and 7 each; the padded example has no copies.
    padded = support._replace(mask=jnp.array([True, True, False]))
    found = learner.adapt(KEY, {"encoder": ()}, support).prototypes_WD
    np.testing.assert_allclose(found, [[4.0, 2.5], [11.0, 11.0]])
    found = learner.adapt(KEY, {"encoder": ()}, padded).prototypes_WD
    np.testing.assert_allclose(found, [[2.0, 3.0], [11.0, 11.0]])


def test_without_generated_examples_nothing_changes():
    learner = prototypical(on_features(), cross_entropy, 2)
    same = augmented(learner, lambda key, x: x / 0, 0)
    batch = Batch(jnp.eye(2), jnp.array([0, 1]))
    expected = learner.loss(KEY, {"encoder": ()}, Task(batch, batch))[0]
    assert same.loss(KEY, {"encoder": ()}, Task(batch, batch))[0] == expected
    with pytest.raises(ValueError, match="count is -1; give 0 or more"):
        augmented(learner, lambda key, x: x, -1)


# --- statistics of base classes -----------------------------------------------------------


def test_base_statistics_are_those_of_numpy():
    rng = np.random.default_rng(0)
    features, mask = rng.normal(size=(2, 5, 3)).astype(np.float32), np.ones((2, 5), bool)
    mask[1, 3:] = False
    features[1, 3:] = np.nan
    base = base_statistics(jnp.asarray(features), jnp.asarray(mask))
    covariances = []
    for row, size in enumerate((5, 3)):
        own = features[row, :size]
        np.testing.assert_allclose(base.means_CD[row], own.mean(axis=0), rtol=1e-5)
        covariances.append(np.cov(own.T))
        factor = np.asarray(base.factors_CND[row])
        np.testing.assert_allclose(factor.T @ factor, covariances[-1], rtol=1e-4, atol=1e-6)
    factor = np.asarray(base_noise(base))
    np.testing.assert_allclose(factor @ factor.T, np.mean(covariances, axis=0), atol=1e-5)


def test_calibrated_samples_have_the_moments_of_the_paper():
    means = jnp.array([[0.0, 1.0], [2.0, 0.0], [90.0, 90.0]])
    factors = jnp.array([[[1.0, 0.0]], [[0.0, 2.0]], [[50.0, 50.0]]])
    found = draws(calibrated_samples(BaseClasses(means, factors), 2, 0.25), jnp.array([1.0, 2.0]))
    # (x + μ_0 + μ_1) / 3, and the mean of diag(1, 0) and diag(0, 4), plus 1/4 everywhere.
    np.testing.assert_allclose(found.mean(axis=0), [1.0, 1.0], atol=0.03)
    np.testing.assert_allclose(np.cov(found.T), [[0.75, 0.25], [0.25, 2.25]], atol=0.08)


def test_a_step_of_the_head_from_zero():
    """head = α Xᵀ (Y − 1/2) / S, the first step of logistic regression."""
    features, targets = jnp.array([[4.0, 0.0], [1.0, 9.0]]), jnp.array([0, 1])
    # All samples are the example itself: base classes at the examples, no covariance.
    base = BaseClasses(jnp.sqrt(features), jnp.zeros((2, 1, 2)))
    learner = distribution_calibration(
        cross_entropy,
        2,
        optax.sgd(2.0),
        1,
        base_classes=2,
        base_examples=1,
        count=3,
        nearest=1,
        spread=0.0,
    )
    adapted = learner.adapt(KEY, base, Batch(features, targets))
    # The gradient is the mean over both classes, of roots (2, 0) and (1, 3): ±1/4 of each, times 2.
    kernel = 2.0 * np.array([[2 - 1, 1 - 2], [0 - 3, 3 - 0]]) / 4
    np.testing.assert_allclose(adapted.head["kernel"], kernel, atol=1e-6)
    np.testing.assert_allclose(adapted.head["bias"], [0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nearest": 4}, "nearest 4 of 3 base classes"),
        ({"spread": -1.0}, "spread -1.0"),
        ({"power": 0.0}, "power 0.0"),
        ({"count": -1}, "count -1"),
    ],
)
def test_wrong_settings_of_distribution_calibration(wrong, message):
    with pytest.raises(ValueError, match=message):
        distribution_calibration(
            cross_entropy, 2, optax.sgd(1.0), 1, base_classes=3, base_examples=1, **wrong
        )


def test_noise_has_its_covariance():
    factor = jnp.array([[2.0, 0.0], [1.0, 1.0]])
    learner = noise_augmented(cross_entropy, 2, optax.sgd(1.0), 1, count=0)
    assert learner.init(KEY, Task(Batch(jnp.eye(2), jnp.arange(2)), None)).shape == (2, 2)
    found = draws(gaussian_noise(factor), jnp.array([5.0, -5.0]))
    np.testing.assert_allclose(found.mean(axis=0), [5, -5], atol=0.06)
    np.testing.assert_allclose(np.cov(found.T), factor @ factor.T, atol=0.12)


# --- variational autoencoders -------------------------------------------------------------


def linear_model(matrix) -> Model:
    return Model(
        lambda key, inputs: (), lambda params, inputs, reference=None, key=None: inputs @ matrix
    )


def test_the_bound_is_tight_with_the_exact_posterior():
    """p(z) = N(0, 1), p(x | z) = N(w z, σ²): the bound of the exact posterior is log p(x)."""
    weight, std = np.array([2.0, -1.0]), 0.5
    variance = 1 / (1 + weight @ weight / std**2)

    def posterior(params, inputs, reference=None, key=None):
        mean = variance * (inputs @ jnp.asarray(weight) / std**2)
        return jnp.stack([mean, jnp.full_like(mean, np.log(variance))], axis=1)

    learner = vae(
        Model(lambda key, inputs: (), posterior),
        linear_model(jnp.asarray(weight)[None]),
        likelihood="gaussian",
    )
    point = np.array([1.0, 0.3])
    rows = Batch(jnp.tile(jnp.asarray(point, jnp.float32), (50_000, 1)), jnp.zeros(50_000, int))
    params = VAEParams((), (), jnp.log(std))
    _, info = learner.loss(KEY, params, Task(rows, rows))
    covariance = np.outer(weight, weight) + std**2 * np.eye(2)
    exact = -point @ np.linalg.solve(covariance, point) / 2
    exact -= np.log(np.linalg.det(2 * np.pi * covariance)) / 2
    assert info.metrics["bound"] == pytest.approx(exact, abs=0.03)
    assert info.loss == -info.metrics["bound"]


def test_a_bernoulli_bound_by_hand():
    codes = Model(
        lambda key, inputs: (),
        lambda params, inputs, reference=None, key=None: jnp.tile(
            jnp.array([[2.0, 0.0]]), (len(inputs), 1)
        ),
    )
    images = Batch(jnp.array([[0.9, 0.2]]), jnp.zeros(1, int))  # pixels 1 and 0
    learner = vae(codes, linear_model(jnp.zeros((1, 2))))
    loss, info = learner.loss(KEY, VAEParams((), (), jnp.zeros(())), Task(images, images))
    assert info.metrics["divergence"] == pytest.approx(2.0)  # half the square of the mean
    assert loss == pytest.approx(2 + 2 * np.log(2), rel=1e-6)


def test_without_the_prior_samples_use_codes_of_base_pairs():
    params = FeatureVAEParams((), (), jnp.log(3.0), jnp.array([[1.0], [10.0]]))
    decoder = linear_model(jnp.array([[1.0], [1.0]]))  # z + x_a
    found = draws(vae_samples(decoder, params, prior=False), jnp.array([100.0]), 200)
    assert {*found.ravel().tolist()} == {101.0, 110.0}
    found = draws(vae_samples(decoder, params), jnp.array([100.0]))
    assert found.mean() == pytest.approx(100, abs=0.1)
    assert found.var() == pytest.approx(1 + 9, rel=0.05)  # of the code and of the likelihood


def test_the_delta_encoder_weighs_errors_by_their_square():
    """Errors of 1 and 3: (1 · 1 + 9 · 3) / 10."""
    encoder = linear_model(jnp.zeros((4, 2)))
    decoder = linear_model(jnp.zeros((3, 2)))  # always 0
    learner = vae_augmented(encoder, decoder, cross_entropy, 2, optax.sgd(1.0), 1, prior=False)
    batch = Batch(jnp.array([[1.0, -3.0]]), jnp.array([0]))
    params = learner.init(KEY, Task(batch, batch))
    assert learner.loss(KEY, params, Task(batch, batch))[0] == pytest.approx(2.8)


def test_the_loss_of_the_delta_encoder_by_hand():
    first = linear_model(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))  # z = x − x_a
    decoder = linear_model(jnp.array([[0.5], [1.0]]))  # x_a + z / 2
    learner = vae_augmented(
        first, decoder, cross_entropy, 3, optax.sgd(1.0), 1, prior=False, codes=4
    )
    support = Batch(jnp.array([[1.0], [5.0]]), jnp.array([0, 1]))
    query = Batch(jnp.array([[2.0], [9.0], [7.0]]), jnp.array([0, 1, 2]))  # none of class 2
    params = learner.init(KEY, Task(support, query))
    loss, info = learner.loss(KEY, params, Task(support, query))
    assert loss == pytest.approx((0.5 + 2.0) / 2)  # half of each difference is missing
    assert info.metrics["divergence"] == 0
    features, mask = jnp.array([[[1.0], [4.0]]]), jnp.ones((1, 2), bool)
    codes = base_codes(KEY, first, params, features, mask)
    assert {*codes.ravel().tolist()} <= {-3.0, 0.0, 3.0}
    with pytest.raises(ValueError, match="codes is 0"):
        vae_augmented(first, decoder, cross_entropy, 2, optax.sgd(1.0), 1, codes=0)


# --- the adversarial network --------------------------------------------------------------


def adversaries(critic_steps=1, **options):
    """G(x, z) = g x, and D(x, y) = w · y."""
    generator = Model(
        lambda key, given: jnp.asarray(0.5),
        lambda params, given, reference=None, key=None: params * given[0],
    )
    critic = Model(
        lambda key, pair: jnp.array([3.0, 4.0]),
        lambda params, pair, reference=None, key=None: pair[1] @ params,
    )
    return gan_augmented(
        generator, critic, optax.sgd(0.1), latent=2, critic_steps=critic_steps, **options
    )


def test_steps_of_both_adversaries_by_hand():
    learner = adversaries(penalty=2.0)
    first, second = jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 1.0], [3.0, 0.0]])
    task = Task(Batch(first, jnp.arange(2)), Batch(second, jnp.arange(2)))
    assert learner.shared is not None
    state = learner.shared(KEY, jnp.asarray(0.5), task)
    carry = Carry(jnp.zeros((), jnp.int32), state)
    grads, info, after = learner.grad(KEY, jnp.asarray(0.5), task, carry)
    # −mean of w · g x: the slope in g is −(6 + 8) / 2; scores of real pairs are 7 and 9.
    assert grads == pytest.approx(-7.0)
    assert info.metrics["wasserstein"] == pytest.approx(8 - 3.5)
    # Mean fake minus mean real, and the slope of 2 (‖w‖ − 1)² at ‖w‖ = 5.
    slope = np.array([0.5, 0.5]) - np.array([2.0, 0.5]) + 2 * 2 * (5 - 1) * np.array([0.6, 0.8])
    np.testing.assert_allclose(after.shared.params, np.array([3.0, 4.0]) - 0.1 * slope, rtol=1e-5)
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:1] * 0 + 9]), task)
    mask = jnp.array([True, True, False])
    padded = Task(*(batch._replace(mask=mask) for batch in padded))
    again, _, same = learner.grad(KEY, jnp.asarray(0.5), padded, carry)
    assert again == pytest.approx(-7.0)
    np.testing.assert_allclose(same.shared.params, after.shared.params, rtol=1e-6)


def test_each_critic_step_has_other_pairs():
    learner = adversaries(critic_steps=2, penalty=0.0)
    first = jnp.zeros((4, 2))
    second = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    task = Task(Batch(first, jnp.arange(4)), Batch(second, jnp.arange(4)))
    state = CriticState(jnp.zeros(2), optax.sgd(0.1).init(jnp.zeros(2)))
    assert isinstance(learner.grad, Alternating)
    after = learner.grad.follow(KEY, jnp.asarray(0.5), task, Carry(jnp.zeros((), int), state))
    np.testing.assert_allclose(after.params, [0.1, 0.1])  # one step along each
    odd = jax.tree.map(lambda leaf: leaf[:3], task)
    with pytest.raises(ValueError, match="a task of 3 pairs; give a multiple"):
        learner.loss(KEY, jnp.asarray(0.5), odd, **{"shared": state})
    with pytest.raises(ValueError, match="critic_steps 0"):
        adversaries(critic_steps=0)


def test_samples_of_the_generator_for_a_learner():
    generator = Model(
        lambda key, given: (),
        lambda params, given, reference=None, key=None: given[0] + given[1][:, :1],
    )
    found = draws(partial(gan_samples(generator, (), 3)), jnp.array([7.0]))
    assert (found.mean(), found.var()) == (pytest.approx(7, abs=0.03), pytest.approx(1, rel=0.05))


@pytest.mark.full
def test_a_vae_of_features_learns_the_spread_of_a_class():
    """Classes lie on a line, and their examples beside it: samples are beside it, too."""

    def sample(key):
        centre_key, *keys = jax.random.split(key, 3)
        centres = 3 * jax.random.normal(centre_key, (4, 1)) * jnp.array([[1.0, 0.0]])
        targets = jnp.arange(16) % 4
        parts = [
            centres[targets] + jnp.array([[0.0, 1.0]]) * jax.random.normal(own, (16, 1))
            for own in keys
        ]
        return Task(*(Batch(part, targets) for part in parts))

    decoder = mlp((32,), 2)
    learner = vae_augmented(mlp((32,), 2), decoder, cross_entropy, 4, optax.sgd(1.0), 1)
    trained, _ = train(learner, sample, KEY, 600, optax.adam(1e-2), task_batch=4)
    found = draws(vae_samples(decoder, trained.meta_params), jnp.array([2.0, 1.5]), 2000)
    np.testing.assert_allclose(found.mean(axis=0), [2.0, 0.0], atol=0.25)
    np.testing.assert_allclose(found.std(axis=0), [0.0, 1.0], atol=0.25)
