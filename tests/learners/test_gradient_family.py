"""What each gradient-based learner is known by, worked out by hand."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta import Batch, Carry, Model, Task, cross_entropy, learners, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.inner import conjugate_gradients, first_order, only, second_order
from jaxmeta.learners import CAVIAParams, MetaCurvatureParams, SparseMAMLParams
from jaxmeta.learners.gradient._maml_plus_plus import step_weights
from jaxmeta.models import conv4, mlp
from jaxmeta.training.update import chunk_of, meta_update


def compiled(build):
    """The learners that `build` builds, as whole programs: a test of single operations compiles
    each of these for longer than it takes to trace all."""

    def learner(*arguments, **options):
        built = build(*arguments, **options)
        return type(built)(*[part if part is None else jax.jit(part) for part in built])

    return learner


boil, cavia, imaml = map(compiled, (learners.boil, learners.cavia, learners.imaml))
maml, maml_plus_plus = compiled(learners.maml), compiled(learners.maml_plus_plus)
meta_curvature, meta_lstm = compiled(learners.meta_curvature), compiled(learners.meta_lstm)
meta_transfer, proto_maml = compiled(learners.meta_transfer), compiled(learners.proto_maml)
prototypical, r2d2 = compiled(learners.prototypical), compiled(learners.r2d2)
sparse_maml = compiled(learners.sparse_maml)

KEY = jax.random.key(0)
assert_close = partial(chex.assert_trees_all_close, rtol=1e-8, atol=1e-10)
pytestmark = pytest.mark.usefixtures("x64")

LINEAR = mlp((), 1)  # y = w x + b
FEATURES = Model(
    lambda key, x: {"w": jnp.ones(())}, lambda p, x, reference=None, key=None: p["w"] * x
)


@pytest.fixture
def line():
    """Two points to learn from, one to be judged on, for y = w x + b."""
    return Task(
        Batch(jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [0.0]])),
        Batch(jnp.array([[3.0]]), jnp.array([[-1.0]])),
    )


def of_line(weight, bias):
    return {"head": {"kernel": jnp.full((1, 1), weight), "bias": jnp.full(1, bias)}}


def at(step):
    return Carry(jnp.asarray(step, jnp.int32))


def in_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype(float), tree)


def test_imaml_on_a_line_is_the_closed_form(line):
    """H = [[5, 3], [3, 2]]: ends at (H + λI)⁻¹ (c + λφ), gradient (I + H/λ)⁻¹ of the query's."""
    strength, start = 2.0, jnp.array([0.5, -0.3])
    hessian = jnp.array([[5.0, 3.0], [3.0, 2.0]])  # 2 · mean of (x, 1)(x, 1)ᵀ
    pull = strength * jnp.eye(2)
    end = jnp.linalg.solve(hessian + pull, jnp.array([1.0, 1.0]) + strength * start)
    residual = end @ jnp.array([3.0, 1.0]) + 1
    expected = jnp.linalg.solve(
        jnp.eye(2) + hessian / strength, 2 * residual * jnp.array([3.0, 1.0])
    )
    learner = imaml(
        LINEAR, squared_error, optax.sgd(0.1), 300, strength=2.0, solver=conjugate_gradients(2)
    )
    adapted = learner.adapt(KEY, of_line(*start), line.support)
    assert_close(adapted.params, of_line(*end))
    grads, info, _ = learner.grad(KEY, of_line(*start), line, at(0))
    assert_close(grads, of_line(*expected))
    assert_close(info.loss, residual**2)


def test_boil_adapts_all_but_its_head_and_learns_both(line):
    learner = boil(mlp((4,), 1), squared_error, optax.sgd(0.1), 2)
    meta_params = in_float64(learner.init(KEY, line))
    adapted = learner.adapt(KEY, meta_params, line.support).params
    chex.assert_trees_all_equal(adapted["head"], meta_params["head"])
    assert (adapted["hidden_0"]["kernel"] != meta_params["hidden_0"]["kernel"]).any()
    grads = learner.grad(KEY, meta_params, line, at(0))[0]
    assert jnp.abs(grads["head"]["kernel"]).max() > 1e-3
    with pytest.raises(ValueError, match="no parameter is selected"):
        boil(LINEAR, squared_error, optax.sgd(0.1), 2).adapt(KEY, of_line(0.5, 0.0), line.support)


# --- MAML++ -------------------------------------------------------------------------------


def test_with_everything_off_maml_plus_plus_is_maml(line):
    model = mlp((4,), 1)
    plain = maml(model, squared_error, optax.sgd(0.1), 3)
    other = maml_plus_plus(
        model, squared_error, 3, inner_rate=0.1, learned_rates=False, normalisation_per_step=None
    )
    meta_params = in_float64(other.init(KEY, line))
    expected = plain.grad(KEY, meta_params.initial, line, at(0))
    found = other.grad(KEY, meta_params, line, at(0))
    assert_close(found[0].initial, expected[0])
    assert_close(found[1], expected[1])


def test_its_rates_are_of_a_tensor_and_a_step(line):
    learner = maml_plus_plus(LINEAR, squared_error, 2, normalisation_per_step=None)
    meta_params = in_float64(learner.init(KEY, line))
    at_first = {"head": {"kernel": jnp.full(2, 0.1), "bias": jnp.full(2, 0.1)}}
    chex.assert_trees_all_close(meta_params.rates, at_first, rtol=1e-6)
    rates = {"head": {"kernel": jnp.array([0.1, 0.02]), "bias": jnp.array([0.05, -0.3])}}
    adapted = learner.adapt(
        KEY, meta_params._replace(initial=of_line(0.5, -0.3), rates=rates), line.support
    )
    weight, bias = 0.5, -0.3
    for step in range(2):
        residuals = (weight + bias - 1, 2 * weight + bias)
        weight, bias = (
            weight - rates["head"]["kernel"][step] * (residuals[0] + 2 * residuals[1]),
            bias - rates["head"]["bias"][step] * sum(residuals),
        )
    assert_close(adapted.params, of_line(weight, bias))


@pytest.mark.full
def test_its_normalisation_has_a_value_for_every_step():
    model = mlp((3,), 2, query_statistics="layer")
    learner = maml_plus_plus(model, cross_entropy, 2, inner_rate=0.1)
    support = Batch(jnp.arange(8.0).reshape(4, 2), jnp.array([0, 1, 0, 1], jnp.int32))
    meta_params = in_float64(learner.init(KEY, Task(support, support)))
    assert meta_params.normalisation["norm_0"]["scale"].shape == (2, 3)
    assert meta_params.normalisation["head"]["kernel"] is None
    assert meta_params.rates["norm_0"] == {"scale": None, "bias": None}  # they never adapt
    sets = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    meta_params.normalisation["norm_0"]["scale"] = sets
    adapted = learner.adapt(KEY, meta_params, support).params
    assert_close(adapted["norm_0"]["scale"], sets[1])
    # The step in between is taken with the first set.
    one = maml_plus_plus(model, cross_entropy, 1, inner_rate=0.1, trained_inner_steps=2)
    assert_close(one.adapt(KEY, meta_params, support).params["norm_0"]["scale"], sets[0])
    more = maml_plus_plus(model, cross_entropy, 4, inner_rate=0.1, trained_inner_steps=2)
    assert_close(more.adapt(KEY, meta_params, support).params["norm_0"]["scale"], sets[1])
    grads = learner.grad(KEY, meta_params, Task(support, support), at(0))[0]
    assert (jnp.abs(grads.normalisation["norm_0"]["scale"]).max(axis=1) > 0).all()
    with pytest.raises(ValueError, match="no parameter is selected"):
        maml_plus_plus(LINEAR, squared_error, 2).init(KEY, Task(support, support))


@pytest.mark.full
def test_the_losses_of_all_steps_count_at_first_and_the_last_alone_later(line):
    def learner(steps, **options):
        return maml_plus_plus(
            LINEAR, squared_error, steps, inner_rate=0.1, normalisation_per_step=None, **options
        )

    annealed = learner(2, multi_step_loss_until=100)
    meta_params = in_float64(annealed.init(KEY, line))._replace(initial=of_line(0.5, -0.3))
    after = [
        jax.grad(
            lambda at_, steps=steps: learner(steps, trained_inner_steps=2).loss(KEY, at_, line)[0]
        )(meta_params)
        for steps in (1, 2)
    ]
    # Of 33 in float64 too: no weight is made in a shorter type.
    weights_at = {0: (0.5, 0.5), 33: (0.335, 0.665), 50: (0.25, 0.75), 100: (0, 1), 10**6: (0, 1)}
    for step, weights in weights_at.items():
        expected = jax.tree.map(lambda a, b, w=weights: w[0] * a + w[1] * b, *after)
        grads, info, _ = annealed.grad(KEY, meta_params, line, at(step))
        assert_close(grads, expected)
        assert_close(info.loss, learner(2).loss(KEY, meta_params, line)[0])
    assert_close(step_weights(5, jnp.array(0.999)).sum(), jnp.array(1.0))
    assert_close(step_weights(5, jnp.array(0.999))[0], jnp.array(0.03 / 5))


def test_its_order_of_differentiation_rises(line):
    rising = maml_plus_plus(
        LINEAR, squared_error, 2, normalisation_per_step=None, first_order_until=7
    )
    exact = maml_plus_plus(LINEAR, squared_error, 2, normalisation_per_step=None)
    meta_params = in_float64(exact.init(KEY, line))
    second = exact.grad(KEY, meta_params, line, at(0))[0]
    assert_close(rising.grad(KEY, meta_params, line, at(7))[0], second)
    first = rising.grad(KEY, meta_params, line, at(6))[0]
    adapted = exact.adapt(KEY, meta_params, line.support).params
    residual = 3 * adapted["head"]["kernel"][0, 0] + adapted["head"]["bias"][0] + 1
    assert_close(first.initial, of_line(6 * residual, 2 * residual))
    assert jnp.abs(first.initial["head"]["bias"] - second.initial["head"]["bias"]).max() > 0.1
    with pytest.raises(ValueError, match="first_order_until -1"):
        maml_plus_plus(LINEAR, squared_error, 2, first_order_until=-1)


# --- CAVIA, Meta-Curvature ----------------------------------------------------------------


def test_cavias_context_moves_the_selected_parameters_alone(line):
    """y = w x + b + z·c: one step from z = 0 is −α c · 2 mean(residual)."""
    learner = cavia(
        LINEAR, squared_error, optax.sgd(0.1), 1, context=2, conditions=only("head/bias")
    )
    directions = jnp.array([[2.0], [-1.0]])
    meta_params = CAVIAParams(of_line(0.5, -0.3), {"head": {"kernel": None, "bias": directions}})
    chex.assert_trees_all_equal_shapes(learner.init(KEY, line), meta_params)
    residuals = jnp.array([0.5 - 0.3 - 1, 1.0 - 0.3])
    context = -0.1 * directions[:, 0] * 2 * residuals.mean()
    adapted = learner.adapt(KEY, meta_params, line.support)
    assert_close(adapted.params["context"], context)
    assert_close(
        learner.predict(adapted, jnp.array([[3.0]])),
        jnp.array([[1.5 - 0.3 + context @ directions[:, 0]]]),
    )
    path = learner.trajectory(KEY, meta_params, line.support, line.query.inputs)
    assert_close(path[0], jnp.array([[1.2]]))  # every task starts at z = 0
    with pytest.raises(ValueError, match="a context of 0"):
        cavia(LINEAR, squared_error, optax.sgd(0.1), 1, context=0, conditions=only("head"))


def test_cavia_conditions_an_image_network_by_scale_and_shift():
    model = conv4(3, width=4, downsampling="stride")
    learner = cavia(model, cross_entropy, optax.sgd(1.0), 1, context=5, conditions=only("norm_2"))
    images = jax.random.normal(KEY, (6, 8, 8, 1))
    support = Batch(images, jnp.arange(6, dtype=jnp.int32) % 3)
    meta_params = in_float64(learner.init(KEY, Task(support, support)))
    moved = [leaf.shape for leaf in jax.tree.leaves(meta_params.conditioning)]
    assert moved == [(5, 4), (5, 4)]
    adapted = learner.adapt(KEY, meta_params, support)
    chex.assert_trees_all_equal(adapted.params["network"], meta_params.network)
    assert (adapted.params["context"] != 0).all()


@pytest.mark.full
def test_meta_curvature_starts_as_maml_and_multiplies_every_mode(line):
    model = conv4(2, width=3, downsampling="stride")
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    task = Task(*[Batch(images, jnp.arange(4, dtype=jnp.int32) % 2)] * 2)
    learner = meta_curvature(model, cross_entropy, optax.sgd(0.4), 2)
    meta_params = in_float64(learner.init(KEY, task))
    plain = maml(model, cross_entropy, optax.sgd(0.4), 2)
    assert_close(
        learner.adapt(KEY, meta_params, task.support),
        plain.adapt(KEY, meta_params.initial, task.support),
    )
    window, inputs, outputs = (
        jnp.asarray(np.random.default_rng(0).normal(size=(n, n))) for n in (9, 3, 3)
    )
    meta_params.curvature["conv_1"]["kernel"] = (window, inputs, outputs)
    one = meta_curvature(model, cross_entropy, optax.sgd(0.4), 1)
    moved = one.adapt(KEY, meta_params, task.support).params["conv_1"]["kernel"]

    def support_loss(params):
        outputs = model.apply(params, task.support.inputs)
        return cross_entropy(outputs, task.support.targets)[0]

    gradient = jax.jit(jax.grad(support_loss))(meta_params.initial)["conv_1"]["kernel"]
    changed = jnp.einsum("ab,bcd,ec,fd->aef", window, gradient.reshape(9, 3, 3), inputs, outputs)
    start = meta_params.initial["conv_1"]["kernel"]
    assert_close(moved, start - 0.4 * changed.reshape(start.shape))
    assert isinstance(meta_params, MetaCurvatureParams)


# --- sparse-MAML --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differentiation", "of_initial"),
    # The query's gradient g, or (I − α H D) g with H = [[5, 3], [3, 2]] and the mask D.
    [(first_order, (12.12, 4.04)), (second_order, (6.06, 0.404))],
)
def test_sparse_maml_on_a_line(differentiation, of_initial, line):
    """The support's gradient is (0.6, −0.1): w moves to 0.44, b is masked."""
    learner = sparse_maml(LINEAR, squared_error, optax.sgd(0.1), 1, differentiation=differentiation)
    meta_params = SparseMAMLParams(of_line(0.5, -0.3), of_line(0.0, -0.1))
    adapted = learner.adapt(KEY, meta_params, line.support)
    assert_close(adapted.params, of_line(0.44, -0.3))
    grads = learner.grad(KEY, meta_params, line, at(0))[0]
    assert_close(grads.initial, of_line(*of_initial))
    # −α ∇L(θ_1; query) ∘ ∇L(θ_0; support), in the masked bias as well
    assert_close(grads.mask, of_line(-0.1 * 12.12 * 0.6, -0.1 * 4.04 * -0.1))


@pytest.mark.parametrize("differentiation", [first_order, second_order])
def test_sparse_maml_with_an_open_mask_is_maml(differentiation, line):
    given = (mlp((4,), 1), squared_error, optax.sgd(0.1), 3)
    learner = sparse_maml(*given, initial_mask=0.0, differentiation=differentiation)
    plain = maml(*given, differentiation=differentiation)
    meta_params = in_float64(learner.init(KEY, line))
    expected = plain.grad(KEY, meta_params.initial, line, at(0))
    found = learner.grad(KEY, meta_params, line, at(0))
    assert_close(found[0].initial, expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("mask", [(0.1, -0.1), (float("nan"), 0.1)])
def test_a_mask_needs_a_range(mask):
    with pytest.raises(ValueError, match="is not a range; give \\(low, high\\)"):
        learners.sparse_maml(LINEAR, squared_error, optax.sgd(0.1), 1, initial_mask=mask)


def test_training_changes_the_mask_which_stays_sparse():
    learner = learners.sparse_maml(mlp((16,), 1), squared_error, optax.sgd(0.02), 2)
    sample = sinusoids(shots=6, queries=5, amplitude=(1.0, 3.0))
    init, update = meta_update(learner, optax.adam(1e-2), task_batch=4)
    state = jax.jit(init)(KEY, sample)
    before = ravel_pytree(state.meta_params.mask)[0] >= 0
    state, _ = chunk_of(update)(state, sample, length=30)
    after = ravel_pytree(state.meta_params.mask)[0] >= 0
    assert 0.2 < before.mean() < 0.8
    assert 0.1 < after.mean() < 0.9
    assert (before & ~after).any() and (~before & after).any()
    support = sample(KEY).support
    adapted = jax.jit(learner.adapt)(KEY, state.meta_params, support).params
    moved = ravel_pytree(adapted)[0] != ravel_pytree(state.meta_params.initial)[0]
    assert moved.any() and not (moved & ~after).any()


# --- R2-D2, Proto-MAML --------------------------------------------------------------------


def points(seed, count, ways=3):
    random = np.random.default_rng(seed)
    return Batch(
        jnp.asarray(random.normal(size=(count, 4))), jnp.arange(count, dtype=jnp.int32) % ways
    )


def test_r2d2_is_the_ridge_regression_of_the_normal_equations():
    learner = r2d2(FEATURES, cross_entropy, ways=3)
    support, query = points(0, 7), points(1, 5)
    meta_params = in_float64(learner.init(KEY, Task(support, query)))
    meta_params = meta_params._replace(
        log_ridge=jnp.log(0.7), log_scale=jnp.log(3.0), bias=jnp.array(0.2)
    )
    x, y = support.inputs, jax.nn.one_hot(support.targets, 3)
    weights = jnp.linalg.solve(x.T @ x + 0.7 * jnp.eye(4), x.T @ y)
    adapted = learner.adapt(KEY, meta_params, support)
    assert_close(adapted.weights_DW, weights)
    assert_close(learner.predict(adapted, query.inputs), 3 * query.inputs @ weights + 0.2)
    grads = learner.grad(KEY, meta_params, Task(support, query), at(0))[0]
    assert jnp.abs(grads.log_ridge) > 1e-4
    with pytest.raises(ValueError, match="1 ways"):
        r2d2(FEATURES, cross_entropy, ways=1)


@pytest.mark.full
def test_proto_maml_starts_as_a_prototypical_network_and_then_adapts():
    support, query = points(0, 6), points(1, 5)
    starting = proto_maml(FEATURES, cross_entropy, 3, optax.sgd(0.1), 0)
    meta_params = {"encoder": {"w": jnp.asarray(0.8)}}
    chex.assert_trees_all_equal_structs(starting.init(KEY, Task(support, query)), meta_params)
    expected = prototypical(FEATURES, cross_entropy, 3).grad(
        KEY, meta_params, Task(support, query), at(0)
    )
    found = starting.grad(KEY, meta_params, Task(support, query), at(0))
    assert_close(found[0], expected[0])
    assert_close(found[1], expected[1])

    def loss(params):
        logits = params["w"] * support.inputs @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, support.targets).mean()

    means = jnp.stack([0.8 * support.inputs[way::3].mean(axis=0) for way in range(3)])
    # The paper's head, less what all classes share in their logits.
    kernel = 2 * (means - means.mean(axis=0, keepdims=True)).T
    shared = jnp.square(means.mean(axis=0)).sum()
    start = {"w": jnp.asarray(0.8), "kernel": kernel, "bias": shared - jnp.square(means).sum(1)}
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, start, jax.grad(loss)(start))
    one = proto_maml(FEATURES, cross_entropy, 3, optax.sgd(0.1), 1)
    adapted = one.adapt(KEY, meta_params, support).params
    assert_close(adapted["encoder"]["w"], moved["w"])
    assert_close(adapted["head"], {"kernel": moved["kernel"], "bias": moved["bias"]})


# --- meta-transfer ------------------------------------------------------------------------


@pytest.mark.full
def test_meta_transfer_adapts_a_head_on_scaled_and_shifted_features():
    encoder = conv4(width=3, downsampling="stride", query_statistics="none")
    images = jax.random.normal(KEY, (4, 8, 8, 1))
    support = Batch(images, jnp.array([0, 1, 0, 1], jnp.int32))
    pretrained = in_float64(jax.jit(encoder.init)(jax.random.key(5), images))
    learner = meta_transfer(encoder, cross_entropy, 2, optax.sgd(0.3), 2, pretrained=pretrained)
    meta_params = in_float64(learner.init(KEY, Task(support, support)))
    assert_close(meta_params.frozen, pretrained)
    assert {leaf.shape for leaf in jax.tree.leaves((meta_params.scales, meta_params.shifts))} == {
        (3,)
    }
    meta_params.scales["norm_1"]["scale"] = jnp.array([2.0, 1.0, 0.5])
    meta_params.shifts["norm_3"]["bias"] = jnp.array([0.1, 0.0, -0.2])
    changed = jax.tree.map(lambda leaf: leaf, pretrained)
    changed["norm_1"]["scale"] = pretrained["norm_1"]["scale"] * jnp.array([2.0, 1.0, 0.5])
    changed["norm_3"]["bias"] = pretrained["norm_3"]["bias"] + jnp.array([0.1, 0.0, -0.2])
    features = jax.jit(encoder.apply)(changed, images)

    def loss(head):
        logits = features @ head["kernel"] + head["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, support.targets).mean()

    head, gradient = meta_params.head, jax.jit(jax.grad(loss))
    for _ in range(2):
        head = jax.tree.map(lambda p, g: p - 0.3 * g, head, gradient(head))
    adapted = learner.adapt(KEY, meta_params, support)
    assert_close(adapted.head, head)
    expected = features @ head["kernel"] + head["bias"][None]
    assert_close(learner.predict(adapted, images), expected)
    grads = learner.grad(KEY, meta_params, Task(support, support), at(0))[0]
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(grads.frozen))
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves((grads.scales, grads.shifts, grads.head)))


# --- Meta-LSTM ----------------------------------------------------------------------------


@pytest.mark.full
def test_meta_lstm_is_the_papers_equations_with_constant_gradients(line):
    learner = meta_lstm(LINEAR, squared_error, 2, lstm_width=3)
    meta_params = in_float64(learner.init(KEY, line))
    assert 4 <= meta_params.forget_gate.bias <= 5
    assert abs(meta_params.input_gate.bias - np.log(0.01 / 0.99)) <= 0.5

    def compressed(x):
        size = jnp.abs(x)
        return (
            jnp.stack([jnp.log(size) / 10, jnp.sign(x)])
            if size >= np.exp(-10)
            else jnp.stack([-1.0, np.exp(10) * x])
        )

    def lstm(cell, c, h, x):
        gates = cell.weights[:, :4] @ x + cell.weights[:, 4:] @ h + cell.bias
        write, keep, new, show = gates.reshape(4, 3)
        sigmoid = jax.nn.sigmoid
        c = sigmoid(keep) * c + sigmoid(write) * jnp.tanh(new)
        return c, sigmoid(show) * jnp.tanh(c)

    def by_hand(meta_params):
        head = meta_params.initial["head"]
        theta = [head["bias"][0], head["kernel"][0, 0]]
        c, h, forget, rate = ([jnp.zeros(3)] * 2, [jnp.zeros(3)] * 2, [0.0] * 2, [0.0] * 2)
        for _ in range(2):
            bias, weight = (jax.lax.stop_gradient(value) for value in theta)
            residuals = (weight + bias - 1, 2 * weight + bias)
            loss = (residuals[0] ** 2 + residuals[1] ** 2) / 2
            gradient = (sum(residuals), residuals[0] + 2 * residuals[1])
            for i in range(2):
                x = jnp.concatenate([compressed(gradient[i]), compressed(loss)])
                c[i], h[i] = lstm(meta_params.cell, c[i], h[i], x)
                gated = [
                    jax.nn.sigmoid(
                        jnp.concatenate([h[i], jnp.stack([theta[i], before])]) @ gate.weights
                        + gate.bias
                    )
                    for gate, before in (
                        (meta_params.forget_gate, forget[i]),
                        (meta_params.input_gate, rate[i]),
                    )
                ]
                forget[i], rate[i] = gated
                theta[i] = gated[0] * theta[i] - gated[1] * gradient[i]
        residual = 3 * theta[1] + theta[0] + 1
        return residual**2, theta

    (loss, theta), expected = jax.value_and_grad(by_hand, has_aux=True)(meta_params)
    assert_close(learner.adapt(KEY, meta_params, line.support).params, of_line(theta[1], theta[0]))
    grads, info, _ = learner.grad(KEY, meta_params, line, at(0))
    assert_close(info.loss, loss)
    assert_close(grads, expected)
    with pytest.raises(ValueError, match="rate 1.0 is the opening of a gate"):
        meta_lstm(LINEAR, squared_error, 2, inner_rate=1.0)
    exact = meta_lstm(LINEAR, squared_error, 2, lstm_width=3, differentiation=second_order)
    second = exact.grad(KEY, meta_params, line, at(0))[0]
    assert jnp.abs(second.initial["head"]["bias"] - expected.initial["head"]["bias"]).max() > 1e-4
