"""The three convolution primitives against XLA's own convolution, in float64."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxmeta.ops import convolution_forms as forms
from jaxmeta.ops import convolve, convolve_transposed
from jaxmeta.ops.convolution import convolve_p, gradient_to_images_p, gradient_to_kernel_p
from jaxmeta.ops.convolution_forms import Geometry
from jaxmeta.ops.cpu import convolution as cpu_forms

# images [N, H, W, C], kernel [h, w, C, D], stride: one for every form that a CPU takes.
WINOGRAD = ((2, 7, 6, 16), (3, 3, 16, 17), 1)
SETTINGS = {
    "winograd": WINOGRAD,
    "patches": ((2, 5, 6, 2), (3, 3, 2, 3), 1),
    "strided": ((2, 7, 6, 2), (3, 3, 2, 3), 2),
    "pointwise": ((2, 5, 6, 2), (1, 1, 2, 3), 1),
    "wide": ((2, 7, 6, 8), (5, 5, 8, 9), 1),
}


def reference(images, kernel, stride):
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def ours(images, kernel, stride):
    return convolve(images, kernel, stride=stride)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 4


close = partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-10)


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def setting(request, x64):
    images, kernel, stride = request.param
    return normal(0, *images), normal(1, *kernel), stride


@settings(max_examples=6)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([1, 2]),
    channels=st.sampled_from([(1, 4), (3, 2), (16, 16), (24, 24)]),
)
def test_values_and_gradients_over_shapes(height, width, window, stride, channels):
    with jax.enable_x64(True):
        images = normal(0, 2, height, width, channels[0])
        kernel = normal(1, window, window, *channels)

        def value_and_grads(convolution):
            def loss(images, kernel):
                return jnp.square(convolution(images, kernel, stride)).sum()

            return jax.jit(jax.value_and_grad(loss, (0, 1)))(images, kernel)

        close(value_and_grads(ours), value_and_grads(reference))


@pytest.mark.full
def test_first_to_third_derivatives(setting):
    images, kernel, stride = setting

    def derivatives(convolution):
        def loss(images, kernel):
            return jnp.sin(convolution(images, kernel, stride)).sum()

        def curvature(images, kernel):  # forward over reverse, as mixed mode needs it
            tangents = (jnp.cos(images), jnp.cos(kernel))
            _, products = jax.jvp(jax.grad(loss, (0, 1)), (images, kernel), tangents)
            return sum(jnp.square(product).sum() for product in products)

        def all_three(images, kernel):
            first = jax.grad(loss, (0, 1))(images, kernel)
            return first, jax.value_and_grad(curvature, (0, 1))(images, kernel)

        return jax.jit(all_three)(images, kernel)

    close(derivatives(ours), derivatives(reference))


@pytest.mark.full
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_mapped_over_either_operand_or_both(axes, setting):
    *operands, stride = setting
    tasks = 3
    operands = [
        value
        if axis is None
        else jnp.stack([value * jnp.cos(i + value) for i in range(tasks)], axis)
        for value, axis in zip(operands, axes, strict=True)
    ]

    def mapped(convolution):
        def loss(images, kernel):
            return jnp.sin(convolution(images, kernel, stride)).sum()

        inside = jax.vmap(jax.value_and_grad(loss, (0, 1)), in_axes=axes)

        def outside(images, kernel):
            return jax.vmap(loss, in_axes=axes)(images, kernel).sum()

        return jax.jit(lambda *xs: (inside(*xs), jax.grad(outside, (0, 1))(*xs)))(*operands)

    close(mapped(ours), mapped(reference))


@pytest.mark.full
@pytest.mark.parametrize("inner", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("name", ["winograd", "strided"])
def test_mapped_twice(name, inner, x64):
    images, kernel, stride = SETTINGS[name]
    values = (normal(0, *images), normal(1, *kernel))
    operands = []
    for value, axis in zip(values, inner, strict=True):
        value = value if axis is None else jnp.stack([value, jnp.cos(value)])
        operands.append(jnp.stack([value, 2 * value, jnp.sin(value)]))

    def mapped(convolution):
        def loss(images, kernel):
            return jnp.sin(convolution(images, kernel, stride)).sum()

        twice = jax.vmap(jax.vmap(jax.value_and_grad(loss, (0, 1)), in_axes=inner))
        return jax.jit(twice)(*operands)

    close(mapped(ours), mapped(reference))


def test_without_jit():
    images, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((2, 3, 3, 1, 2))
    with jax.disable_jit():
        found = jax.vmap(convolve, (None, 0))(images, kernel)
    np.testing.assert_allclose(found, jax.vmap(partial(reference, images, stride=1))(kernel))


def two_steps(convolution, stride, images, kernels):
    """The gradient through a scan of checkpointed gradient steps: an inner loop's pattern."""

    def loss(kernel):
        return jnp.square(convolution(images, kernel, stride)).mean()

    @jax.checkpoint
    def step(kernel, _):
        return kernel - 0.1 * jax.grad(loss)(kernel), None

    return jax.grad(lambda kernel: loss(lax.scan(step, kernel, length=2)[0]))(kernels)


@pytest.mark.full
def test_under_scan_and_checkpoint(setting):
    images, kernel, stride = setting
    close(
        jax.jit(partial(two_steps, ours, stride))(images, kernel),
        jax.jit(partial(two_steps, reference, stride))(images, kernel),
    )


@pytest.mark.full
@pytest.mark.parametrize("replicated", [True, False])
@pytest.mark.parametrize("name", ["winograd", "strided"])
def test_under_shard_map(name, replicated, x64):
    images, kernel, stride = SETTINGS[name]
    images, kernel = normal(0, 4, *images), normal(1, *kernel)
    mesh = jax.make_mesh((4,), ("tasks",), axis_types=(AxisType.Auto,))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P("tasks"), P()), out_specs=P())
    def sharded(images, kernel):
        if replicated:  # the gradient to what all devices share is summed over them
            mean = lambda kernel: jnp.sin(ours(images[0], kernel, stride)).mean()  # noqa: E731
            return jax.grad(lambda kernel: lax.pmean(mean(kernel), "tasks"))(kernel)
        kernel = lax.pcast(kernel, "tasks", to="varying")
        return lax.pmean(two_steps(ours, stride, images[0], kernel), "tasks")

    def alone(images):
        if replicated:
            return jax.grad(lambda kernel: jnp.sin(reference(images, kernel, stride)).mean())(
                kernel
            )
        return two_steps(reference, stride, images, kernel)

    expected = jnp.mean(jnp.stack([jax.jit(alone)(task) for task in images]), 0)
    close(sharded(images, kernel), expected)


def test_mapped_under_shard_map(x64):
    images, kernel, stride = SETTINGS["strided"]
    images, kernels = normal(0, 4, *images), normal(1, 4, *kernel)
    mesh = jax.make_mesh((2,), ("tasks",), axis_types=(AxisType.Auto,))
    of_tasks = jax.vmap(partial(two_steps, ours, stride))
    sharded = jax.shard_map(of_tasks, mesh=mesh, in_specs=P("tasks"), out_specs=P("tasks"))
    expected = jax.jit(jax.vmap(partial(two_steps, reference, stride)))(images, kernels)
    close(jax.jit(sharded)(images, kernels), expected)


@pytest.mark.full
@pytest.mark.parametrize("transposed", [None, "images", "kernel"])
def test_every_form_is_the_same_function(transposed, setting):
    images, kernel, stride = setting
    geometry = Geometry(images.shape[1:3], kernel.shape[:2], stride)
    outputs = jnp.cos(reference(images, kernel, stride))
    cpu, transpose, operands = {
        None: (cpu_forms.convolve_on_cpu, lambda form: form, (images, kernel)),
        "images": (
            cpu_forms.gradient_to_images_on_cpu,
            forms.transposed_in_images,
            (outputs, kernel),
        ),
        "kernel": (
            cpu_forms.gradient_to_kernel_on_cpu,
            forms.transposed_in_kernel,
            (images, outputs),
        ),
    }[transposed]
    expected = transpose(forms.convolve_by_xla)(*operands, geometry)
    close(cpu(*operands, geometry), expected)
    close(transpose(forms.convolve_by_patches)(*operands, geometry), expected)
    if (geometry.kernel, stride) == ((3, 3), 1):
        close(transpose(cpu_forms.convolve_by_winograd)(*operands, geometry), expected)


def test_float32_is_as_exact_as_xlas():
    images, kernel, stride = WINOGRAD
    images, kernel = normal(0, *images), normal(1, *kernel)
    with jax.enable_x64(True):
        exact = reference(images.astype("float64"), kernel.astype("float64"), stride)
        exact = np.asarray(exact)
    scale = np.abs(exact).max()
    assert np.abs(reference(images, kernel, stride) - exact).max() < 1e-6 * scale
    assert np.abs(ours(images, kernel, stride) - exact).max() < 2e-6 * scale


def test_two_types_are_computed_in_the_wider(x64):
    images, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2))
    short = kernel.astype(jnp.float32)
    assert convolve(images.astype(jnp.float32), kernel).dtype == jnp.float64
    found = jax.grad(lambda kernel: convolve(images, kernel).sum())(short)
    assert found.dtype == jnp.float32
    expected = jax.grad(lambda kernel: convolve(images, kernel).sum())(kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bfloat16_is_as_exact_as_xlas():
    images, kernel, stride = WINOGRAD
    images, kernel = normal(0, *images), normal(1, *kernel)
    short = [value.astype(jnp.bfloat16) for value in (images, kernel)]
    found = ours(*short, stride)
    assert found.dtype == jnp.bfloat16
    exact = reference(*(value.astype(jnp.float32) for value in short), stride)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=1e-2 * np.abs(exact).max())


def test_derivatives_stay_within_the_three():
    def curvature(images, kernel):
        loss = lambda kernel: jnp.sin(convolve(images, kernel)).sum()  # noqa: E731
        return jax.jvp(jax.grad(loss), (kernel,), (kernel,))[1]

    jaxpr = str(jax.make_jaxpr(curvature)(jnp.ones((1, 6, 6, 1)), jnp.ones((3, 3, 1, 1))))
    used = {p.name for p in (convolve_p, gradient_to_images_p, gradient_to_kernel_p)}
    assert "conv_general_dilated" not in jaxpr
    assert used & set(re.findall(r"convolve\w*", jaxpr)) == {
        convolve_p.name,
        gradient_to_kernel_p.name,
    }


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 2), (3, 1), (2, 3)])
def test_transposed_is_that_of_jax(window, stride, x64):
    images, kernel = normal(0, 2, 5, 4, 3), normal(1, window, window, 3, 2)

    def theirs(images, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return lax.conv_transpose(images, kernel, strides, "SAME", dimension_numbers=layout)

    own = partial(convolve_transposed, stride=stride)
    assert own(images, kernel).shape == (2, 5 * stride, 4 * stride, 2)
    for function in (lambda call: call, lambda call: jax.grad(squared(call), (0, 1))):
        close(*(function(call)(images, kernel) for call in (own, theirs)))
    chex.assert_numerical_grads(squared(own), (images, kernel), order=2)


def squared(call):
    return lambda images, kernel: jnp.square(call(images, kernel)).sum()


def test_transposed_checks_its_operands():
    with pytest.raises(ValueError, match="convolve_transposed: images .* have 2 channels"):
        convolve_transposed(jnp.zeros((1, 4, 4, 2)), jnp.zeros((4, 4, 1, 4)), stride=2)


@pytest.mark.parametrize(
    ("images", "kernel", "stride", "told"),
    [
        (jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 4)), 1, "2 channels"),
        (jnp.zeros((4, 4, 2)), jnp.zeros((3, 3, 2, 4)), 1, r"\[N, H, W, C\]"),
        (jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 4)), 0, "stride 0"),
    ],
)
def test_bad_operands(images, kernel, stride, told):
    with pytest.raises(ValueError, match=told):
        convolve(images, kernel, stride=stride)


@pytest.mark.parametrize("window", [3, 5])
def test_kernels_keep_their_axes_inside_a_loop(window):
    """XLA's fast convolutions on a CPU take kernels `[h, w, C, D]` only, not transposed ones."""

    def step(_, params):
        grads = jax.grad(lambda x, w: jnp.sin(convolve(x, w)).sum(), (0, 1))(*params)
        return jax.tree.map(lambda own, grad: own - 0.1 * grad, params, grads)

    params = jnp.ones((2, 12, 12, 8)), jnp.ones((window, window, 8, 8))
    loop = jax.jit(lambda params: jax.lax.fori_loop(0, 3, step, params))
    text = loop.lower(params).compile().as_text()
    assert set(re.findall(r"dim_labels=(\S+?),", text)) == {"b01f_01io->b01f"}


@pytest.mark.slow
def test_the_compiled_step_has_neither_grouped_convolution_nor_slow_gradient():
    """MAML's step on the max-pooled network, tasks mapped together: products only, on a CPU."""
    from jaxmeta import cross_entropy
    from jaxmeta.learners import maml
    from jaxmeta.models import conv4
    from jaxmeta.training import meta_update
    from tests.learners.conftest import patterns

    learner = maml(conv4(3, width=32), cross_entropy, optax.sgd(0.1), 1)
    init, update = meta_update(learner, optax.adam(1e-3), task_batch=4, tasks_at_once=2)
    sample = patterns(size=16)
    state = jax.eval_shape(init, jax.random.key(0), sample)
    text = jax.jit(update).lower(state, sample).compile().as_text()
    assert " dot(" in text
    assert "convolution" not in re.sub(r'metadata=\{.*?\}|"[^"]*"', "", text)
