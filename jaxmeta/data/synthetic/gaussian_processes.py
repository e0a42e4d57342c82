"""Curves drawn from Gaussian processes, and their exact posterior, the best possible prediction."""

import math
from typing import Literal, NamedTuple, get_args

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task, fill_padding, valid_mask
from jaxmeta.data.samplers import Sampler, sampler

KernelKind = Literal["rbf", "matern", "periodic"]
Range = tuple[float, float]

JITTER = 1e-4  # added to the variance of every point, so that the Cholesky factor exists


class Kernel(NamedTuple):
    """A covariance function; its numbers may differ from task to task.

    Attributes:
      kind: static: rbf, matern (ν = 5/2) or periodic.
      length: l, the length scale, in units of x.
      scale: σ, the standard deviation of the curve.
      noise: σ_n; the std of a point about the curve is √(σ_n² + 1e-4), see `JITTER`.
      period: p, in units of x; used by the periodic kernel only.
    """

    kind: KernelKind
    length: Array | float
    scale: Array | float
    noise: Array | float
    period: Array | float = 1.0


def covariance(kernel: Kernel, one: Array, other: Array) -> Array:
    """k(x, x') for points `[N, X]` and `[M, X]`: float `[N, M]`, without the noise.

        rbf:       σ² exp(−d² / 2l²)
        matern:    σ² (1 + √5 d/l + 5d²/3l²) exp(−√5 d/l)
        periodic:  σ² exp(−2 sin²(π d / p) / l²)

    where d is the distance between x and x'.

    Raises:
      ValueError: the kind is unknown.

    Source: Rasmussen, Williams 2006, "Gaussian processes for machine learning", chapter 4.

    >>> at = jnp.array([[0.0], [1.0]])
    >>> found = covariance(Kernel("rbf", 1.0, 2.0, 0.0), at, at)
    >>> [f"{value:.3f}" for value in found[0]]
    ['4.000', '2.426']
    """
    chex.assert_rank([one, other], 2)
    chex.assert_rank([kernel.length, kernel.scale, kernel.period], 0)
    squares = jnp.square(one[:, None] - other[None]).sum(axis=-1)
    if kernel.kind == "rbf":
        shape = jnp.exp(-squares / (2 * kernel.length**2))
    elif kernel.kind in ("matern", "periodic"):
        # Added under the root, so that the gradient is finite where the two points coincide.
        distances = jnp.sqrt(squares + 1e-12)
        scaled = math.sqrt(5) * distances / kernel.length
        if kernel.kind == "matern":
            shape = (1 + scaled + jnp.square(scaled) / 3) * jnp.exp(-scaled)
        else:
            waves = jnp.square(jnp.sin(math.pi * distances / kernel.period))
            shape = jnp.exp(-2 * waves / kernel.length**2)
    else:
        raise ValueError(f"unknown kernel {kernel.kind!r}; give {', '.join(get_args(KernelKind))}")
    return kernel.scale**2 * shape


def gaussian_curves(
    *,
    kernel: KernelKind = "rbf",
    points: tuple[int, int] = (3, 10),
    queries: int = 50,
    kernel_length: Range = (0.4, 0.4),
    kernel_scale: Range = (1.0, 1.0),
    kernel_period: Range = (1.0, 1.0),
    noise: float = 0.02,
    domain: Range = (-2.0, 2.0),
) -> Sampler:
    """A sampler of curves from Gaussian processes: `sample(key) -> Task`.

    Points are uniform in the domain. The support always has the largest number of points; its mask
    marks those that belong to the task, so that all tasks share one compiled shape.

    Args:
      kernel: the kind of kernel, see `covariance`.
      points: smallest and largest number of support points, drawn uniformly.
      queries: number of query points.
      kernel_length, kernel_scale, kernel_period: ranges of the kernel's numbers, drawn uniformly
        for each task.
      noise: std of the noise of each point, in addition to `JITTER`.
      domain: `(low, high)` of x.

    Shapes: float32 `[points_max, 1]` in the support, `[queries, 1]` in the query.

    Raises:
      ValueError: the kernel is unknown; a range is in the wrong order or not positive; queries
        below one; negative noise; an empty domain.

    >>> task = gaussian_curves(points=(3, 10))(jax.random.key(0))
    >>> task.support.inputs.shape, 3 <= int(task.support.mask.sum()) <= 10
    ((10, 1), True)
    """
    ranges = {
        "points": points,
        "kernel_length": kernel_length,
        "kernel_scale": kernel_scale,
        "kernel_period": kernel_period,
    }
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(
                f"gaussian_curves: {name} from {low} to {high}; give positive numbers, the smaller "
                "first"
            )
    if kernel not in get_args(KernelKind) or queries < 1 or noise < 0 or domain[0] >= domain[1]:
        raise ValueError(
            f"gaussian_curves: kernel {kernel!r}, {queries} queries, noise {noise}, domain "
            f"{domain}; give a kernel of {', '.join(get_args(KernelKind))}, at least 1 query, "
            "noise of 0 or more, and a domain (low, high) with low < high"
        )
    return sampler(
        _draw_task,
        kernel=kernel,
        points=points,
        queries=queries,
        kernel_length=kernel_length,
        kernel_scale=kernel_scale,
        kernel_period=kernel_period,
        noise=noise,
        domain=domain,
    )


def kernel_of(sample: Sampler, key: Key) -> Kernel:
    """The kernel of the task that `gaussian_curves` draws with this key, for `posterior`."""
    options = sample.func.keywords  # pyright: ignore
    return _draw_kernel(key, **{name: options[name] for name in _KERNEL})


_KERNEL = ("kernel", "kernel_length", "kernel_scale", "kernel_period", "noise")


def _draw_kernel(
    key: Key,
    *,
    kernel: KernelKind,
    kernel_length: Range,
    kernel_scale: Range,
    kernel_period: Range,
    noise: float,
) -> Kernel:
    # `split` gives the keys of `fold_in` 0, 1 and so on; `_draw_task` uses the first four.
    keys = jax.random.split(jax.random.fold_in(key, 4), 3)
    numbers = [
        jax.random.uniform(own, (), minval=low, maxval=high)
        for own, (low, high) in zip(keys, (kernel_length, kernel_scale, kernel_period))
    ]
    return Kernel(kernel, numbers[0], numbers[1], noise, numbers[2])


def _draw_task(
    key: Key,
    *,
    points: tuple[int, int],
    queries: int,
    domain: Range,
    **of_kernel,
) -> Task:
    kernel = _draw_kernel(key, **of_kernel)
    count_key, place_key, value_key, noise_key = jax.random.split(key, 4)
    total = points[1] + queries
    inputs = jax.random.uniform(place_key, (total, 1), minval=domain[0], maxval=domain[1])
    matrix = covariance(kernel, inputs, inputs) + JITTER * jnp.eye(total)
    curve = cholesky(matrix) @ jax.random.normal(value_key, (total, 1))
    values = curve + kernel.noise * jax.random.normal(noise_key, (total, 1))
    count = jax.random.randint(count_key, (), points[0], points[1] + 1)
    valid_S = jnp.arange(points[1]) < count
    support = Batch(inputs[: points[1]], values[: points[1]], valid_S)
    return Task(support, Batch(inputs[points[1] :], values[points[1] :]))


def cholesky(matrix_NN: Array) -> Array:
    """The lower triangular L with L Lᵀ equal to the matrix, which must be positive definite.

    Uses XLA operations only: LAPACK's routine, mapped over tasks, deadlocks with several CPU
    devices (jax 0.10).

    >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    chex.assert_rank(matrix_NN, 2)
    places = jnp.arange(matrix_NN.shape[0])

    def eliminate(carry: tuple[Array, Array], place: Array) -> tuple[tuple[Array, Array], None]:
        rest_NN, lower_NN = carry
        column_N = rest_NN[:, place] * jax.lax.rsqrt(rest_NN[place, place])
        column_N = jnp.where(places < place, 0, column_N)
        rest_NN = rest_NN - column_N[:, None] * column_N[None]
        return (rest_NN, lower_NN.at[:, place].set(column_N)), None

    start = (matrix_NN, jnp.zeros_like(matrix_NN))
    return jax.lax.scan(eliminate, start, places)[0][1]


def posterior(kernel: Kernel, support: Batch, inputs: Array) -> tuple[Array, Array]:
    """Mean and std of new noisy points, given the support: `[Q, 1]` each.

        μ = Kᵩₛ (Kₛₛ + ν I)⁻¹ y,  Σ = Kᵩᵩ + ν I − Kᵩₛ (Kₛₛ + ν I)⁻¹ Kₛᵩ (its diagonal)

    with ν = σ_n² + 1e-4, the variance of the noise.

    Source: Rasmussen, Williams 2006, equations 2.23 and 2.24.

    >>> support = Batch(jnp.array([[0.0]]), jnp.array([[2.0]]))
    >>> mean, std = posterior(Kernel("rbf", 1.0, 1.0, 0.0), support, jnp.array([[0.0]]))
    >>> round(float(mean[0, 0]), 2), round(float(std[0, 0]), 2)
    (2.0, 0.01)
    """
    chex.assert_rank([support.inputs, support.targets, inputs], 2)
    places_SX, values = fill_padding((support.inputs, support.targets), support.mask)
    valid_S = valid_mask(support.mask, len(places_SX))
    # Padding has no covariance with any point, and the value 0.
    both = valid_S[:, None] & valid_S[None]
    variance = kernel.noise**2 + JITTER
    within = jnp.where(both, covariance(kernel, places_SX, places_SX), 0)
    within = within + jnp.diag(jnp.where(valid_S, variance, 1.0))
    across = jnp.where(valid_S[None], covariance(kernel, inputs, places_SX), 0)
    values = jnp.where(valid_S[:, None], values, 0)
    factor = jax.scipy.linalg.cho_factor(within, lower=True)
    mean = across @ jax.scipy.linalg.cho_solve(factor, values)
    known = (across * jax.scipy.linalg.cho_solve(factor, across.T).T).sum(axis=1)
    own = kernel.scale**2 + variance
    return mean, jnp.sqrt(jnp.maximum(own - known, 1e-8))[:, None]
