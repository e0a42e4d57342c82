"""Neural processes and the Gaussian processes they are judged by, against values by hand."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.data.synthetic.gaussian_processes import (
    Kernel,
    cholesky,
    covariance,
    gaussian_curves,
    kernel_of,
    posterior,
)
from jaxmeta.learners.process import (
    ALPaCAParams,
    Gaussian,
    LastLayer,
    alpaca,
    class_by_class,
    conditional_neural_process,
    conditional_neural_process_classifier,
    gaussian_likelihood,
    last_layer_posterior,
    neural_process,
    transformer_neural_process,
)
from jaxmeta.learners.process.attention import CrossAttention
from jaxmeta.learners.process.conditional import ProcessParams
from jaxmeta.learners.process.gaussian import gaussian_of, log_density
from jaxmeta.learners.process.latent import divergence
from jaxmeta.models import mlp

KEY = jax.random.key(0)
IDENTITY = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
assert_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def linear(*weights):
    """x ↦ x W, without parameters."""
    matrix = jnp.asarray(weights)
    return Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x @ matrix)


# --- Gaussians ----------------------------------------------------------------------------


def test_densities_and_their_objective():
    outputs = Gaussian(jnp.array([[1.0], [0.0], [7.0]]), jnp.array([[2.0], [0.5], [1.0]]))
    targets = jnp.array([[2.0], [1.0], [9.0]])
    expected = [
        -(0.5**2) / 2 - np.log(2.0) - np.log(2 * np.pi) / 2,
        -(2.0**2) / 2 - np.log(0.5) - np.log(2 * np.pi) / 2,
    ]
    assert_close(log_density(outputs, targets)[:2], expected)
    loss, metrics = gaussian_likelihood(outputs, targets, jnp.array([True, True, False]))
    assert_close(loss, -np.mean(expected))
    assert_close(metrics["log_likelihood"], np.mean(expected))
    assert_close(metrics["squared_error"], 1.0)
    with pytest.raises(ValueError, match="a mean and a std for each target"):
        gaussian_likelihood(outputs, targets[:2])
    assert_close(gaussian_of(jnp.array([[3.0, 0.0]])).std, [[0.1 + 0.9 * np.log(2)]])


def test_divergence_is_that_of_an_integral():
    one = Gaussian(jnp.array([0.5, -1.0]), jnp.array([0.7, 1.2]))
    other = Gaussian(jnp.array([0.0, 0.5]), jnp.array([1.5, 0.9]))
    x = np.linspace(-15, 15, 30001)
    total = 0.0
    for a, s, b, t in zip(one.mean, one.std, other.mean, other.std, strict=True):
        p = np.exp(-(((x - a) / s) ** 2) / 2) / s / np.sqrt(2 * np.pi)
        ratio = (-(((x - a) / s) ** 2) + ((x - b) / t) ** 2) / 2 + np.log(t / s)
        total += np.trapezoid(p * ratio, x)
    assert_close(divergence(one, other), total, rtol=1e-4)
    assert_close(divergence(one, one), 0.0)


# --- conditional --------------------------------------------------------------------------


def test_a_conditional_process_of_sums():
    """h([x, y]) = x + 2 y, g([x, r]) = (x + r, r): all by hand."""
    learner = conditional_neural_process(linear([1.0], [2.0]), linear([1.0, 0.0], [1.0, 1.0]))
    context = Batch(jnp.array([[1.0], [3.0], [5.0]]), jnp.array([[1.0], [0.0], [9.0]]))
    context = context._replace(mask=jnp.array([True, True, False]))
    adapted = learner.adapt(KEY, ProcessParams({}, {}), context)
    assert_close(adapted.representation_D, [3.0])  # of 3 and 3
    found = learner.predict(adapted, jnp.array([[2.0]]))
    assert_close(found.mean, [[5.0]])
    assert_close(found.std, [[0.1 + 0.9 * np.log1p(np.exp(3.0))]])
    nothing = context._replace(mask=jnp.zeros((3,), bool))
    assert_close(learner.adapt(KEY, ProcessParams({}, {}), nothing).representation_D, [0.0])


def test_a_conditional_process_classifies_by_class_means():
    decoder = linear(*np.eye(3)[:, 1:])  # of [h, r_0, r_1] it keeps r
    learner = conditional_neural_process_classifier(IDENTITY, decoder, cross_entropy, ways=2)
    support = Batch(jnp.array([[1.0], [3.0], [10.0]]), jnp.array([0, 0, 1]))
    adapted = learner.adapt(KEY, ProcessParams({}, {}), support)
    assert_close(learner.predict(adapted, jnp.array([[7.0]])), [[2.0, 10.0]])
    by_class = class_by_class(linear([5.0], [1.0]), ways=2)  # 5 h + r_w
    learner = conditional_neural_process_classifier(IDENTITY, by_class, cross_entropy, ways=2)
    assert_close(learner.predict(adapted, jnp.array([[7.0], [0.0]])), [[37.0, 45.0], [2.0, 10.0]])
    with pytest.raises(ValueError, match="requires at least 2"):
        conditional_neural_process_classifier(IDENTITY, decoder, cross_entropy, ways=1)


LEARNERS = {
    "conditional": lambda: conditional_neural_process(mlp((8,), 4), mlp((8,), 2)),
    "latent": lambda: neural_process(mlp((8,), 4), mlp((8,), 2), latent_width=3),
    "attentive": lambda: neural_process(
        mlp((8,), 4), mlp((8,), 2), encoder=mlp((8,), 4), attention="multi-head", heads=2
    ),
    "transformer": lambda: transformer_neural_process(width=8, layers=2, heads=2),
    **{
        kind: lambda kind=kind: neural_process(
            mlp((8,), 4), mlp((8,), 2), encoder=mlp((8,), 4), attention=kind
        )
        for kind in ("laplace", "dot-product")
    },
}


@pytest.mark.full
@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("name", LEARNERS)
@given(order=st.permutations(range(6)))
def test_the_order_of_the_context_is_nothing(name, order):
    predicted, context, query, params = compiled(name)
    shuffled = jax.tree.map(lambda leaf: leaf[jnp.asarray(order)], context)
    found, again = (predicted(params, batch, query.inputs) for batch in (context, shuffled))
    chex.assert_trees_all_close(found, again, rtol=1e-4, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("name", LEARNERS)
def test_the_context_counts_and_what_is_masked_does_not(name):
    predicted, context, query, params = compiled(name)  # of six points the last two are masked
    found = predicted(params, context, query.inputs)
    for row, counts in ((3, True), (4, False)):
        other = context._replace(targets=context.targets.at[row].add(2.0))
        moved = jnp.abs(predicted(params, other, query.inputs).mean - found.mean)
        assert bool((moved > 1e-4).all()) == counts
        assert bool((moved > 0).any()) == counts


@functools.cache
def made(name):
    learner = LEARNERS[name]()
    values = jax.random.normal(KEY, (10, 2))
    context = Batch(values[:6, :1], values[:6, 1:], jnp.array([True] * 4 + [False] * 2))
    query = Batch(values[6:, :1], values[6:, 1:])
    return learner, context, query, jax.jit(learner.init)(KEY, Task(context, query))


@functools.cache
def compiled(name):
    learner, *rest = made(name)

    @jax.jit
    def predicted(params, context, inputs):
        return learner.predict(learner.adapt(KEY, params, context), inputs)

    return predicted, *rest


# --- ALPaCA -------------------------------------------------------------------------------


def of_regression(seed=0, examples=7, features=3, targets=2):
    """Features, targets, and a prior, as NumPy arrays."""
    random = np.random.default_rng(seed)
    factor = random.normal(size=(features, features))
    return (
        random.normal(size=(examples, features)),
        random.normal(size=(examples, targets)),
        random.normal(size=(features, targets)),
        factor @ factor.T + np.eye(features),
    )


def test_the_last_layer_is_bayesian_linear_regression(x64):
    """One target at a time, with the textbook's covariance: that of all weights is not needed."""
    features, targets, mean, precision = of_regression()
    valid, noise = np.array([True] * 5 + [False] * 2), np.array([0.3, 0.7])
    factor = np.linalg.cholesky(precision)
    params = ALPaCAParams(
        {},
        jnp.asarray(mean),
        jnp.asarray(np.tril(factor, -1) + np.diag(np.log(np.diag(factor)))),
        jnp.log(noise - 1e-3),
    )
    learner = alpaca(IDENTITY)
    spoiled = np.where(valid[:, None], features, np.nan)
    adapted = learner.adapt(KEY, params, Batch(spoiled, jnp.asarray(targets), jnp.asarray(valid)))
    query = np.random.default_rng(1).normal(size=(4, 3))
    found = learner.predict(adapted, jnp.asarray(query))
    x = features[valid]
    for column, std in enumerate(noise):
        # Weights ~ N(mean, std² precision⁻¹): Rasmussen, Williams 2006, equations 2.8 and 2.9.
        before = precision / std**2
        covariance = np.linalg.inv(x.T @ x / std**2 + before)
        weights = covariance @ (x.T @ targets[valid, column] / std**2 + before @ mean[:, column])
        variance = std**2 + np.einsum("qd,de,qe->q", query, covariance, query)
        np.testing.assert_allclose(found.mean[:, column], query @ weights, rtol=1e-10)
        np.testing.assert_allclose(found.std[:, column], np.sqrt(variance), rtol=1e-10)


def test_one_example_after_the_other_is_all_at_once(x64):
    features, targets, mean, precision = map(jnp.asarray, of_regression())
    belief = LastLayer(mean, precision)
    together = last_layer_posterior(belief, features, targets)
    for row, target in zip(features, targets):
        belief = last_layer_posterior(belief, row[None], target[None])
    chex.assert_trees_all_close(belief, together, rtol=1e-9)


def test_without_examples_the_last_layer_is_the_prior():
    learner = alpaca(IDENTITY, noise_std=0.5)
    context = Batch(jnp.full((4, 3), jnp.nan), jnp.ones((4, 2)), jnp.zeros((4,), bool))
    params = learner.init(KEY, Task(context, context))
    query = jax.random.normal(KEY, (5, 3))
    found = learner.predict(learner.adapt(KEY, params, context), query)
    assert_close(found.mean, query @ params.mean_DY)
    spread = np.sqrt(1 + np.square(query).sum(axis=1))  # Λ_0 is the identity at first
    assert_close(found.std, 0.5 * np.tile(spread[:, None], (1, 2)))
    with pytest.raises(ValueError, match="noise_std 0.1, least_std 0.1; give"):
        alpaca(IDENTITY, noise_std=0.1, least_std=0.1)


def test_features_far_from_0_do_not_spoil_the_belief():
    random = np.random.default_rng(0)
    features = (random.normal(size=(10, 16)) + 1000).astype(np.float32)
    context = Batch(jnp.asarray(features), jnp.asarray(random.normal(size=(10, 1)), jnp.float32))
    learner = alpaca(IDENTITY)
    params = learner.init(KEY, Task(context, context))
    found = learner.predict(learner.adapt(KEY, params, context), context.inputs)
    assert np.isfinite(found.mean).all() and np.isfinite(found.std).all()
    assert (found.std > 0).all()


# --- latent -------------------------------------------------------------------------------


@pytest.mark.full
def test_a_neural_process_is_the_mixture_of_its_draws():
    learner, context, query, params = made("latent")
    adapted = learner.adapt(KEY, params, context)
    assert adapted.latents_LD.shape == (8, 3)
    decoder = mlp((8,), 2)
    each = [
        gaussian_of(
            decoder.apply(
                params.decoder,
                jnp.concatenate([query.inputs, jnp.tile(latent, (4, 1))], axis=1),
            )
        )
        for latent in adapted.latents_LD
    ]
    means = np.stack([one.mean for one in each])
    second = np.stack([one.std**2 + one.mean**2 for one in each]).mean(axis=0)
    found = learner.predict(adapted, query.inputs)
    assert_close(found.mean, means.mean(axis=0))
    assert_close(found.std, np.sqrt(second - means.mean(axis=0) ** 2), rtol=1e-4)


def by_hand(name, key, samples):
    """The loss and the metrics of a neural process, from its networks, one draw at a time."""
    _, context, query, params = made(name)
    encode, decode = mlp((8,), 4), mlp((8,), 2)
    real = [(x, y) for x, y, there in zip(*context) if there]
    told = [(x, y) for x, y in zip(query.inputs, query.targets)]

    def belief(points):
        pairs = jnp.stack([jnp.concatenate(point) for point in points])
        mean = encode.apply(params.latent_encoder, pairs).mean(axis=0)
        dense = lambda name, x: x @ params.latent[name]["kernel"] + params.latent[name]["bias"]  # noqa: E731
        hidden = jnp.maximum(dense("hidden", mean), 0)
        deviation = 0.1 + 0.9 / (1 + jnp.exp(-dense("deviation", hidden)))
        return np.asarray(dense("mean", hidden)), np.asarray(deviation)

    def log_normal(values, mean, deviation):
        return -(((values - mean) / deviation) ** 2) / 2 - np.log(deviation * np.sqrt(2 * np.pi))

    def densities(latent):
        """log p(y_t | x_t, z) of every target."""
        parts = [query.inputs, jnp.tile(latent, (4, 1))]
        if params.encoder:
            values = encode.apply(params.encoder, jnp.concatenate(context[:2], axis=1))
            attend = CrossAttention("multi-head", width=len(latent), heads=2)
            variables = {"params": params.attention}
            given = attend.apply(variables, query.inputs, context.inputs, values, context.mask)
            parts.insert(1, given)
        outputs = decode.apply(params.decoder, jnp.concatenate(parts, axis=1))
        deviation = 0.1 + 0.9 * np.log1p(np.exp(outputs[:, 1:]))
        return log_normal(query.targets, outputs[:, :1], deviation)[:, 0]

    before, after = belief(real), belief(real + told)
    latent_key, adapt_key = jax.random.split(key)
    shape = (samples, len(before[0]))
    noise = [np.asarray(jax.random.normal(k, shape)) for k in (latent_key, adapt_key)]
    latents = after[0] + after[1] * noise[0]
    totals = np.array([densities(latent).sum() for latent in latents])
    mean_gap, ratio = before[0] - after[0], after[1] / before[1]
    divergence = ((mean_gap / before[1]) ** 2 + ratio**2 - 1 - 2 * np.log(ratio)).sum() / 2
    importance = log_normal(latents, *before).sum(axis=1) - log_normal(latents, *after).sum(axis=1)
    each = np.stack([densities(latent) for latent in before[0] + before[1] * noise[1]])
    return {
        "loss": (divergence - totals.mean()) / 4,
        "joint_log_likelihood": np.log(np.mean(np.exp(totals + importance))) / 4,
        "log_likelihood": np.log(np.mean(np.exp(each), axis=0)).mean(),
    }


@pytest.mark.full
@pytest.mark.parametrize("name", ["latent", "attentive"])
def test_its_loss_is_the_bound_and_its_likelihoods_are_means_over_draws(name):
    learner, context, query, params = made(name)
    judged = jax.jit(learner.loss)
    query = query._replace(mask=jnp.ones((4,), bool))
    loss, info = judged(KEY, params, Task(context, query))
    expected = by_hand(name, KEY, samples=8)
    assert_close(loss, expected.pop("loss"), rtol=1e-4)
    for metric, value in expected.items():
        assert_close(info.metrics[metric], value, rtol=1e-4)
    # Where the query tells nothing new, the divergence is 0, and there is nothing to fit.
    nothing = query._replace(mask=jnp.zeros((4,), bool))
    value, _ = judged(KEY, params, Task(context, nothing))
    assert_close(value, 0.0, atol=1e-5)


# --- attention ----------------------------------------------------------------------------


def read(kind, targets, points, values, real=None, **options):
    real = jnp.ones(points.shape[:1], bool) if real is None else real
    module = CrossAttention(kind, **options)
    variables = module.init(KEY, targets, points, values, real)
    return module.apply(variables, targets, points, values, real), variables


@pytest.mark.full
def test_uniform_and_laplace_attention():
    targets, points = jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [1.0], [4.0]])
    values, real = jnp.array([[1.0], [2.0], [50.0]]), jnp.array([True, True, False])
    found, _ = read("uniform", targets, points, values, real)
    assert_close(found, [[1.5], [1.5]])
    found, _ = read("laplace", targets, points, values, real, length=0.5)
    weights = np.exp(-np.array([[0.0, 1.0], [2.0, 1.0]]) / 0.5)
    expected = weights @ np.array([[1.0], [2.0]]) / weights.sum(axis=1, keepdims=True)
    assert_close(found, expected)
    # What is masked has no say, nor a gradient that is no number, however large its score.
    far = jnp.array([[0.0], [1.0], [-1000.0]])
    module = CrossAttention("laplace", length=0.5)
    gradient = jax.grad(lambda at: module.apply({}, at, far, values, real).sum())  # pyright: ignore
    assert np.isfinite(gradient(jnp.array([[-990.0]]))).all()
    none, _ = read("laplace", targets, points, values, jnp.zeros((3,), bool))
    assert_close(none, [[0.0], [0.0]])


@pytest.mark.parametrize("kind", ["uniform", "laplace", "dot-product"])
def test_weights_sum_to_one(kind):
    """Of equal values the read is that value, whatever the weights."""
    targets, points = jax.random.normal(KEY, (3, 2)), jax.random.normal(KEY, (5, 2))
    found, _ = read(kind, targets, points, jnp.full((5, 4), 7.0))
    assert_close(found, np.full((3, 4), 7.0))


def test_multi_head_attention_is_its_equation(x64):
    targets, points = jax.random.normal(KEY, (2, 1), float), jax.random.normal(KEY, (4, 1), float)
    values = jax.random.normal(KEY, (4, 6), float)
    found, variables = read("multi-head", targets, points, values, width=6, heads=2)
    params = jax.device_get(variables["params"])

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name].get("bias", 0)

    keys = lambda x: dense("keys", np.maximum(dense("hidden", np.asarray(x)), 0))  # noqa: E731
    heads = []
    for head in range(2):
        of = lambda name, head=head: params[name]["kernel"][:, head]  # noqa: E731
        scores = keys(targets) @ of("head_queries") @ (keys(points) @ of("head_keys")).T
        weights = np.exp(scores / np.sqrt(3))
        weights /= weights.sum(axis=1, keepdims=True)
        heads.append(weights @ np.asarray(values) @ of("head_values"))
    expected = np.concatenate(heads, axis=1) @ params["output"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="unknown attention 'cosine'"):
        read("cosine", targets, points, values)


def test_transformer_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="a width that is a multiple of the heads"):
        transformer_neural_process(width=10, heads=4)


# --- Gaussian processes -------------------------------------------------------------------


def test_kernels_by_hand():
    at, to = jnp.array([[0.0]]), jnp.array([[0.3]])
    root = np.sqrt(5) * 0.3 / 0.5
    for kernel, expected in [
        (Kernel("rbf", 0.5, 2.0, 0.0), 4 * np.exp(-(0.3**2) / (2 * 0.25))),
        (Kernel("matern", 0.5, 1.0, 0.0), (1 + root + root**2 / 3) * np.exp(-root)),
        (Kernel("periodic", 0.5, 1.0, 0.0, 0.3), 1.0),
        (
            Kernel("periodic", 0.5, 1.0, 0.0, 1.0),
            np.exp(-2 * np.sin(np.pi * 0.3) ** 2 / 0.25),
        ),
    ]:
        np.testing.assert_allclose(covariance(kernel, at, to), [[expected]], rtol=1e-4)
    with pytest.raises(ValueError, match="unknown kernel 'linear'; give rbf, matern, periodic"):
        covariance(Kernel("linear", 1.0, 1.0, 0.0), at, to)  # pyright: ignore


def test_the_posterior_is_that_of_the_textbook(x64):
    kernel = Kernel("rbf", 0.6, 1.3, 0.2)
    x = np.array([[0.0], [0.5], [2.0], [9.0]])
    y = np.array([[1.0], [0.2], [-1.0], [7.0]])
    support = Batch(jnp.asarray(x), jnp.asarray(y), jnp.array([True, True, True, False]))
    query = np.array([[0.1], [1.5]])
    k = lambda a, b: 1.3**2 * np.exp(-((a - b.T) ** 2) / (2 * 0.36))  # noqa: E731
    noise = 0.2**2 + 1e-4
    inverse = np.linalg.inv(k(x[:3], x[:3]) + noise * np.eye(3))
    mean, std = posterior(kernel, support, jnp.asarray(query))
    np.testing.assert_allclose(mean, k(query, x[:3]) @ inverse @ y[:3], rtol=1e-8)
    variance = 1.69 + noise - np.diag(k(query, x[:3]) @ inverse @ k(x[:3], query))
    np.testing.assert_allclose(std[:, 0], np.sqrt(variance), rtol=1e-8)


def test_the_cholesky_factor_is_lapacks(x64):
    random = np.random.default_rng(0).normal(size=(7, 9))
    matrix = random @ random.T
    np.testing.assert_allclose(
        cholesky(jnp.asarray(matrix)), np.linalg.cholesky(matrix), atol=1e-10
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", ["rbf", "matern", "periodic"])
def test_curves_are_drawn_from_the_process_and_the_oracle_knows_it(kind):
    """The posterior's errors, in units of its own std, have a variance of 1."""
    sample = gaussian_curves(
        kernel=kind,
        points=(2, 6),
        queries=5,
        kernel_length=(0.3, 1.0),
        kernel_scale=(0.5, 1.5),
        noise=0.1,
    )

    @jax.jit
    @jax.vmap
    def scores(key):
        task = sample(key)
        mean, std = posterior(kernel_of(sample, key), task.support, task.query.inputs)
        return (task.query.targets - mean) / std, task.support.mask.sum()

    errors, counts = scores(jax.random.split(KEY, 2000))
    assert np.mean(np.square(errors)) == pytest.approx(1.0, abs=0.06)
    assert np.mean(errors) == pytest.approx(0.0, abs=0.06)
    assert set(np.asarray(counts).tolist()) == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "linear"},
        {"points": (0, 3)},
        {"kernel_length": (1.0, 0.5)},
        {"kernel_period": (-1.0, 1.0)},
        {"domain": (1.0, 1.0)},
    ],
)
def test_curves_refuse_what_cannot_be(options):
    with pytest.raises(ValueError, match="give"):
        gaussian_curves(**options)
