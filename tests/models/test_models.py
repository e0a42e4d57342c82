"""Networks as pure pairs: shapes, whose statistics normalise, modules of other libraries."""

import chex
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import maml
from jaxmeta.models import (
    NORMALISATIONS,
    Normalisation,
    comparator,
    computed_in,
    conv4,
    conv_maps,
    from_linen,
    from_nnx,
    mlp,
    resnet12,
)
from jaxmeta.ops import max_pool

KEY = jax.random.key(0)


def images(seed, count, size=16):
    return jax.random.normal(jax.random.key(seed), (count, size, size, 1))


BUILDERS = {
    "conv4-stride": lambda kind: conv4(3, width=8, downsampling="stride", query_statistics=kind),
    "conv4-pool": lambda kind: conv4(3, width=8, downsampling="pool", query_statistics=kind),
    "resnet12": lambda kind: resnet12(3, width=4, query_statistics=kind),
    "mlp": lambda kind: mlp((8, 8), 3, query_statistics=kind),
}


@pytest.fixture(
    params=[n if n != "resnet12" else pytest.param(n, marks=pytest.mark.slow) for n in BUILDERS]
)
def build(request):
    return BUILDERS[request.param]


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_shapes_with_and_without_reference(build, kind):
    model = build(kind)
    params = jax.eval_shape(model.init, KEY, images(0, 2))
    assert "head" in params
    for reference in (None, images(2, 4)):
        outputs = jax.eval_shape(
            lambda params, reference=reference: model.apply(
                params, images(1, 5), reference=reference
            ),
            params,
        )
        assert outputs.shape == (5, 3)


def _alone_and_among_others(model, reference):
    params = jax.jit(model.init)(KEY, images(0, 2))
    query = images(1, 6)
    together = jax.jit(model.apply)(params, query, reference=reference)
    one = jax.jit(lambda image: model.apply(params, image[None], reference=reference)[0])
    return together, jnp.stack([one(image) for image in query])


@pytest.mark.full
def test_groups_require_a_width_that_divides():
    with pytest.raises(ValueError, match="25 channels do not divide into 3 groups; give a width"):
        conv4(5, width=25, query_statistics="group").init(
            jax.random.key(0), jnp.ones((1, 28, 28, 1))
        )


@pytest.mark.parametrize("kind", ["support", "layer", "group", "none"])
def test_each_query_example_is_judged_by_itself(build, kind):
    together, alone = _alone_and_among_others(build(kind), images(2, 4))
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=2e-5)


@pytest.mark.full
def test_batch_statistics_are_transductive(build):
    together, alone = _alone_and_among_others(build("batch"), images(2, 4))
    assert np.abs(together - alone).max() > 1e-2


@pytest.mark.full
def test_support_statistics_are_those_of_the_support_set(build):
    support, query = images(1, 6), images(2, 3)
    model = build("support")
    params, apply = jax.jit(model.init)(KEY, support), jax.jit(model.apply)
    # The support set normalised by itself, and named as the reference of its own images, agree.
    np.testing.assert_allclose(
        apply(params, support), apply(params, support, reference=support), atol=2e-5
    )
    ours = apply(params, query, reference=support)
    assert np.abs(ours - apply(params, query, reference=images(3, 6))).max() > 1e-3
    assert np.abs(ours - apply(params, query)).max() > 1e-3


@pytest.mark.full
@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_pooling_within_the_normalisation_is_pooling_after_it(kind, x64):
    values = jax.random.normal(KEY, (4, 5, 6, 16))  # an odd row is left out of the maximum alone
    layer = Normalisation(kind)
    signs = jnp.where(jnp.arange(16) % 3 == 0, -1.0, 1.0)  # falling lines among rising ones
    params = {
        "params": {"scale": signs * jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}
    }

    def within(params, values):
        return layer.apply(params, values, 2, pool=2)

    def after(params, values):
        return max_pool(layer.apply(params, values, 2))

    np.testing.assert_allclose(within(params, values), after(params, values), atol=1e-12)

    def derivatives(block):
        loss = lambda params, values: jnp.sin(block(params, values)).sum()  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        return jax.jit(lambda *args: (gradient(*args), jax.jvp(gradient, args, args)[1]))(
            params, values
        )

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
        derivatives(within),
        derivatives(after),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv4-pool", "conv4-stride", "resnet12"])
def test_networks_are_what_xla_convolutions_make_of_them(name, monkeypatch, x64):
    """Values, gradients and their derivative along the gradient, as MAML takes them."""
    inputs = images(0, 2).astype(float)

    def results():
        model = BUILDERS[name]("batch")
        params = jax.tree.map(lambda leaf: leaf.astype(float), model.init(KEY, inputs))
        loss = lambda params: jnp.sin(model.apply(params, inputs)).sum()  # noqa: E731

        def derivatives(params):
            grads = jax.grad(loss)(params)
            return loss(params), *jax.jvp(jax.grad(loss), (params,), (grads,))

        return jax.jit(derivatives)(params)

    ours = results()
    monkeypatch.setattr("jaxmeta.models.layers.convolve", xla_convolution)
    chex.assert_trees_all_close(ours, results(), rtol=1e-8, atol=1e-9)


def xla_convolution(images_NHWC, kernel, *, stride):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images_NHWC, kernel, (stride, stride), "SAME", dimension_numbers=layout
    )


def test_resnet12_takes_colour_photographs_and_refuses_small_images():
    model = resnet12(width=2)
    photographs = jnp.zeros((2, 84, 84, 3))
    params = jax.eval_shape(model.init, KEY, photographs)
    assert jax.eval_shape(model.apply, params, photographs).shape == (2, 16)
    with pytest.raises(ValueError, match="resnet12: images of 8×8 are too small; give 16×16"):
        model.init(KEY, jnp.zeros((1, 8, 8, 1)))


def test_conv4_embeds_without_a_head_and_halves_four_times():
    for downsampling in ("stride", "pool"):
        model = conv4(width=8, downsampling=downsampling)
        small = jnp.zeros((2, 28, 28, 1))
        params = jax.eval_shape(model.init, KEY, small)
        assert "head" not in params
        assert jax.eval_shape(model.apply, params, small).shape == (2, 8)
    pooled, large = conv4(width=8, downsampling="pool"), jnp.zeros((2, 84, 84, 3))
    params = jax.eval_shape(pooled.init, KEY, large)
    assert jax.eval_shape(pooled.apply, params, large).shape == (2, 5 * 5 * 8)


def test_no_bias_stands_before_a_normalisation():
    for model, layer in (
        (conv4(3), "conv_0"),
        (mlp((4,), 1, query_statistics="batch"), "hidden_0"),
    ):
        assert set(jax.eval_shape(model.init, KEY, images(0, 1))[layer]) == {"kernel"}


def test_an_unknown_normalisation_is_named():
    with pytest.raises(ValueError, match="unknown query statistics 'btach'; give batch, support"):
        conv4(3, query_statistics="btach").init(KEY, images(0, 1))  # pyright: ignore[reportArgumentType]


# --- modules of other libraries -----------------------------------------------------------


class _WithStatistics(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.BatchNorm(use_running_average=False)(inputs)


def test_linen_modules_with_hidden_state_are_refused():
    with pytest.raises(ValueError, match="_WithStatistics keeps batch_stats"):
        from_linen(_WithStatistics()).init(KEY, jnp.ones((2, 3)))


class _WithDropout(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(inputs)


def test_a_key_is_for_dropout():
    model = from_linen(_WithDropout())
    ones = jnp.ones((4, 8))
    params = model.init(KEY, ones)
    np.testing.assert_array_equal(model.apply(params, ones), ones)
    assert (model.apply(params, ones, key=KEY) == 0).any()


def test_an_nnx_module_gives_the_same_as_a_linen_one():
    model = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    params = model.init(KEY, jnp.ones((1, 3)))
    inputs = jax.random.normal(KEY, (5, 3))
    expected = nn.Dense(2).apply({"params": params}, inputs)
    np.testing.assert_allclose(model.apply(params, inputs), expected, rtol=1e-6)


def test_nnx_modules_with_hidden_state_are_refused():
    model = from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs))
    with pytest.raises(ValueError, match="mean, var"):
        model.init(KEY, jnp.ones((1, 3)))


def _equinox_model() -> Model:
    def build(key):
        return eqx.nn.MLP(4, 2, 8, 1, key=key)

    def init(key, inputs, /):
        return eqx.filter(build(key), eqx.is_array)

    def apply(params, inputs, /, *, reference=None, key=None):
        shapes = eqx.filter_eval_shape(build, jax.random.key(0))
        static = eqx.filter(shapes, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))
        return jax.vmap(eqx.combine(params, static))(inputs)

    return Model(init, apply)


@pytest.mark.parametrize("kind", ["equinox", "nnx"])
def test_modules_of_other_libraries_learn_to_learn(kind):
    if kind == "equinox":
        model = _equinox_model()
    else:
        model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    learner = maml(model, cross_entropy, optax.sgd(0.5), inner_steps=2)
    inputs = jax.random.normal(KEY, (6, 4))
    batch = Batch(inputs, (inputs[:, 0] > 0).astype(jnp.int32))
    task = Task(batch, batch)
    meta_params = learner.init(KEY, task)

    @jax.jit
    def descend(meta_params):
        (loss, _), grads = jax.value_and_grad(learner.loss, argnums=1, has_aux=True)(
            KEY, meta_params, task
        )
        return jax.tree.map(lambda p, g: p - 0.1 * g, meta_params, grads), loss

    losses = []
    for _ in range(20):
        meta_params, loss = descend(meta_params)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", ["batch", "group"])
@pytest.mark.slow
def test_bfloat16_inside_float32_outside(kind):
    model = conv4(3, width=16, query_statistics=kind)
    short = computed_in(model, jnp.bfloat16)
    params = short.init(KEY, images(0, 2))
    exact, found = (jax.jit(m.apply)(params, images(1, 6)) for m in (model, short))
    assert found.dtype == jnp.float32
    assert 0 < jnp.abs(found - exact).max() < 0.1 * jnp.abs(exact).max()

    def loss(model, params):
        return jnp.square(model.apply(params, images(1, 6))).mean()

    gradient = jax.jit(jax.grad(loss, 1), static_argnums=0)
    grads = gradient(short, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"float32"}
    flat = [jax.flatten_util.ravel_pytree(g)[0] for g in (grads, gradient(model, params))]
    assert optax.losses.cosine_similarity(*flat) > 0.95  # 1/256 of rounding, four blocks deep
    jaxpr = str(jax.make_jaxpr(short.apply)(params, images(1, 6)))
    assert "convolve" in jaxpr and "bf16[6,16,16,16]" in jaxpr


@pytest.mark.parametrize(
    ("build", "name", "smallest"),
    [
        (lambda: conv4(5, width=2), "conv4 with pooling", 16),
        (lambda: conv4(5, width=2, downsampling="stride"), "conv4 with strides", 1),
        (lambda: resnet12(5, width=2), "resnet12", 16),
        (lambda: conv_maps(width=2), "conv_maps", 4),
        (lambda: comparator(width=2), "comparator", 4),
        (lambda: mlp((2,), 1), "mlp", 1),
    ],
)
def test_a_network_names_the_smallest_image_that_it_takes(build, name, smallest):
    def init(height, width):
        image = jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)
        inputs = (image, image) if name == "comparator" else image
        return jax.eval_shape(build().init, jax.random.key(0), inputs)

    init(smallest, smallest)
    for shape in ((smallest - 1, smallest), (smallest, smallest - 1)):
        wanted = (
            f"{shape[0]}×{shape[1]} .*{smallest}×{smallest}" if smallest > 1 else "of the shape"
        )
        with pytest.raises(ValueError, match=f"^{name}: .*{wanted}"):
            init(*shape)


@pytest.mark.parametrize("downsampling", ["Pool", "strides", "", None])
def test_a_near_miss_of_a_downsampling_is_refused(downsampling):
    with pytest.raises(ValueError, match="give stride or pool"):
        conv4(5, downsampling=downsampling)  # pyright: ignore[reportArgumentType]


def test_the_activation_of_a_perceptron():
    model, inputs = mlp((3,), 2, activation=jnp.tanh), jnp.ones((4, 5))
    params = model.init(KEY, inputs)
    hidden = jnp.tanh(inputs @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"][None])
    expected = hidden @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(model.apply(params, inputs), expected, rtol=1e-6)
