"""Two-dimensional convolution as three bilinear primitives closed under differentiation.

    y = convolve(x, w)
    x̄ = gradient_to_images(ȳ, w), the transpose of y in x
    w̄ = gradient_to_kernel(x, ȳ), the transpose of y in w

Each is linear in both of its arguments, and its transpose in either argument is one of the other
two, so that derivatives of every order, forward and reverse, consist of these three. Both arguments
may have a leading task axis, which `vmap` adds if every task has its own kernel.

The implementation depends on the platform that the program is lowered for. On a CPU it is that of
`jaxmeta.ops.cpu.convolution`, since the kernel gradient of XLA can fall to a fifth of the forward
speed, and tasks are processed sequentially, since each fits the cache. Other platforms use the
convolution of XLA, and patches with a batched product for tasks with their own kernels, since a
grouped convolution is the slowest form.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from jaxmeta.core import Array
from jaxmeta.ops import convolution_forms as forms
from jaxmeta.ops.convolution_forms import Form, Geometry
from jaxmeta.ops.cpu import convolution as cpu
from jaxmeta.ops.varying import varying_with


def convolve(images_NHWC: Array, kernel_hwCD: Array, *, stride: int = 1) -> Array:
    """Convolution with `SAME` padding, without bias.

        y[n, i, j, d] = Σ_{a, b, c} x[n, s·i + a − p, s·j + b − p, c] · w[a, b, c, d]

    Args:
      images_NHWC: float `[N, H, W, C]`.
      kernel_hwCD: float `[h, w, C, D]`. If the types differ, both are promoted to the wider one.
      stride: s, in pixels, the same on both axes.

    Returns:
      float `[N, ⌈H/s⌉, ⌈W/s⌉, D]`.

    Raises:
      ValueError: an argument doesn't have four axes; the channels of images and kernel differ;
        the stride is not positive.

    >>> convolve(jnp.ones((2, 5, 5, 1)), jnp.ones((3, 3, 1, 4)), stride=2).shape
    (2, 3, 3, 4)
    """
    images_NHWC, kernel_hwCD = _checked("convolve", images_NHWC, kernel_hwCD, stride)
    geometry = Geometry(images_NHWC.shape[1:3], kernel_hwCD.shape[:2], stride)
    return convolve_p.bind(images_NHWC, kernel_hwCD, geometry=geometry)


def convolve_transposed(images_NHWC: Array, kernel_hwCD: Array, *, stride: int = 1) -> Array:
    """Transposed convolution: it spreads every pixel over a window of a larger image, without bias.

        y[n, s·i + a − p, s·j + b − p, d] = Σ x[n, i, j, c] · w[h − 1 − a, w − 1 − b, c, d]

    summed over i, j and c; p is the padding of a convolution of stride s of the larger image. This
    is the transpose of that convolution, with the kernel rotated and its channels exchanged, as in
    `jax.lax.conv_transpose`.

    Args:
      images_NHWC: float `[N, H, W, C]`.
      kernel_hwCD: float `[h, w, C, D]`. If the types differ, both are promoted to the wider one.
      stride: s, in pixels, the same on both axes.

    Returns:
      float `[N, s·H, s·W, D]`.

    Raises:
      ValueError: as `convolve`.

    >>> convolve_transposed(jnp.ones((2, 5, 5, 1)), jnp.ones((4, 4, 1, 3)), stride=2).shape
    (2, 10, 10, 3)
    """
    images_NHWC, kernel_hwCD = _checked("convolve_transposed", images_NHWC, kernel_hwCD, stride)
    height, width = images_NHWC.shape[1:3]
    geometry = Geometry((stride * height, stride * width), kernel_hwCD.shape[:2], stride)
    rotated_hwDC = kernel_hwCD[::-1, ::-1].swapaxes(2, 3)
    return gradient_to_images_p.bind(images_NHWC, rotated_hwDC, geometry=geometry)


def _checked(name: str, images: Array, kernel: Array, stride: int) -> tuple[Array, Array]:
    """The operands, of one type and varying over the same mesh axes."""
    images, kernel = jnp.asarray(images), jnp.asarray(kernel)
    if images.ndim != 4 or kernel.ndim != 4:
        raise ValueError(
            f"{name}: images {images.shape} and kernel {kernel.shape}; give [N, H, W, C] and "
            "[h, w, C, D]."
        )
    if images.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"{name}: images {images.shape} have {images.shape[-1]} channels, but the kernel "
            f"{kernel.shape} has {kernel.shape[-2]}; give both the same number."
        )
    if stride < 1:
        raise ValueError(f"{name}: stride {stride}; give at least 1.")
    # Type promotion, as in JAX's own operations.
    dtype = jnp.promote_types(images.dtype, kernel.dtype)
    images, kernel = images.astype(dtype), kernel.astype(dtype)
    images = varying_with(images, kernel)
    return images, varying_with(kernel, images)


def _define(name: str, *, form: Form, per_task: Form, on_cpu: Form) -> Primitive:
    """A primitive of two arrays and a `Geometry`, with one lowering for CPUs and one for others.

    Args:
      name: the name of the primitive.
      form: computes it for arguments of four axes, on any platform but the CPU.
      per_task: the same for one task of arguments with five axes.
      on_cpu: computes it in both cases on the CPU.
    """
    primitive = Primitive(name)

    def by_default(left: Array, right: Array, *, geometry: Geometry) -> Array:
        if left.ndim == 4:
            return form(left, right, geometry)
        return jax.vmap(lambda left, right: per_task(left, right, geometry))(left, right)

    def by_cpu(left: Array, right: Array, *, geometry: Geometry) -> Array:
        if left.ndim == 4:
            return on_cpu(left, right, geometry)
        return lax.map(lambda pair: on_cpu(pair[0], pair[1], geometry), (left, right))

    primitive.def_impl(partial(xla.apply_primitive, primitive))
    # Traced, so that the type includes the mesh axes that the result varies over.
    primitive.def_abstract_eval(
        lambda left, right, *, geometry: jax.make_jaxpr(partial(by_default, geometry=geometry))(
            left, right
        ).out_avals[0]
    )
    mlir.register_lowering(primitive, mlir.lower_fun(by_default, multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(by_cpu, multiple_results=False), platform="cpu"
    )
    return primitive


convolve_p = _define(
    "convolve",
    form=forms.convolve_by_xla,
    per_task=forms.convolve_by_patches,
    on_cpu=cpu.convolve_on_cpu,
)
gradient_to_images_p = _define(
    "convolve_gradient_to_images",
    form=forms.transposed_in_images(forms.convolve_by_xla),
    per_task=forms.transposed_in_images(forms.convolve_by_patches),
    on_cpu=cpu.gradient_to_images_on_cpu,
)
gradient_to_kernel_p = _define(
    "convolve_gradient_to_kernel",
    form=forms.transposed_in_kernel(forms.convolve_by_xla),
    per_task=forms.transposed_in_kernel(forms.convolve_by_patches),
    on_cpu=cpu.gradient_to_kernel_on_cpu,
)

# For primitive(left, right): the transpose in left, a function of the cotangent and right, and the
# transpose in right, a function of the cotangent and left.
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
    left_only: tuple[int, int],
    right_only: tuple[int, int],
    args: tuple[Array, Array],
    axes: tuple[Any, Any],
    *,
    geometry: Geometry,
) -> tuple[Array, int]:
    """The batching rule: one more axis in one or both arguments, at most five axes in all.

    If only one argument has the new axis, it is folded into an axis that the operation maps over:
    `left_only` and `right_only` give that axis, of four, in the argument and in the result. If both
    arguments have it, it becomes the task axis, or is folded into the task axis.
    """
    (left, right), (left_axis, right_axis) = args, axes
    run = partial(primitive.bind, geometry=geometry)
    if right_axis is None:
        into, out = (axis + right.ndim - 4 for axis in left_only)
        return _unfold(run(_fold(left, left_axis, into), right), out, left.shape[left_axis])
    if left_axis is None:
        into, out = (axis + left.ndim - 4 for axis in right_only)
        return _unfold(run(left, _fold(right, right_axis, into)), out, right.shape[right_axis])
    left, right = jnp.moveaxis(left, left_axis, 0), jnp.moveaxis(right, right_axis, 0)
    if left.shape[0] == 1:
        return run(left[0], right[0])[None], 0
    if left.ndim == 5:
        return run(left, right), 0
    return _unfold(run(_fold(left, 0, 0), _fold(right, 0, 0)), 0, left.shape[0])


def _fold(array: Array, axis: int, into: int) -> Array:
    array = jnp.moveaxis(array, axis, into)
    return array.reshape(*array.shape[:into], -1, *array.shape[into + 2 :])


def _unfold(array: Array, axis: int, count: int) -> tuple[Array, int]:
    return array.reshape(*array.shape[:axis], count, -1, *array.shape[axis + 1 :]), axis


for _primitive, _left_only, _right_only in (
    (convolve_p, (0, 0), (3, 3)),
    (gradient_to_images_p, (0, 0), (2, 3)),
    (gradient_to_kernel_p, (3, 2), (3, 3)),
):
    batching.primitive_batchers[_primitive] = partial(_batch, _primitive, _left_only, _right_only)
