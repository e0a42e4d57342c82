"""The meta-gradient against the expected return, on a process whose trajectories are enumerated.

Expectations are exact sums over all trajectories, so that what is left is the bias of a surrogate.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Task
from jaxmeta.data.control import tabular
from jaxmeta.inner import DIFFERENTIATIONS
from jaxmeta.learners.control import (
    Experience,
    clipped,
    dice,
    linear_advantages,
    log_likelihood,
    lvc,
    maml_rl,
    promp,
)
from jaxmeta.learners.control.surrogates import mean_surrogate

RATE = 0.7
LOGITS = np.array([[0.3, -0.2], [-0.4, 0.5]])
ENVIRONMENT = tabular(2, 2, horizon=3, noise=0.0)


def learner_of(policy, surrogate=dice, inner_steps=1, **options):
    given = (ENVIRONMENT, policy, optax.sgd(RATE), inner_steps)
    return maml_rl(*given, episodes=4, surrogate=surrogate, **options)


def adapted(enumerated, logits, steps=1):
    """Gradient ascent on the expected reward itself."""
    for _ in range(steps):
        logits = logits + RATE * jax.grad(enumerated.value)(logits)
    return logits


def differences(function, at, step=1e-5):
    """Central differences of a function of logits, entry by entry."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[place] = step
        found[place] = (function(at + moved) - function(at - moved)) / (2 * step)
    return found


def meta_gradient(learner, enumerated, steps=1):
    paths = [adapted(enumerated, LOGITS, number) for number in range(steps + 1)]
    lived = [enumerated.expected(logits) for logits in paths]
    experience = Experience((*lived[:-1],), lived[-1], jnp.zeros(()))
    return -jax.grad(learner.grad.surrogate)(jnp.asarray(LOGITS), experience)


def expected_gradient(enumerated, steps=1):
    return differences(
        jax.jit(lambda logits: enumerated.value(adapted(enumerated, logits, steps))), LOGITS
    )


@pytest.mark.parametrize("steps", [1, pytest.param(2, marks=pytest.mark.full)])
def test_dice_is_exact(enumerated, table, steps):
    found = meta_gradient(learner_of(table, inner_steps=steps), enumerated, steps)
    np.testing.assert_allclose(found, expected_gradient(enumerated, steps), atol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("way", ["mixed-mode", "rematerialised", "reverse-mode"])
def test_every_exact_way_to_differentiate(enumerated, table, way):
    learner = learner_of(table, differentiation=DIFFERENTIATIONS[way])
    expected = expected_gradient(enumerated)
    np.testing.assert_allclose(meta_gradient(learner, enumerated), expected, atol=1e-9)


def test_first_order_is_the_gradient_after_adaptation(enumerated, table):
    learner = learner_of(table, differentiation=DIFFERENTIATIONS["first-order"])
    expected = jax.grad(enumerated.value)(adapted(enumerated, LOGITS))
    np.testing.assert_allclose(meta_gradient(learner, enumerated), expected, atol=1e-12)


def hessian_terms(enumerated):
    """The expected Hessian's terms: squares of a step's score, its curvature, and cross terms.

        E Σ_t g_t g_tᵀ R_t,  E Σ_t ∇g_t R_t,  E Σ_t Σ_{u<t} (g_u g_tᵀ + g_t g_uᵀ) R_t

    g_t is the score of step t and R_t the return from there, per step of the horizon.
    """
    flat = LOGITS.reshape(-1)
    likelihoods = lambda flat: enumerated.log_likelihoods(flat.reshape(2, 2))  # noqa: E731
    scores, curvatures = jax.jacobian(likelihoods)(flat), jax.hessian(likelihoods)(flat)
    weights = enumerated.probabilities(LOGITS)[:, None] * enumerated.to_go() / 3
    before = jnp.cumsum(scores, axis=1) - scores
    crossed = jnp.einsum("nt,nti,ntj->ij", weights, before, scores)
    return (
        jnp.einsum("nt,nti,ntj->ij", weights, scores, scores),
        jnp.einsum("nt,ntij->ij", weights, curvatures),
        crossed + crossed.T,
    )


@pytest.mark.parametrize(("surrogate", "kept"), [(dice, 3), (lvc, 2), (log_likelihood, 1)])
def test_surrogates_miss_their_terms_and_no_more(enumerated, table, surrogate, kept):
    squares, curvature, crossed = hessian_terms(enumerated)
    terms = [curvature, squares, crossed]
    value = jax.hessian(lambda flat: enumerated.value(flat.reshape(2, 2)))(LOGITS.reshape(-1))
    np.testing.assert_allclose(value, sum(terms), atol=1e-12)
    gradient = jax.grad(enumerated.value)(adapted(enumerated, LOGITS)).reshape(-1)
    missing = RATE * (sum(terms[kept:], jnp.zeros((4, 4))) @ gradient).reshape(2, 2)
    error = expected_gradient(enumerated) - meta_gradient(learner_of(table, surrogate), enumerated)
    np.testing.assert_allclose(error, missing, atol=1e-9)
    size = np.abs(error).max() / np.abs(expected_gradient(enumerated)).max()
    assert (size < 1e-8) == (surrogate is dice)
    assert surrogate is dice or size > 0.02


def test_the_sampling_term_makes_the_published_surrogate_exact(enumerated, table):
    """Of one sampled episode: E_τ V(φ + α ĝ(τ, φ)), with ĝ the estimate from τ alone."""

    numbers, logits = jnp.arange(32), jnp.asarray(LOGITS)

    def estimate(logits, number):
        likelihoods = enumerated.log_likelihoods(logits)[number]
        return (likelihoods * jnp.asarray(enumerated.to_go())[number]).sum() / 3

    def after(logits, number):
        return logits + RATE * jax.grad(estimate)(logits, number)

    def objective(logits):
        values = jax.vmap(lambda number: enumerated.value(after(logits, number)))(numbers)
        return enumerated.probabilities(logits) @ values

    def estimated(sampling_term):
        learner = learner_of(table, log_likelihood, sampling_term=sampling_term)

        def of(number):
            alone = enumerated.sampled(logits, jnp.where(numbers == number, 1.0, 0.0))
            query = enumerated.expected(after(logits, number))
            return jax.grad(learner.grad.surrogate)(
                logits, Experience((alone,), query, jnp.zeros(()))
            )

        grads = jax.jit(jax.vmap(of))(numbers)
        return -jnp.tensordot(enumerated.probabilities(logits), grads, axes=1)

    expected = differences(jax.jit(objective), LOGITS)
    np.testing.assert_allclose(estimated(True), expected, atol=1e-9)
    assert np.abs(estimated(False) - expected).max() > 0.05


@pytest.mark.parametrize("sampling_term", [False, True])
def test_the_unit_of_the_reward_changes_no_direction(table, tables, sampling_term, x64):
    """Normalised advantages have no unit, and the sampling term has theirs."""

    def gradient(unit):
        scaled = ENVIRONMENT._replace(
            step=lambda *given: (own := ENVIRONMENT.step(*given))._replace(reward=unit * own.reward)
        )
        learner = maml_rl(
            *(scaled, table, optax.sgd(RATE), 1),
            episodes=20,
            surrogate=log_likelihood,
            sampling_term=sampling_term,
        )
        return learner.grad(jax.random.key(1), jnp.asarray(LOGITS), Task(tables, tables), None)[0]

    np.testing.assert_allclose(gradient(100.0), gradient(1.0), rtol=1e-4)


@pytest.mark.full
def test_sampled_episodes_agree_with_the_enumeration(enumerated, tables, table):
    learner = maml_rl(
        *(ENVIRONMENT, table, optax.sgd(RATE), 1),
        episodes=4000,
        advantages=linear_advantages(1.0),
        normalise=False,
    )
    grads = []
    grad = jax.jit(lambda key: learner.grad(key, LOGITS, Task(tables, tables), None)[:2])
    for key in jax.random.split(jax.random.key(0), 16):
        found, info = grad(key)
        grads.append(-found)
    error = np.std(grads, axis=0) / 4
    np.testing.assert_array_less(
        np.abs(np.mean(grads, axis=0) - expected_gradient(enumerated)), 3.5 * error + 1e-3
    )
    assert error.max() < 0.03
    expected = 3 * enumerated.value(adapted(enumerated, LOGITS))
    assert float(info.metrics["return"]) == pytest.approx(float(expected), abs=0.15)
    before = float(info.metrics["return_before"])
    assert before == pytest.approx(float(3 * enumerated.value(LOGITS)), abs=0.15)


@pytest.mark.parametrize("surrogate", [dice, lvc, log_likelihood, clipped(0.2)])
def test_episodes_that_end_early(surrogate, x64):
    """An action of return 1 that ends the episode at once, or three steps of return 1.5."""
    likelihoods = lambda logit: jnp.log(jnp.array([jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit)]))  # noqa: E731
    value = lambda logit: jnp.exp(likelihoods(logit)) @ jnp.array([1.0, 1.5]) / 3  # noqa: E731
    at = jnp.asarray(0.4)
    weights = 2 * jnp.exp(likelihoods(at))  # of the mean over both
    mask = jnp.array([[1.0, 0, 0], [1, 1, 1]]) * weights[:, None]
    to_go = jnp.array([[1.0, 7, 7], [1.5, 1, 0.5]])

    def mean(logit):
        first = likelihoods(logit) - jax.lax.stop_gradient(likelihoods(at))
        ratios = jnp.zeros((2, 3)).at[:, 0].set(first)
        return mean_surrogate(surrogate, ratios, to_go, mask)

    np.testing.assert_allclose(jax.grad(mean)(at), jax.grad(value)(at), rtol=1e-12)


def test_promp_is_its_definition(enumerated, table):
    """Away from the policies that acted, where ratios, clipping and KL matter."""
    learner = promp(ENVIRONMENT, table, optax.sgd(RATE), 1, clip=0.1, inner_divergence=0.2)
    after = adapted(enumerated, LOGITS)
    lived = enumerated.expected(LOGITS), enumerated.expected(after)
    moved = LOGITS + np.array([[0.3, -0.1], [0.2, 0.1]])

    def ratios(logits, old):
        return np.exp(enumerated.log_likelihoods(logits) - enumerated.log_likelihoods(old))

    def inner(logits):
        ratio = jnp.exp(enumerated.log_likelihoods(logits) - enumerated.log_likelihoods(LOGITS))
        weights = enumerated.probabilities(LOGITS)[:, None] / 3
        return (weights * ratio * enumerated.to_go()).sum()

    theta = moved + RATE * jax.grad(inner)(jnp.asarray(moved))
    ratio, to_go = ratios(theta, after), enumerated.to_go()
    gain = np.minimum(ratio * to_go, np.clip(ratio, 0.9, 1.1) * to_go)
    gain = (np.asarray(enumerated.probabilities(after)) @ gain).sum() / 3
    old, new = jax.nn.log_softmax(LOGITS), jax.nn.log_softmax(moved)
    of_state = (np.exp(old) * (old - new)).sum(axis=1)
    visits = np.asarray(enumerated.probabilities(LOGITS)) @ of_state[enumerated.states] / 3
    found = learner.grad.surrogate(moved, Experience((lived[0],), lived[1], jnp.zeros(())))
    np.testing.assert_allclose(found, 0.2 * visits.sum() - gain, rtol=1e-9)
    assert np.any(np.abs(ratio - 1) > 0.1)


def test_the_divergence_is_that_of_adapted_policies(enumerated, table):
    learner = learner_of(table, lvc)
    after = adapted(enumerated, LOGITS)
    lived = Experience((enumerated.expected(LOGITS),), enumerated.expected(after), jnp.zeros(()))
    assert float(learner.grad.divergence(LOGITS, lived)) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(jax.grad(learner.grad.divergence)(LOGITS, lived), 0, atol=1e-15)
    assert float(learner.grad.divergence(LOGITS + np.eye(2), lived)) > 1e-3


@pytest.mark.full
def test_adaptation_is_what_fewer_steps_give(tables, table):
    key, observations = jax.random.key(3), jnp.eye(2)
    learner = learner_of(table, inner_steps=2)
    path = learner.trajectory(key, LOGITS, tables, observations)
    assert path.shape == (3, 2, 2)
    for steps in range(3):
        shorter = learner_of(table, inner_steps=steps)
        outputs = shorter.predict(shorter.adapt(key, LOGITS, tables), observations)
        np.testing.assert_allclose(path[steps], outputs)
    lived = learner.rollout(key, LOGITS, Task(tables, tables))
    assert lived.rewards.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(learner_of, inner_steps=-1), "-1 inner steps"),
        (partial(learner_of, sampling_term=True), "sampling_term requires surrogate=log_likeli"),
        (
            partial(learner_of, differentiation=DIFFERENTIATIONS["reverse-mode"]._replace(last=1)),
            "a truncated way to differentiate",
        ),
        (lambda table: clipped(0.0), "clip 0.0; give a positive number"),
        (lambda table: linear_advantages(1.5), "discount 1.5"),
        (lambda table: promp(ENVIRONMENT, table, optax.sgd(1), 1, episodes=0), "0 episodes"),
    ],
)
def test_nonsense_is_refused(make, told, table):
    with pytest.raises(ValueError, match=told):
        make(table)
