"""Two-dimensional convolution as three bilinear primitives closed under differentiation.

    y = convolve(x, w)
    x̄ = gradient_to_images(ȳ, w), the transpose of y in x
    w̄ = gradient_to_kernel(x, ȳ), the transpose of y in w

Each is linear in both of its arguments, and the transpose of each in either is one of the other
two. With that table derivatives of every order, forward and reverse, stay within the three, and
each is computed by what is fastest for it (`convolution_forms`): XLA's own gradient to the kernel
falls to a fifth of the forward's speed on a CPU. Under `vmap` with a kernel for every task they
never become a grouped convolution, the slowest form there is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxmeta.core import Array
from jaxmeta.ops import convolution_forms as forms
from jaxmeta.ops.convolution_forms import Geometry
from jaxmeta.ops.varying import varying_with


def convolve(images_NHWC: Array, kernel_hwCD: Array, *, stride: int = 1) -> Array:
    """Convolution with `SAME` padding, without bias.

        y[n, i, j, d] = Σ_{a, b, c} x[n, s·i + a − p, s·j + b − p, c] · w[a, b, c, d]

    Args:
      images_NHWC: float `[N, H, W, C]`.
      kernel_hwCD: float `[h, w, C, D]`.
      stride: s, in pixels, the same both ways.

    Returns:
      float `[N, ⌈H/s⌉, ⌈W/s⌉, D]`.

    Raises:
      ValueError: an argument has no four axes; the channels of images and kernel, or their
        types, differ; the stride is not positive.

    >>> convolve(jnp.ones((2, 5, 5, 1)), jnp.ones((3, 3, 1, 4)), stride=2).shape
    (2, 3, 3, 4)
    """
    images_NHWC, kernel_hwCD = jnp.asarray(images_NHWC), jnp.asarray(kernel_hwCD)
    if images_NHWC.ndim != 4 or kernel_hwCD.ndim != 4:
        raise ValueError(
            f"convolve: images {images_NHWC.shape} and kernel {kernel_hwCD.shape}; give "
            "[N, H, W, C] and [h, w, C, D]."
        )
    if images_NHWC.shape[-1] != kernel_hwCD.shape[-2]:
        raise ValueError(
            f"convolve: images {images_NHWC.shape} have {images_NHWC.shape[-1]} channels, the "
            f"kernel {kernel_hwCD.shape} wants {kernel_hwCD.shape[-2]}; give both the same number."
        )
    if images_NHWC.dtype != kernel_hwCD.dtype:
        raise ValueError(
            f"convolve: images are {images_NHWC.dtype}, the kernel is {kernel_hwCD.dtype}; "
            "convert one."
        )
    if stride < 1:
        raise ValueError(f"convolve: stride {stride}; give at least 1.")
    # Alike, as JAX's own operations see to.
    images_NHWC = varying_with(images_NHWC, kernel_hwCD)
    kernel_hwCD = varying_with(kernel_hwCD, images_NHWC)
    geometry = Geometry(images_NHWC.shape[1:3], kernel_hwCD.shape[:2], stride)
    return convolve_p.bind(images_NHWC, kernel_hwCD, geometry=geometry)


def _define(name: str, on_cpu: Callable[..., Array], elsewhere: Callable[..., Array]) -> Primitive:
    primitive = Primitive(name)

    def run(left: Array, right: Array, *, geometry: Geometry) -> Array:
        form = on_cpu if jax.default_backend() == "cpu" else elsewhere
        return form(left, right, geometry)

    primitive.def_impl(jax.jit(run, static_argnames="geometry"))
    # Traced, not built by hand, so that the type knows over which mesh axes it varies.
    primitive.def_abstract_eval(
        lambda left, right, *, geometry: jax.make_jaxpr(partial(run, geometry=geometry))(
            left, right
        ).out_avals[0]
    )
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))
    return primitive


convolve_p = _define("convolve", forms.convolve_on_cpu, forms.convolve_by_xla)
gradient_to_images_p = _define(
    "convolve_gradient_to_images",
    forms.gradient_to_images_on_cpu,
    forms.transposed_in_images(forms.convolve_by_xla),
)
gradient_to_kernel_p = _define(
    "convolve_gradient_to_kernel",
    forms.gradient_to_kernel_on_cpu,
    forms.transposed_in_kernel(forms.convolve_by_xla),
)

# primitive(left, right): the transpose in left as a function of (cotangent, right), the
# transpose in right as one of (cotangent, left).
ad.defbilinear(
    convolve_p,
    lambda outputs, images, kernel, **sizes: gradient_to_images_p.bind(outputs, kernel, **sizes),
    lambda outputs, images, kernel, **sizes: gradient_to_kernel_p.bind(images, outputs, **sizes),
)
ad.defbilinear(
    gradient_to_images_p,
    lambda images, outputs, kernel, **sizes: convolve_p.bind(images, kernel, **sizes),
    lambda images, outputs, kernel, **sizes: gradient_to_kernel_p.bind(images, outputs, **sizes),
)
ad.defbilinear(
    gradient_to_kernel_p,
    lambda kernel, images, outputs, **sizes: gradient_to_images_p.bind(outputs, kernel, **sizes),
    lambda kernel, images, outputs, **sizes: convolve_p.bind(images, kernel, **sizes),
)


def _batch(
    primitive: Primitive,
    per_task: Callable[..., Array],
    left_only: tuple[int, int],
    right_only: tuple[int, int],
    args: tuple[Array, Array],
    axes: tuple[Any, Any],
    *,
    geometry: Geometry,
) -> tuple[Array, int]:
    """Where one argument alone has a task axis, fold it into an axis that the map leaves alone.

    `left_only` and `right_only` name that axis in the argument and in the result.
    """
    (left, right), (left_axis, right_axis) = args, axes
    run = partial(primitive.bind, geometry=geometry)
    if right_axis is None:
        folded = _fold(left, left_axis, left_only[0])
        return _unfold(run(folded, right), left_only[1], left.shape[left_axis])
    if left_axis is None:
        folded = _fold(right, right_axis, right_only[0])
        return _unfold(run(left, folded), right_only[1], right.shape[right_axis])
    left, right = jnp.moveaxis(left, left_axis, 0), jnp.moveaxis(right, right_axis, 0)
    if left.shape[0] == 1:
        return run(left[0], right[0])[None], 0
    if jax.default_backend() == "cpu":  # one after the other: each fits the cache
        return lax.map(lambda pair: run(*pair), (left, right)), 0
    return jax.vmap(partial(per_task, geometry=geometry))(left, right), 0


def _fold(array: Array, task_axis: int, into: int) -> Array:
    array = jnp.moveaxis(array, task_axis, into)
    return array.reshape(*array.shape[:into], -1, *array.shape[into + 2 :])


def _unfold(array: Array, axis: int, tasks: int) -> tuple[Array, int]:
    return array.reshape(*array.shape[:axis], tasks, -1, *array.shape[axis + 1 :]), axis


for _primitive, _form, _left_only, _right_only in (
    (convolve_p, forms.convolve_by_patches, (0, 0), (3, 3)),
    (gradient_to_images_p, forms.transposed_in_images(forms.convolve_by_patches), (0, 0), (2, 3)),
    (gradient_to_kernel_p, forms.transposed_in_kernel(forms.convolve_by_patches), (3, 2), (3, 3)),
):
    batching.primitive_batchers[_primitive] = partial(
        _batch, _primitive, _form, _left_only, _right_only
    )
