"""MOCA beside an enumeration of all switches, and a window beside adapting by hand."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxmeta import Batch, Model, Task
from jaxmeta.learners import ALPaCAParams, MOCAParams, alpaca, moca, sliding_window
from jaxmeta.learners.process import (
    Gaussian,
    Mixture,
    gaussian_likelihood,
    mixture_likelihood,
    next_belief,
)
from jaxmeta.learners.process._moca import follow, rates_of, starting
from jaxmeta.learners.process.gaussian import mean_of
from jaxmeta.models import mlp

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
HAZARD, NOISE, LEAST = 0.3, 0.5, 1e-3
LENGTH, FEATURES, TARGETS = 6, 3, 2


def drawn(seed: int = 0, rows: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, FEATURES)), rng.normal(size=(rows, TARGETS))


def params(hazard: float | None = HAZARD) -> MOCAParams:
    rng = np.random.default_rng(7)
    mean, factor = rng.normal(size=(FEATURES, TARGETS)), rng.normal(size=(FEATURES, FEATURES)) / 2
    noise = jnp.full((TARGETS,), jnp.log(NOISE - LEAST))
    odds = () if hazard is None else jnp.log(jnp.asarray(hazard / (1 - hazard)))
    return MOCAParams(ALPaCAParams({}, jnp.asarray(mean), jnp.asarray(factor), noise), odds)


def evidence(x: np.ndarray, y: np.ndarray) -> float:
    """log p of the targets of one regime: a normal distribution for each column."""
    last = params().last_layer
    lower = np.tril(last.factor_DD, -1) + np.diag(np.exp(np.diag(last.factor_DD)))
    covariance: Any = NOISE**2 * (np.eye(len(x)) + x @ np.linalg.inv(lower @ lower.T) @ x.T)
    residuals = (y - x @ np.asarray(last.mean_DY)).T
    return sum(multivariate_normal.logpdf(row, cov=covariance) for row in residuals)


def enumerated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log p(r, y) of each run length r before the last example, summed over all switches."""
    total = np.full(len(x), -np.inf)
    for switches in itertools.product((False, True), repeat=len(x) - 1):
        starts = [0, *(1 + np.flatnonzero(switches)), len(x)]
        log_p = sum(np.log(HAZARD if own else 1 - HAZARD) for own in switches)
        log_p += sum(evidence(x[a:b], y[a:b]) for a, b in itertools.pairwise(starts))
        run_length = len(x) - 1 - starts[-2]
        total[run_length] = np.logaddexp(total[run_length], log_p)
    return total


def followed(x, y, slots=LENGTH + 1, given=None, mask=None):
    given = params() if given is None else given
    before = starting(given.last_layer, slots)
    return follow(IDENTITY, given, before, Batch(x, y, mask), rates=rates_of(given, HAZARD))


def test_the_belief_is_that_of_all_switches_enumerated(x64):
    x, y = drawn()
    state, found = followed(x, y)
    total = [enumerated(x[:t], y[:t]) for t in range(1, LENGTH + 1)]
    for t, joint in enumerate(total):
        log_posterior = joint - np.logaddexp.reduce(joint)
        np.testing.assert_allclose(found.log_posterior_TR[t, : t + 1], log_posterior, rtol=1e-9)
        assert (found.log_posterior_TR[t, t + 1 :] < -1e29).all()
    last = np.exp(total[-1] - np.logaddexp.reduce(total[-1]))
    np.testing.assert_allclose(
        np.exp(state.log_belief_R), [HAZARD, *(1 - HAZARD) * last], rtol=1e-9
    )


def test_the_loss_is_the_evidence_of_the_stream(x64):
    x, y = drawn()
    learner = moca(IDENTITY, hazard=HAZARD)
    loss, info = learner.loss(KEY, params(), Task((), Batch(x, y)))
    expected = -np.logaddexp.reduce(enumerated(x, y)) / LENGTH
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(info.metrics["log_likelihood"], -expected, rtol=1e-9)
    # The support comes before the query, and only the query is judged.
    loss, _ = learner.loss(KEY, params(), Task(Batch(x[:4], y[:4]), Batch(x[4:], y[4:])))
    before = np.logaddexp.reduce(enumerated(x[:4], y[:4]))
    np.testing.assert_allclose(loss, (expected * LENGTH + before) / 2, rtol=1e-9)


def test_the_prediction_is_the_mixture_of_the_run_lengths(x64):
    (x, y), (new, asked) = drawn(), drawn(1, rows=3)
    learner = moca(IDENTITY, hazard=HAZARD)
    outputs = learner.predict(learner.adapt(KEY, params(), Batch(x, y)), jnp.asarray(new))
    for row in range(3):
        longer = np.concatenate([x, new[row : row + 1]]), np.concatenate([y, asked[row : row + 1]])
        expected = np.logaddexp.reduce(enumerated(*longer)) - np.logaddexp.reduce(enumerated(x, y))
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], outputs)
        loss, _ = mixture_likelihood(one, jnp.asarray(asked[row : row + 1]))
        np.testing.assert_allclose(-loss, expected, rtol=1e-9)


@pytest.mark.parametrize("hazard", [0.0, pytest.param(1.0, marks=pytest.mark.full)])
def test_a_hazard_at_an_end_is_the_plain_learner_or_its_prior(x64, hazard):
    (x, y), (new, _) = drawn(), drawn(1)
    learner, plain = moca(IDENTITY, hazard=hazard, learns_hazard=False), alpaca(IDENTITY)
    given = params(None)
    support = Batch(x, y)
    outputs = learner.predict(learner.adapt(KEY, given, support), jnp.asarray(new))
    known = support if hazard == 0 else support._replace(mask=jnp.zeros(LENGTH, bool))
    expected = plain.predict(plain.adapt(KEY, given.last_layer, known), jnp.asarray(new))
    place = LENGTH if hazard == 0 else 0
    weights = np.exp(outputs.log_weights)
    np.testing.assert_allclose(weights, np.tile(np.eye(LENGTH + 1)[place], (LENGTH, 1)), atol=1e-12)
    np.testing.assert_allclose(outputs.mean[:, place], expected.mean, rtol=1e-9)
    np.testing.assert_allclose(outputs.std[:, place], expected.std, rtol=1e-9)
    grads, _ = jax.grad(learner.loss, argnums=1, has_aux=True)(KEY, given, Task((), support))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.full
def test_the_gradient_goes_through_the_belief(assert_gradient):
    x, y = drawn()
    encoder = mlp((5,), FEATURES)
    learner, task = moca(encoder, hazard=HAZARD, longest=3), Task((), Batch(x, y))
    weights = jax.tree.map(lambda leaf: leaf.astype(float), encoder.init(KEY, x))
    given = params()
    given = given._replace(last_layer=given.last_layer._replace(encoder=weights))
    grads, _ = jax.grad(learner.loss, argnums=1, has_aux=True)(KEY, given, task)
    assert float(jnp.abs(grads.log_odds)) > 1e-3
    assert_gradient(grads, lambda moved: learner.loss(KEY, moved, task)[0], given)


def test_a_masked_example_is_passed_over(x64):
    x, y = drawn()
    mask = np.array([True, False, True, True, False, True])
    x_nan, y_nan = (np.where(mask[:, None], own, np.nan) for own in (x, y))
    learner = moca(IDENTITY, hazard=HAZARD)
    stream = Batch(jnp.asarray(x_nan), jnp.asarray(y_nan), jnp.asarray(mask))
    state = learner.adapt(KEY, params(), stream).state
    expected = learner.adapt(KEY, params(), Batch(x[mask], y[mask])).state
    jax.tree.map(
        lambda found, own: np.testing.assert_allclose(found[: len(own)], own, rtol=1e-9),
        state,
        expected,
    )


def test_long_runs_are_merged(x64):
    """Nothing changes while all run lengths fit; later the probabilities still sum to 1."""
    x, y = drawn()
    full, short = (moca(IDENTITY, hazard=HAZARD, longest=own) for own in (None, LENGTH))
    task = Task((), Batch(x, y))
    assert full.loss(KEY, params(), task)[0] == short.loss(KEY, params(), task)[0]
    state = moca(IDENTITY, hazard=HAZARD, longest=2).adapt(KEY, params(), task.query).state
    np.testing.assert_allclose(np.exp(state.log_belief_R).sum(), 1, rtol=1e-12)
    # Without a switch, the last slot has all examples.
    never = moca(IDENTITY, hazard=0.0, learns_hazard=False, longest=2)
    adapted = never.adapt(KEY, params(None), task.query)
    plain = alpaca(IDENTITY)
    expected = plain.adapt(KEY, params(None).last_layer, task.query)
    np.testing.assert_allclose(adapted.state.mean_RDY[-1], expected.mean_DY, rtol=1e-9)


def test_the_next_belief_by_hand():
    log_belief = jnp.log(jnp.array([0.5, 0.5, 0.0]))
    log_density = jnp.log(jnp.array([0.1, 0.3, 9.0]))
    found = next_belief(log_belief, log_density, jnp.log(0.2), jnp.log(0.8))
    np.testing.assert_allclose(np.exp(found[0]), [0.25, 0.75, 0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(found[1]), [0.2, 0.2, 0.6], rtol=1e-6)


def test_a_mixture_of_one_is_a_gaussian():
    mean, std = jnp.arange(6.0).reshape(3, 2), jnp.full((3, 2), 0.7)
    targets, mask = jnp.ones((3, 2)), jnp.array([True, True, False])
    found = mixture_likelihood(
        Mixture(jnp.zeros((3, 1)), mean[:, None], std[:, None]), targets, mask
    )
    expected = gaussian_likelihood(Gaussian(mean, std), targets, mask)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    two = Mixture(
        jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([[[0.0], [4.0]]]), jnp.ones((1, 2, 1))
    )
    assert mean_of(two).tolist() == [[3.0]]
    with pytest.raises(ValueError, match="requires means"):
        mixture_likelihood(two, jnp.ones((2, 1)))


@pytest.mark.full
def test_a_window_is_adapting_to_the_last_examples(x64):
    x, y = drawn()
    plain, given = alpaca(IDENTITY), params().last_layer
    learner = sliding_window(plain, 2)
    losses = []
    for t in range(LENGTH):
        known = Batch(x[max(t - 2, 0) : t], y[max(t - 2, 0) : t])
        outputs = plain.predict(plain.adapt(KEY, given, known), jnp.asarray(x[t : t + 1]))
        losses.append(gaussian_likelihood(outputs, jnp.asarray(y[t : t + 1]))[0])
    loss, _ = learner.loss(KEY, given, Task((), Batch(x, y)))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-9)
    loss, _ = learner.loss(KEY, given, Task(Batch(x[:4], y[:4]), Batch(x[4:], y[4:])))
    np.testing.assert_allclose(loss, np.mean(losses[4:]), rtol=1e-9)
    stream = Batch(x, y)
    loss, _ = learner.loss(KEY, given, Task(stream, stream))  # the query is judged, not the support
    expected, _ = learner.loss(KEY, given, Task(stream, Batch(x.copy(), y.copy())))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    adapted = learner.adapt(KEY, given, stream)
    expected = plain.adapt(KEY, given, Batch(x[-2:], y[-2:]))
    np.testing.assert_allclose(adapted.mean_DY, expected.mean_DY, rtol=1e-9)


def test_a_window_of_none_is_the_prior(x64):
    x, y = drawn()
    learner, given = sliding_window(alpaca(IDENTITY), 0), params().last_layer
    adapted = learner.adapt(KEY, given, Batch(x, y))
    np.testing.assert_allclose(adapted.mean_DY, given.mean_DY, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hazard": 1.5}, "hazard 1.5; give 0 < hazard < 1"),
        ({"hazard": 0.0}, "hazard 0.0; give 0 < hazard < 1, or learns_hazard=False"),
        ({"hazard": -0.1, "learns_hazard": False}, "hazard -0.1; give 0 ≤ hazard ≤ 1"),
        ({"longest": 0}, "longest 0; give at least 1"),
    ],
)
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        moca(IDENTITY, **options)


def test_a_wrong_window():
    with pytest.raises(ValueError, match="window -1; give 0 or more"):
        sliding_window(alpaca(IDENTITY), -1)
